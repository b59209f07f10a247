"""How help pages list commands: each with the whole of its first paragraph."""

from __future__ import annotations

import inspect
import textwrap
from typing import Any

from typer.core import TyperGroup

_MARGIN, _LEAST_WIDTH = 2, 20


class WholeTextGroup(TyperGroup):
    """A group of commands whose list cuts no text off."""

    def format_commands(self, ctx: Any, formatter: Any) -> None:
        """Write the list of commands onto a help page."""
        commands = [(name, self.get_command(ctx, name)) for name in self.list_commands(ctx)]
        rows = [(name, _first_paragraph(command.help)) for name, command in commands if command and not command.hidden]
        if not rows:
            return
        indent = max(len(name) for name, _ in rows) + _MARGIN
        with formatter.section("Commands"):
            for name, text in rows:
                # Not broken at hyphens: 'mu-llama[demo]' is there to be copied.
                lines = textwrap.wrap(
                    text, max(formatter.width - indent - _MARGIN, _LEAST_WIDTH), break_on_hyphens=False
                )
                for number, line in enumerate(lines):
                    formatter.write(f"{'':{_MARGIN}}{'' if number else name:{indent}}{line}\n")


def _first_paragraph(text: str | None) -> str:
    return " ".join(inspect.cleandoc(text or "").split("\n\n")[0].split())
