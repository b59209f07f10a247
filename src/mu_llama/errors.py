"""The one error family: each says what came, what was expected and what to do."""

from __future__ import annotations


class MuLlamaError(Exception):
    """Anything this package raises on purpose; its text is one line that a user can act on."""


class AudioError(MuLlamaError, ValueError):
    """An audio source that can't be used: unreadable, empty, silent, not finite."""


class AudioNotFoundError(AudioError, FileNotFoundError):
    """A path to audio that doesn't exist."""

    def __str__(self) -> str:
        return str(self.args[0]) if self.args else ""


class QuestionError(MuLlamaError, ValueError):
    """A question or option that can't be used."""


class ModelNotFoundError(MuLlamaError, FileNotFoundError):
    """A model name or path that names no model."""

    def __str__(self) -> str:
        return str(self.args[0]) if self.args else ""


class CheckpointError(MuLlamaError, ValueError):
    """A weight file whose contents don't fit: wrong keys, shapes, format or checksum."""


class ConfigError(MuLlamaError, ValueError):
    """Settings that contradict each other or are out of range."""
