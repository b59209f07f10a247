"""The MusiCNN encoder: two music taggers, trained on MagnaTagATune and the Million Song Dataset."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from importlib import resources
from typing import Literal, TypeVar

import safetensors.torch
import torch

from mu_llama.audio.waveform import Samples, Waveform
from mu_llama.encoders.musicnn.front_end import HOP, RATE_HZ, LogMel
from mu_llama.encoders.musicnn.network import PATCH_FRAMES, MusicnnNetwork, NetworkOutput
from mu_llama.errors import AudioError, CheckpointError, ConfigError

Variant = Literal["msd", "mtt"]
Part = Literal["penultimate", "tag_logits", "tag_probabilities", "pooled"]

SHORTEST_S = 0.1
TARGET_RMS = 10 ** (-16 / 20)  # -16 dBFS
LARGEST_GAIN = 10 ** (40 / 20)  # +40 dB
BATCH_PATCHES = 3  # small enough that products stay in the cache
_PART_WIDTHS: dict[Part, int] = {
    "penultimate": 200,
    "tag_logits": 50,
    "tag_probabilities": 50,
    "pooled": 1506,
}


@dataclass(frozen=True)
class MusicnnWeights:
    """The contents of the weight file."""

    tensors: Mapping[str, torch.Tensor]
    """`mel_filters`, and each variant's tensors by `<variant>.<layer>.<leaf>`."""
    tag_names: Mapping[Variant, tuple[str, ...]]
    """Each variant's 50 tags in the order of its outputs."""
    sha256: str
    """Hex digest of the whole file."""


@dataclass(frozen=True, eq=False)
class MusicnnFeatures:
    """What MusiCNN gives for P patches of about three seconds; V variants stand side by side in every row."""

    start_s: torch.Tensor
    """Float32 (P,): where each patch starts, in seconds from the start of the window."""
    weights: torch.Tensor
    """Float32 (P,), summing to 1: the share of the window that each patch is the first to cover."""
    penultimate: torch.Tensor
    """Float32 (P, 200 V): the last hidden layer."""
    pooled: torch.Tensor
    """Float32 (P, 1506 V): mid-level features, maximum and mean over time interleaved."""
    tag_logits: torch.Tensor
    """Float32 (P, 50 V): log odds of each tag."""
    tag_probabilities: torch.Tensor
    """Float32 (P, 50 V) in [0, 1]; tags don't exclude each other."""
    tag_names: tuple[str, ...]
    """Variant and tag of each column, e.g. `msd:rock`."""

    def averaged(self) -> MusicnnFeatures:
        """Average everything over the window: the same with P = 1."""
        means = {part: (self.weights @ getattr(self, part))[None] for part in _PART_WIDTHS}
        return MusicnnFeatures(torch.zeros(1), torch.ones(1), tag_names=self.tag_names, **means)


