"""Listen to music and answer in words.

Example:
    listener = mu_llama.load("mini")
    print(listener.ask("song.ogg", "What instruments do you hear?").text)
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from mu_llama.errors import (
    AudioError,
    AudioNotFoundError,
    CheckpointError,
    ConfigError,
    ModelNotFoundError,
    MuLlamaError,
    QuestionError,
)

if TYPE_CHECKING:
    from mu_llama.answers import Answer, AnswerStream, Failure, HeardTrack
    from mu_llama.audio.read import AudioWarning
    from mu_llama.audio.waveform import Waveform
    from mu_llama.conversation import Conversation
    from mu_llama.generation import GenerationOptions
    from mu_llama.listener import Listener, load
    from mu_llama.model.retrieval import BlendOptions
    from mu_llama.musicqa.build_folder import BuildError
    from mu_llama.musicqa.sources.finding import SourceError
    from mu_llama.records import RecordError
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
    "Failure",
    "GenerationOptions",
    "HeardTrack",
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
    "Answer": "answers",
    "AnswerStream": "answers",
    "AudioWarning": "audio.read",
    "BlendOptions": "model.retrieval",
    "Conversation": "conversation",
    "BuildError": "musicqa.build_folder",
    "DataError": "training.example",
    "RecordError": "records",
    "SourceError": "musicqa.sources.finding",
    "TrainingError": "training.loop",
    "Failure": "answers",
    "GenerationOptions": "generation",
    "HeardTrack": "answers",
    "Listener": "listener",
    "Waveform": "audio.waveform",
    "load": "listener",
}
"""Where to find what is imported on first use, so that `import mu_llama` costs no torch."""


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module 'mu_llama' has no attribute {name!r}")
    return getattr(importlib.import_module(f"mu_llama.{_MODULES[name]}"), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
