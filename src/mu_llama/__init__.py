"""Listen to music and answer in words.

Example:
    listener = mu_llama.load("mini")
    print(listener.ask("song.ogg", "What instruments do you hear?").text)
"""

from __future__ import annotations

import importlib
import warnings
from typing import TYPE_CHECKING, Any

from mu_llama.errors import (
    AudioError,
    AudioNotFoundError,
    CheckpointError,
    ConfigError,
    EngineError,
    ModelNotFoundError,
    MuLlamaError,
    QuestionError,
)

if TYPE_CHECKING:
    from mu_llama.audio.read import AudioWarning
    from mu_llama.audio.waveform import Waveform
    from mu_llama.engine.sampling import GenerationOptions
    from mu_llama.files import RecordError
    from mu_llama.inference.conversation import Conversation
    from mu_llama.inference.listener import Listener
    from mu_llama.inference.pretrained import load
    from mu_llama.inference.results import Answer, AnswerStream, EncodedTrack, Failure
    from mu_llama.model.retrieval import BlendOptions
    from mu_llama.musicqa.build_folder import BuildError
    from mu_llama.musicqa.sources.corpus_files import SourceError
    from mu_llama.training.example import DataError
    from mu_llama.training.loop import TrainingError

__version__ = "0.1.0"
__all__ = [
    "Answer",
    "AnswerStream",
    "AudioError",
    "AudioNotFoundError",
    "AudioWarning",
    "BlendOptions",
    "BuildError",
    "CheckpointError",
    "ConfigError",
    "Conversation",
    "DataError",
    "EncodedTrack",
    "EngineError",
    "Failure",
    "GenerationOptions",
    "Listener",
    "ModelNotFoundError",
    "MuLlamaError",
    "QuestionError",
    "RecordError",
    "SourceError",
    "TrainingError",
    "Waveform",
    "__version__",
    "load",
]
_MODULES = {
    "Answer": "inference.results",
    "AnswerStream": "inference.results",
    "AudioWarning": "audio.read",
    "BlendOptions": "model.retrieval",
    "BuildError": "musicqa.build_folder",
    "Conversation": "inference.conversation",
    "DataError": "training.example",
    "EncodedTrack": "inference.results",
    "Failure": "inference.results",
    "GenerationOptions": "engine.sampling",
    "Listener": "inference.listener",
    "RecordError": "files",
    "SourceError": "musicqa.sources.corpus_files",
    "TrainingError": "training.loop",
    "Waveform": "audio.waveform",
    "load": "inference.pretrained",
}
"""Where to find what is imported on first use, so that `import mu_llama` costs no torch."""

_RENAMED = {"HeardTrack": "EncodedTrack"}
"""Old names that still work, with a warning, until the next release."""


def __getattr__(name: str) -> Any:
    if name in _RENAMED:
        warnings.warn(f"mu_llama.{name} is now mu_llama.{_RENAMED[name]}", DeprecationWarning, stacklevel=2)
        name = _RENAMED[name]
    if name not in _MODULES:
        raise AttributeError(f"module 'mu_llama' has no attribute {name!r}")
    return getattr(importlib.import_module(f"mu_llama.{_MODULES[name]}"), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
