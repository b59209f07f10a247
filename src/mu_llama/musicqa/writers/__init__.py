"""Writers: they turn labels into text. `make_writer` imports the one that is wanted."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from mu_llama.errors import ConfigError

if TYPE_CHECKING:
    from mu_llama.musicqa.writers.protocol import Writer, WriterSpec


def make_writer(spec: WriterSpec, *, home: Path) -> Writer:
    """Make a writer.

    Args:
        spec: which.
        home: cache folder.

    Raises:
        ConfigError: if something about it is missing or wrong.
        ModelNotFoundError: if a local model can't be had.
    """
    from mu_llama.musicqa.writers.protocol import LOCAL_MODEL, WRITERS, load_prompts

    if spec.kind == "template":
        from mu_llama.musicqa.writers.template import TemplateWriter

        return TemplateWriter(spec.reply_spec, seed=spec.seed)
    if spec.kind not in WRITERS:
        raise ConfigError(f"writer {spec.kind!r} is unknown; expected one of: {', '.join(WRITERS)}")
    from mu_llama.musicqa.language import check_installed

    check_installed()
    prompts = load_prompts(spec.prompts)
    if spec.kind == "endpoint":
        from mu_llama.musicqa.writers.endpoint import EndpointWriter

        return EndpointWriter(spec, prompts)
    from mu_llama.musicqa.writers.local import LocalWriter

    return LocalWriter(
        spec.model or LOCAL_MODEL, prompts, spec.reply_spec, home=home, seed=spec.seed, device=spec.device,
        temperature=spec.temperature, max_tokens=spec.max_tokens,
    )  # fmt: skip
