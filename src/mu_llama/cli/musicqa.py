"""`mu-llama musicqa`: question-answer pairs and captions from tags and captions."""

from __future__ import annotations

import typer

from mu_llama.cli.help import WholeTextGroup
from mu_llama.cli.musicqa_build import build
from mu_llama.cli.musicqa_export import export, import_
from mu_llama.cli.musicqa_scan import scan

musicqa_app = typer.Typer(
    help="Make question-answer and caption data about music from tags and captions.",
    cls=WholeTextGroup,
    no_args_is_help=True,
)
musicqa_app.command()(scan)
musicqa_app.command()(build)
musicqa_app.command()(export)
musicqa_app.command("import")(import_)
