"""Listen to music and answer in words.

Example:
    listener = mu_llama.load("mini")
    print(listener.ask("song.ogg", "What instruments do you hear?").text)
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mu_llama.answers import Answer
    from mu_llama.listener import Listener, load

__version__ = "0.1.0"
__all__ = ["Answer", "Listener", "__version__", "load"]


def __getattr__(name: str) -> Any:
    """Import the facade on first use, so that `import mu_llama` costs no torch."""
    if name == "Answer":
        from mu_llama import answers

        return answers.Answer
    if name in {"Listener", "load"}:
        from mu_llama import listener

        return getattr(listener, name)
    raise AttributeError(f"module 'mu_llama' has no attribute {name!r}")
