"""MERT as an audio encoder, over transformers' HubertModel."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import Any, cast

import numpy as np
import numpy.typing as npt
import torch
from transformers import HubertModel

from mu_llama.audio.waveform import Samples, Waveform
from mu_llama.encoders.mert.config import PUBLISHED_CONFIGS, MertConfig, parse_mert_config, read_mert_config
from mu_llama.encoders.mert.weights import check_mert_fit, find_mert_folder, fit_names, read_mert_tensors
from mu_llama.errors import AudioError, CheckpointError

_NORMALISE_EPS = 1e-7


class MertEncoder:
    """One window of sound to the time means of MERT's hidden states.

    Args:
        model: the network; it is put in eval mode and frozen.
        config: what the network was built from.

    Example:
        encoder = load_mert("m-a-p/MERT-v1-330M")
        encoder.encode(waveform).shape  # (25, 1024)
    """

    name = "mert"

    def __init__(self, model: HubertModel, config: MertConfig) -> None:
        self.model = model.eval().requires_grad_(False)
        self.config = config
        self.rate_hz = config.rate_hz
        self.num_layers: int = config.computation["num_hidden_layers"] + 1
        self.width: int = config.computation["hidden_size"]

    def _hash(self) -> str:
        """Hex SHA-256 over the tensors that are computed with and every setting that changes the numbers.

        The same weights give the same value whichever file, spelling or device they come from.
        """
        digest = hashlib.sha256()
        settings = [dict(self.config.computation), self.config.rate_hz, self.config.do_normalize]
        digest.update(json.dumps(settings, sort_keys=True).encode())
        for name, tensor in sorted(self.model.state_dict().items()):
            digest.update(json.dumps([name, str(tensor.dtype), list(tensor.shape)]).encode())
            digest.update(tensor.cpu().contiguous().reshape(-1).view(torch.uint8).numpy())
        return digest.hexdigest()

    # A cached_property can be set, but mypy takes it for read-only, which the protocol doesn't allow.
    fingerprint: str = cast(str, cached_property(_hash))

    def encode(self, window: Waveform) -> npt.NDArray[np.float32]:
        """Encode one window.

        Args:
            window: mono sound at `rate_hz`, at least `config.min_samples` long.

        Returns:
            Float32 array of shape (L, D): every hidden state averaged over the window's frames.

        Raises:
            AudioError: if the window has another rate or is too short to give one frame.
        """
        states = self.hidden_states(window)
        with torch.inference_mode():
            means: npt.NDArray[np.float32] = torch.stack([state.float().mean(dim=0) for state in states]).cpu().numpy()
        return means

    def hidden_states(self, window: Waveform) -> tuple[torch.Tensor, ...]:
        """Give the L hidden states themselves, each of shape (frames, D), in the model's dtype.

        State 0 is the input of the first layer and the last one is the encoder's output, after its final
        layer norm. The frame axis stays also where there is one frame.

        Raises:
            AudioError: as `encode`.
        """
        self._check_window(window)
        samples = normalise(window.samples) if self.config.do_normalize else window.samples
        with torch.inference_mode():
            # Always one window, never padded: group norm lets padding change the result.
            values = torch.from_numpy(samples.copy())[None].to(self.model.device, self.model.dtype)  # (1, S)
            output = self.model(values, output_hidden_states=True)
            # transformers 5 gives the last of `hidden_states` before the final layer norm.
            states = (*output.hidden_states[: self.num_layers - 1], output.last_hidden_state)
        assert len(states) == self.num_layers
        return tuple(state[0] for state in states)

    def _check_window(self, window: Waveform) -> None:
        if window.rate_hz != self.rate_hz:
            raise AudioError(f"the window is at {window.rate_hz} Hz; expected {self.rate_hz}: resample it first")
        if window.samples.size < self.config.min_samples:
            raise AudioError(
                f"the window has {window.samples.size} samples ({window.duration_s:.4f} s); "
                f"expected at least {self.config.min_samples}: give a longer stretch of sound"
            )


def normalise(samples: Samples) -> Samples:
    """Bring one window to zero mean and unit variance: `(x - mean) / sqrt(var + 1e-7)`.

    As Wav2Vec2FeatureExtractor of transformers does with `do_normalize`; silence stays silence.

    Example:
        >>> import numpy as np
        >>> normalise(np.array([1.0, 3.0], dtype=np.float32)).round(3).tolist()
        [-1.0, 1.0]
    """
    precise = samples.astype(np.float64)
    normalised: Samples = ((precise - precise.mean()) / np.sqrt(precise.var() + _NORMALISE_EPS)).astype(np.float32)
    return normalised


def load_mert(
    path_or_id: str | Path,
    *,
    device: torch.device | str = "cpu",
    dtype: torch.dtype = torch.float32,
    revision: str | None = None,
) -> MertEncoder:
    """Load a MERT folder, or download one from the Hugging Face hub; code in it is never run.

    Args:
        path_or_id: a folder with config.json and weights, or a hub id such as `m-a-p/MERT-v1-330M`.
        device: where it computes.
        dtype: what it computes in.
        revision: branch, tag or commit of a hub id.

    Raises:
        ModelNotFoundError: if there is no such folder or hub id, or a file of it is missing.
        CheckpointError: if its files don't fit each other.
    """
    folder = find_mert_folder(path_or_id, revision=revision)
    config = read_mert_config(folder)
    tensors, source = read_mert_tensors(folder)
    return _build(tensors, config, device=device, dtype=dtype, source=str(source))


def load_mert_from_tensors(
    tensors: Mapping[str, torch.Tensor],
    config: Mapping[str, Any],
    *,
    preprocessor: Mapping[str, Any] | None = None,
    device: torch.device | str = "cpu",
    dtype: torch.dtype = torch.float32,
    source: str = "the given tensors",
) -> MertEncoder:
    """Build MERT from tensors in memory, e.g. those of a published MU-LLaMA checkpoint.

    Args:
        tensors: weights, with or without `mert_model.` before each name; used without a copy where device
            and dtype fit.
        config: contents of config.json; see `published_config` where there is none.
        preprocessor: contents of preprocessor_config.json.
        device: where it computes.
        dtype: what it computes in.
        source: how errors name the tensors.

    Raises:
        CheckpointError: if tensors and config don't fit each other.
    """
    parsed = parse_mert_config(config, preprocessor=preprocessor, source=f"the config of {source}")
    return _build(tensors, parsed, device=device, dtype=dtype, source=source)


def published_config(tensors: Mapping[str, torch.Tensor], *, source: str = "the given tensors") -> dict[str, Any]:
    """Find the published MERT size (330M or 95M) that tensors without a config.json belong to.

    Raises:
        CheckpointError: if their width is that of neither.
    """
    key = "encoder.layer_norm.weight"
    fitted = fit_names(tensors, source=source)
    width = fitted[key].shape[0] if key in fitted else None
    for config in PUBLISHED_CONFIGS.values():
        if config["hidden_size"] == width:
            return dict(config)
    sizes = ", ".join(f"{config['hidden_size']} ({name})" for name, config in PUBLISHED_CONFIGS.items())
    raise CheckpointError(f"{source} holds a MERT of width {width}; expected one of {sizes}: give its config.json")


def _build(
    tensors: Mapping[str, torch.Tensor],
    config: MertConfig,
    *,
    device: torch.device | str,
    dtype: torch.dtype,
    source: str,
) -> MertEncoder:
    try:
        with torch.device("meta"):
            model = HubertModel(config.to_hubert())
    except (KeyError, TypeError, ValueError) as error:
        raise CheckpointError(f"the config of {source} makes no model: {error}") from error
    fitted = fit_names(tensors, source=source)
    check_mert_fit(fitted, model.state_dict(), source=source)
    placed = {
        name: tensor.to(device=device, dtype=dtype if tensor.is_floating_point() else tensor.dtype)
        for name, tensor in fitted.items()
    }
    model.load_state_dict(placed, strict=True, assign=True)
    return MertEncoder(model, config)
