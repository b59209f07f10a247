"""Which writer, as plain values that travel to other processes, and how it is made of them."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from mu_llama.errors import ConfigError
from mu_llama.musicqa.language import check_installed
from mu_llama.musicqa.prompting import load_prompts
from mu_llama.musicqa.reply import ReplySpec
from mu_llama.musicqa.writers.protocol import Writer

WRITERS = ("template", "endpoint", "local")
"""No language model; an OpenAI-compatible server; a chat model on this machine."""

LOCAL_MODEL = "smollm2-135m-instruct"
"""What a local writer runs where no model is named."""


@dataclass(frozen=True)
class WriterSpec:
    """Which writer and how it writes."""

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
    """Of sampling."""
    max_tokens: int = 1600
    """Longest reply."""
    one_by_one: bool = False
    """Ask a server for each text alone."""
    device: str = "auto"
    """For a local model."""
    seed: int = 0
    """Of wordings and sampling."""
    wanted: ReplySpec = field(default_factory=ReplySpec)
    """How much is written."""

    @property
    def prompt(self) -> str:
        """The instructions, whose words a reply may not repeat; none without a language model."""
        if self.kind == "template":
            return ""
        prompts = load_prompts(self.prompts)
        return f"{prompts.system}\n{prompts.user.template}"


def make_writer(spec: WriterSpec, *, home: Path) -> Writer:
    """Make a writer.

    Args:
        spec: which.
        home: cache folder.

    Raises:
        ConfigError: if something about it is missing or wrong.
        ModelNotFoundError: if a local model can't be had.
    """
    if spec.kind == "template":
        from mu_llama.musicqa.writers.template import TemplateWriter

        return TemplateWriter(spec.wanted, seed=spec.seed)
    if spec.kind not in WRITERS:
        raise ConfigError(f"writer {spec.kind!r} is unknown; expected one of: {', '.join(WRITERS)}")
    check_installed()
    prompts = load_prompts(spec.prompts)
    if spec.kind == "endpoint":
        from mu_llama.musicqa.writers.endpoint import EndpointWriter

        return EndpointWriter(spec, prompts)
    from mu_llama.musicqa.writers.local import LocalWriter

    return LocalWriter(
        spec.model or LOCAL_MODEL, prompts, spec.wanted, home=home, seed=spec.seed, device=spec.device,
        temperature=spec.temperature, max_tokens=spec.max_tokens,
    )  # fmt: skip
