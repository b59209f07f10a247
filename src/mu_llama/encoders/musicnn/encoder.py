"""The MusiCNN encoder: two music taggers, trained on MagnaTagATune and the Million Song Dataset."""

from __future__ import annotations

import hashlib
import json
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Literal

import numpy as np

from mu_llama.arrays import FloatArray
from mu_llama.audio.waveform import Samples, Waveform
from mu_llama.devices import compute_threads
from mu_llama.encoders.musicnn.log_mel import HOP, RATE_HZ, LogMel
from mu_llama.encoders.musicnn.network import PATCH_FRAMES, MusicnnNetwork, NetworkOutput, sigmoid
from mu_llama.encoders.musicnn.weights import MusicnnWeights, Variant, read_musicnn_weights
from mu_llama.errors import AudioError, ConfigError

Part = Literal["penultimate", "tag_logits", "tag_probabilities", "pooled"]

SHORTEST_S = 0.1
TARGET_RMS = 10 ** (-16 / 20)  # -16 dBFS
LARGEST_GAIN = 10 ** (40 / 20)  # +40 dB
_PART_WIDTHS: dict[Part, int] = {
    "penultimate": 200,
    "tag_logits": 50,
    "tag_probabilities": 50,
    "pooled": 1506,
}


@dataclass(frozen=True, eq=False)
class MusicnnFeatures:
    """What MusiCNN gives for P patches of about three seconds; V variants stand side by side in every row."""

    start_s: FloatArray
    """Float32 (P,): where each patch starts, in seconds from the start of the window."""
    weights: FloatArray
    """Float32 (P,), summing to 1: the share of the window that each patch is the first to cover."""
    penultimate: FloatArray
    """Float32 (P, 200 V): the last hidden layer."""
    pooled: FloatArray
    """Float32 (P, 1506 V): mid-level features, maximum and mean over time interleaved."""
    tag_logits: FloatArray
    """Float32 (P, 50 V): log odds of each tag."""
    tag_probabilities: FloatArray
    """Float32 (P, 50 V) in [0, 1]; tags don't exclude each other."""
    tag_names: tuple[str, ...]
    """Variant and tag of each column, e.g. `msd:rock`."""

    def averaged(self) -> MusicnnFeatures:
        """Average everything over the window: the same with P = 1."""
        # Not a product: the BLAS would start threads of its own.
        means = {part: (self.weights[:, None] * getattr(self, part)).sum(0, keepdims=True) for part in _PART_WIDTHS}
        start_s, weights = np.zeros(1, np.float32), np.ones(1, np.float32)
        return MusicnnFeatures(start_s, weights, tag_names=self.tag_names, **means)


