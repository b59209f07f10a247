"""What the rest of the package may expect of an audio encoder."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    from mu_llama.audio.waveform import Waveform

    Features = npt.NDArray[np.float32]


class Encoder(Protocol):
    """A frozen map from one window of sound to a small matrix of features.

    Encoders live outside the trained model: their output is cached by content and never computed twice.
    """

    name: str
    """Short name for people, e.g. `musicnn`."""
    fingerprint: str
    """Hex SHA-256 over the weights and every setting that changes the numbers."""
    rate_hz: int
    """Sample rate that `encode` expects."""
    num_layers: int
    """L: how many feature vectors (hidden states) one window gives."""
    width: int
    """D: length of each vector."""

    def encode(self, window: Waveform) -> Features:
        """Encode one window.

        Args:
            window: mono sound at `rate_hz`, of any length from a tenth of a second up.

        Returns:
            Float32 array of shape (L, D), averaged over the window's time.

        Raises:
            AudioError: if the window has another rate or is too short to give one frame.
        """
        ...


@runtime_checkable
class Tagger(Protocol):
    """An encoder that can also say which tags fit a track."""

    def tag_probabilities(self, values: Features) -> dict[str, float]:
        """Read each tag's probability out of a track's features (L, D), likeliest first."""
        ...


@dataclass(frozen=True)
class EncoderKind:
    """A kind of encoder: how it is built, and how its files are recognised. An entry of `encoders.ENCODERS`.

    Functions import what they need when they are called, so that listing the kinds loads nothing.
    """

    name: str
    """The value of `kind` in a model folder's config."""
    builder: Callable[[], Callable[..., Encoder]]
    """Imports the encoder and gives the function that builds it from its settings. Where that has a parameter
    `device`, the model's device is passed."""
    title: str = ""
    """What a folder of it is called, e.g. `MERT`."""
    recognise: Callable[[Mapping[str, Any]], bool] | None = None
    """Whether the contents of a folder's config.json are those of this kind; None where it has no folder."""
    weight_prefixes: tuple[str, ...] = ()
    """How the names of its tensors begin in a file of weights."""
    find_folder: Callable[[str | Path], Path] | None = None
    """Gives the folder of the setting `path`, downloaded where it is a hub id."""
    from_tensors: Callable[..., Encoder] | None = None
    """Builds it of tensors out of a checkpoint: `(tensors, config or None, *, device, source)`."""
    settings_files: Callable[[Mapping[str, Any], Mapping[str, Any] | None], dict[str, dict[str, Any]]] | None = None
    """Gives the JSON files to write beside such tensors, by name; reads their shapes alone."""
