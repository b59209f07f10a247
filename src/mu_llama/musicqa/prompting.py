"""What a language model is asked, from files that people can edit."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from string import Template

from mu_llama.errors import ConfigError
from mu_llama.labels.track import Track
from mu_llama.musicqa.reply import NUM_DISTRACTORS, ReplySpec

FILES = ("system.txt", "user.txt")
"""What a folder of prompts holds; `user.txt` has the places $facts, $num_pairs, $num_choices, $num_distractors."""
_HEADINGS = {"genre": "Genre", "instrument": "Instruments", "voice": "Voice", "mood": "Mood", "tempo": "Tempo",
             "other": "Also"}  # fmt: skip
_FACTS = {"tempo_bpm": "Beats per minute", "key": "Key"}


@dataclass(frozen=True)
class Prompts:
    """Instructions for a language model."""

    system: str
    """Who it is and what it may not do."""
    user: Template
    """What is asked about one track."""

    @property
    def sha256(self) -> str:
        """Of both texts, for run records."""
        return hashlib.sha256(f"{self.system}\0{self.user.template}".encode()).hexdigest()

    def messages(self, track: Track, wanted: ReplySpec) -> list[dict[str, str]]:
        """Fill in a track: messages as chat models take them."""
        content = self.user.substitute(
            facts=facts_of(track),
            num_pairs=wanted.num_pairs,
            num_choices=wanted.num_choices,
            num_distractors=NUM_DISTRACTORS,
        )
        return [{"role": "system", "content": self.system}, {"role": "user", "content": content}]


def load_prompts(folder: Path | None = None) -> Prompts:
    """Read the project's prompts, or those of a folder.

    Raises:
        ConfigError: if a file is missing, or `user.txt` has no place for the facts or an unknown one.
    """
    texts = [_read(folder, name) for name in FILES]
    user = Template(texts[1])
    where = "the prompts" if folder is None else str(folder / FILES[1])
    if "facts" not in user.get_identifiers():
        raise ConfigError(f"{where}: has no $facts; expected the place where what is known of a track goes")
    try:
        user.substitute(facts="", num_pairs=0, num_choices=0, num_distractors=0)
    except (KeyError, ValueError) as error:
        raise ConfigError(
            f"{where}: {error} is no place that is filled; expected $facts, $num_pairs, $num_choices, "
            "$num_distractors, and $$ for a dollar sign"
        ) from error
    return Prompts(texts[0], user)


def facts_of(track: Track) -> str:
    """Write down what is known of a track, a line for each kind.

    Example:
        >>> print(facts_of(Track("a", tags={"genre": ("jazz",), "instrument": ("piano", "bass")})))
        Genre: jazz
        Instruments: piano, bass
    """
    lines = [f"{_HEADINGS[category]}: {', '.join(tags)}" for category, tags in track.tags.items() if tags]
    for name, heading in _FACTS.items():
        value = track.facts.get(name)
        if value is not None:
            lines.append(f"{heading}: {value:.0f}" if isinstance(value, float) else f"{heading}: {value}")
    if track.caption:
        lines.append(f"Description: {track.caption}")
    return "\n".join(lines)


def _read(folder: Path | None, name: str) -> str:
    if folder is None:
        return resources.files("mu_llama.musicqa.prompts").joinpath(name).read_text(encoding="utf-8").strip()
    try:
        return (folder / name).read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(
            f"{folder / name}: can't be read ({getattr(error, 'strerror', None) or error}); expected a folder with "
            f"{' and '.join(FILES)}"
        ) from error