class MusicnnEncoder:
    """Encode a window as the average over time of MusiCNN's features; satisfies `Encoder`.

    Args:
        weights: from `read_musicnn_weights`.
        variants: which taggers, in the order of their columns.
        parts: which fields of `MusicnnFeatures` make up the encoding, in order.
        normalise_level: bring the window to -16 dBFS RMS and through tanh first.
        threads: how many patches are computed at a time; None for `compute_threads()`.

    Raises:
        ConfigError: if variants or parts are empty, repeated or unknown, or there are no threads.
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
        threads: int | None = None,
    ) -> None:
        _check_choice("variants", variants, tuple(weights.tag_names))
        _check_choice("parts", parts, tuple(_PART_WIDTHS))
        if threads is not None and threads < 1:
            raise ConfigError(f"MusiCNN threads are {threads}; expected at least 1, or None for what the machine has")
        self.parts = parts
        self.normalise_level = normalise_level
        self.threads = threads
        self.width = len(variants) * sum(_PART_WIDTHS[part] for part in parts)
        settings = [weights.sha256, variants, parts, normalise_level]
        self.fingerprint = hashlib.sha256(json.dumps(settings).encode()).hexdigest()
        self.tag_names = tuple(f"{variant}:{tag}" for variant in variants for tag in weights.tag_names[variant])
        self._log_mel = LogMel(weights.tensors["mel_filters"])
        self._network = MusicnnNetwork([weights.graph(variant) for variant in variants])

    def encode(self, window: Waveform) -> FloatArray:
        """Encode one window.

        Args:
            window: mono sound at 16 kHz, at least a tenth of a second.

        Returns:
            Float32 of shape (1, D).

        Raises:
            AudioError: if the window has another rate or is too short.

        Example:
            >>> import numpy as np
            >>> hum = np.sin(np.arange(16000, dtype=np.float32))
            >>> build_musicnn().encode(Waveform(hum, 16000)).shape
            (1, 500)
        """
        features = self.encode_patches(window).averaged()
        return np.concatenate([getattr(features, part) for part in self.parts], -1)

    def tag_probabilities(self, values: FloatArray) -> dict[str, float]:
        """Read each tag's probability out of a track's features (1, D): `msd:rock` and so on, likeliest first.

        Empty where the encoding holds no tag logits.
        """
        if "tag_logits" not in self.parts:
            return {}
        num_variants = len(self.tag_names) // _PART_WIDTHS["tag_logits"]
        start = sum(_PART_WIDTHS[part] for part in self.parts[: self.parts.index("tag_logits")]) * num_variants
        probabilities = sigmoid(values[0, start : start + len(self.tag_names)]).tolist()
        named = zip(self.tag_names, probabilities, strict=True)
        return dict(sorted(named, key=lambda item: -item[1]))

    def encode_patches(self, window: Waveform) -> MusicnnFeatures:
        """Encode one window patch by patch; arguments and errors as for `encode`."""
        spectrogram = self._spectrogram(_checked(window).samples)
        starts, weights = patch_plan(len(spectrogram))

        def run(start: int) -> NetworkOutput:
            return self._network(spectrogram[None, start : start + PATCH_FRAMES])

        # Each thread has patches of its own: threads that share an operation wait for each other after every one, which
        # takes longer than the operation where a core is busy elsewhere.
        threads = min(self.threads or compute_threads(), len(starts))
        if threads == 1:
            outputs = [run(start) for start in starts]
        else:
            with ThreadPoolExecutor(threads) as pool:
                outputs = list(pool.map(run, starts))
        return MusicnnFeatures(
            start_s=np.array(starts, np.float32) * np.float32(HOP / RATE_HZ),
            weights=np.array(weights, np.float32),
            tag_names=self.tag_names,
            **{part: np.concatenate([getattr(output, part) for output in outputs]) for part in _PART_WIDTHS},
        )

    def _spectrogram(self, samples: Samples) -> FloatArray:
        """Return the log mel spectrogram (frames, bands) of samples (S,), at least one patch long."""
        if self.normalise_level:
            samples = normalised(samples)
        shortest = (PATCH_FRAMES - 1) * HOP
        if samples.size < shortest:  # repeated, as the variants were trained
            samples = np.tile(samples, -(-shortest // samples.size))[:shortest]
        return self._log_mel(samples)


def build_musicnn(
    *,
    variants: tuple[Variant, ...] = ("msd", "mtt"),
    parts: tuple[Part, ...] = ("penultimate", "tag_logits"),
    normalise_level: bool = True,
    threads: int | None = None,
) -> MusicnnEncoder:
    """Build the encoder over the weights of this package; arguments as for `MusicnnEncoder`."""
    return MusicnnEncoder(
        read_musicnn_weights(),
        variants=variants,
        parts=parts,
        normalise_level=normalise_level,
        threads=threads,
    )


def normalised(samples: Samples) -> FloatArray:
    """Bring samples (S,) to -16 dBFS RMS, by 40 dB at most, and bend peaks below full scale with tanh."""
    rms = float(np.sqrt(np.square(samples, dtype=np.float64).mean()))
    bent: FloatArray = np.tanh(samples * np.float32(min(LARGEST_GAIN, TARGET_RMS / max(rms, 1e-12))))
    return bent


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
