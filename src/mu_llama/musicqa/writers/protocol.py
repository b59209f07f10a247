"""The `Writer` protocol with its errors, prompts for language models, and `WriterSpec`, a writer's settings."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib import resources
from pathlib import Path
from string import Template
from typing import Any, Protocol

from mu_llama.errors import ConfigError, MuLlamaError
from mu_llama.files import without_surrogates
from mu_llama.labels.track import Track
from mu_llama.musicqa.reply import NUM_DISTRACTORS, ReplySpec


class NothingToSay(MuLlamaError, ValueError):  # noqa: N818 - it says what it is
    """A track without labels and caption: no attempt can help."""


class Unavailable(MuLlamaError, RuntimeError):  # noqa: N818 - as above
    """The writer can't be reached for now; the track stays to be written."""


class Refused(MuLlamaError, RuntimeError):  # noqa: N818 - as above
    """The writer won't work at all: a wrong key, an unknown model."""


@dataclass(frozen=True)
class Written:
    """Result of a writer."""

    reply: Mapping[str, Any]
    """JSON object, to be checked."""
    prompt_tokens: int = 0
    """Tokens read, as the writer counts them."""
    completion_tokens: int = 0
    """Tokens written."""


class Writer(Protocol):
    """Writes about tracks."""

    name: str
    """Its kind, one of `WRITERS`."""
    num_at_once: int
    """How many tracks it takes at the same time."""

    async def write(self, track: Track, *, attempt: int) -> Written:
        """Write about a track.

        Args:
            track: with labels.
            attempt: 0, and one more after each reply that was refused; another attempt may write otherwise.

        Raises:
            NothingToSay: if there are no labels.
            Damaged: if what came can't be read.
            Unavailable: if nothing came, for now.
            Refused: if nothing will ever come.
        """
        ...


def seed_digest(seed: int, attempt: int, track: Track) -> bytes:
    """Hash what seeds the sampling of one attempt about one track; the first bytes of it are the seed."""
    return hashlib.sha256(f"{seed} {attempt} {track.id}".encode("utf-8", "surrogatepass")).digest()


FILES = ("system.txt", "user.txt")
"""What a folder of prompts holds; `user.txt` has the places $facts, $num_pairs, $num_choices, $num_distractors."""
_HEADINGS = {"genre": "Genre", "instrument": "Instruments", "voice": "Voice", "mood": "Mood", "tempo": "Tempo",
             "other": "Also"}  # fmt: skip
_FACTS = {"tempo_bpm": "Beats per minute", "key": "Key"}


@dataclass(frozen=True)
class Prompts:
    """Instructions for a language model."""

    system: str
    """The system message."""
    user: Template
    """The user message about one track, with places to fill."""

    @property
    def sha256(self) -> str:
        """Of both texts, for run records."""
        return hashlib.sha256(f"{self.system}\0{self.user.template}".encode()).hexdigest()

    def messages(self, track: Track, reply_spec: ReplySpec) -> list[dict[str, str]]:
        """Fill in a track: messages as chat models take them."""
        content = self.user.substitute(
            facts=facts_of(track),
            num_pairs=reply_spec.num_pairs,
            num_choices=reply_spec.num_choices,
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
    return without_surrogates("\n".join(lines))


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


WRITERS = ("template", "endpoint", "local")
"""No language model; an OpenAI-compatible server; a chat model on this machine."""

LOCAL_MODEL = "smollm2-135m-instruct"
"""What a local writer runs where no model is named."""


@dataclass(frozen=True)
class WriterSpec:
    """Settings of a writer, as plain values that travel to other processes."""

    kind: str = "template"
    """One of `WRITERS`."""
    model: str | None = None
    """As the server calls it; or the embedded model, a folder or hub id."""
    base_url: str | None = None
    """Address of the server, up to `/v1`."""
    key_variable: str = "OPENAI_API_KEY"
    """Environment variable that holds the server's key."""
    prompts: Path | None = None
    """Folder of prompts instead of the project's own."""
    num_at_once: int = 16
    """Most requests in flight."""
    num_retries: int = 8
    """How often a request is sent again."""
    timeout_s: float = 120.0
    """Longest wait for a reply."""
    temperature: float = 0.7
    """Sampling temperature."""
    max_tokens: int = 1600
    """Longest reply."""
    one_by_one: bool = False
    """Ask a server for each text alone."""
    device: str = "auto"
    """Device of a local model."""
    seed: int = 0
    """Seed of wordings and sampling."""
    reply_spec: ReplySpec = field(default_factory=ReplySpec)
    """How much is written."""

    @property
    def prompt(self) -> str:
        """The instructions, whose words a reply may not repeat; none without a language model."""
        if self.kind == "template":
            return ""
        prompts = load_prompts(self.prompts)
        return f"{prompts.system}\n{prompts.user.template}"