class MusicnnEncoder:
    """Encode a window as the average over time of MusiCNN's features; satisfies `Encoder`.

    Args:
        weights: from `read_musicnn_weights`.
        variants: which taggers, in the order of their columns.
        parts: which fields of `MusicnnFeatures` make up the encoding, in order.
        normalise_level: bring the window to -16 dBFS RMS and through tanh first.

    Raises:
        ConfigError: if variants or parts are empty, repeated or unknown.
        CheckpointError: if the weights aren't whole.
    """

    name = "musicnn"
    rate_hz = RATE_HZ
    num_layers = 1

    def __init__(
        self,
        weights: MusicnnWeights,
        *,
        variants: tuple[Variant, ...] = ("msd", "mtt"),
        parts: tuple[Part, ...] = ("penultimate", "tag_logits"),
        normalise_level: bool = True,
    ) -> None:
        _check_choice("variants", variants, tuple(weights.tag_names))
        _check_choice("parts", parts, tuple(_PART_WIDTHS))
        self.parts = parts
        self.normalise_level = normalise_level
        self.width = len(variants) * sum(_PART_WIDTHS[part] for part in parts)
        settings = [weights.sha256, variants, parts, normalise_level]
        self.fingerprint = hashlib.sha256(json.dumps(settings).encode()).hexdigest()
        self.tag_names = tuple(f"{variant}:{tag}" for variant in variants for tag in weights.tag_names[variant])
        self._log_mel = LogMel(weights.tensors["mel_filters"])
        self._network = MusicnnNetwork([_variant_tensors(weights, variant) for variant in variants])

    def encode(self, window: Waveform) -> torch.Tensor:
        """Encode one window.

        Args:
            window: mono sound at 16 kHz, at least a tenth of a second.

        Returns:
            Float32 tensor of shape (1, D).

        Raises:
            AudioError: if the window has another rate or is too short.

        Example:
            >>> import numpy as np
            >>> hum = np.sin(np.arange(16000, dtype=np.float32))
            >>> build_musicnn().encode(Waveform(hum, 16000)).shape
            torch.Size([1, 500])
        """
        features = self.encode_patches(window).averaged()
        return torch.cat([getattr(features, part) for part in self.parts], -1)

    def tag_probabilities(self, values: torch.Tensor) -> dict[str, float]:
        """Read each tag's probability out of a track's features (1, D): `msd:rock` and so on, likeliest first.

        Empty where the encoding holds no tag logits.
        """
        if "tag_logits" not in self.parts:
            return {}
        num_variants = len(self.tag_names) // _PART_WIDTHS["tag_logits"]
        start = sum(_PART_WIDTHS[part] for part in self.parts[: self.parts.index("tag_logits")]) * num_variants
        probabilities = torch.sigmoid(values[0, start : start + len(self.tag_names)]).tolist()
        named = zip(self.tag_names, probabilities, strict=True)
        return dict(sorted(named, key=lambda item: -item[1]))

    @torch.inference_mode()
    def encode_patches(self, window: Waveform) -> MusicnnFeatures:
        """Encode one window patch by patch; arguments and errors as for `encode`."""
        (spectrogram,) = map_on_own_threads(self._spectrogram, [_checked(window).samples])
        starts, weights = patch_plan(len(spectrogram))
        patches = torch.stack([spectrogram[start : start + PATCH_FRAMES] for start in starts])
        batches = torch.split(patches, BATCH_PATCHES)
        outputs: list[NetworkOutput] = map_on_own_threads(self._network, batches)
        return MusicnnFeatures(
            start_s=torch.tensor(starts) * (HOP / RATE_HZ),
            weights=torch.tensor(weights),
            tag_names=self.tag_names,
            **{part: torch.cat([getattr(output, part) for output in outputs]) for part in _PART_WIDTHS},
        )

    def _spectrogram(self, window: Samples) -> torch.Tensor:
        """Return the log mel spectrogram (frames, bands) of samples (S,), at least one patch long."""
        samples = torch.from_numpy(window)
        if self.normalise_level:
            samples = normalised(samples)
        shortest = (PATCH_FRAMES - 1) * HOP
        if samples.numel() < shortest:  # repeated, as the variants were trained
            samples = samples.repeat(-(-shortest // samples.numel()))[:shortest]
        spectrogram: torch.Tensor = self._log_mel(samples)
        return spectrogram


def read_musicnn_weights() -> MusicnnWeights:
    """Read the weight file that is part of this package.

    Raises:
        CheckpointError: if it is damaged.
    """
    content = (resources.files("mu_llama.encoders") / "musicnn_weights" / "musicnn.safetensors").read_bytes()
    try:
        tensors = safetensors.torch.load(content)
        header = json.loads(content[8 : 8 + int.from_bytes(content[:8], "little")])
        names: dict[Variant, list[str]] = json.loads(header["__metadata__"]["about"])["tags"]
    except (safetensors.SafetensorError, KeyError, ValueError) as error:
        raise CheckpointError(f"musicnn.safetensors is damaged ({error}): reinstall mu-llama") from error
    tag_names = {variant: tuple(tags) for variant, tags in names.items()}
    return MusicnnWeights(tensors, tag_names, hashlib.sha256(content).hexdigest())


def build_musicnn(
    *,
    variants: tuple[Variant, ...] = ("msd", "mtt"),
    parts: tuple[Part, ...] = ("penultimate", "tag_logits"),
    normalise_level: bool = True,
) -> MusicnnEncoder:
    """Build the encoder over the weights of this package; arguments as for `MusicnnEncoder`."""
    return MusicnnEncoder(
        read_musicnn_weights(),
        variants=variants,
        parts=parts,
        normalise_level=normalise_level,
    )


def normalised(samples: torch.Tensor) -> torch.Tensor:
    """Bring samples (S,) to -16 dBFS RMS, by 40 dB at most, and bend peaks below full scale with tanh."""
    rms = float(samples.double().square().mean().sqrt())
    return torch.tanh(samples * min(LARGEST_GAIN, TARGET_RMS / max(rms, 1e-12)))


def patch_plan(num_frames: int) -> tuple[list[int], list[float]]:
    """Choose patches that cover every frame.

    Args:
        num_frames: length of the spectrogram, at least one patch.

    Returns:
        The first frame of each patch: back to back, and one more at the end if frames remain. And the weight
        of each patch: the share of frames that it is the first to cover.

    Example:
        >>> patch_plan(200)[0]
        [0, 13]
    """
    starts = list(range(0, num_frames - PATCH_FRAMES + 1, PATCH_FRAMES))
    weights = [PATCH_FRAMES / num_frames] * len(starts)
    remaining = num_frames - PATCH_FRAMES * len(starts)
    if remaining:
        starts.append(num_frames - PATCH_FRAMES)
        weights.append(remaining / num_frames)
    return starts, weights


def _checked(window: Waveform) -> Waveform:
    if window.rate_hz != RATE_HZ:
        raise AudioError(f"the window is at {window.rate_hz} Hz; expected {RATE_HZ} Hz: resample it first")
    if window.duration_s < SHORTEST_S:
        raise AudioError(
            f"the window lasts {window.duration_s:.3f} s; expected at least {SHORTEST_S} s: take a longer one"
        )
    return window


def _check_choice(setting: str, chosen: tuple[str, ...], known: tuple[str, ...]) -> None:
    if not chosen or len(set(chosen)) < len(chosen) or not set(chosen) <= set(known):
        raise ConfigError(f"MusiCNN {setting} are {chosen}; expected some of {known}, each once: change {setting}")


def _variant_tensors(weights: MusicnnWeights, variant: Variant) -> dict[str, torch.Tensor]:
    prefix = f"{variant}."
    return {name.removeprefix(prefix): tensor for name, tensor in weights.tensors.items() if name.startswith(prefix)}


Item = TypeVar("Item")
Result = TypeVar("Result")


def map_on_own_threads(function: Callable[[Item], Result], items: Sequence[Item]) -> list[Result]:
    """Apply a function to each item, on as many threads as torch may use, none of which waits for another.

    By default torch splits every operation over its threads, which meet after each. With hundreds of short
    operations and one core busy elsewhere, nearly all time goes in these meetings.

    Args:
        function: thread-safe; runs in inference mode.
        items: what to apply it to.

    Returns:
        Results in the order of the items.
    """
    num_threads = torch.get_num_threads()

    def infer(item: Item) -> Result:
        with torch.inference_mode():
            return function(item)

    if num_threads == 1:
        return [infer(item) for item in items]
    try:
        num_workers = min(num_threads, len(items))
        with ThreadPoolExecutor(num_workers, initializer=torch.set_num_threads, initargs=(1,)) as pool:
            return list(pool.map(infer, items))
    finally:
        # the setting is each thread's own, but threads begun later take over the last one made
        torch.set_num_threads(num_threads)
