"""What `mkdocs build` adds: the command line, links that leave docs/ as plain text, whole folders in the menu.

mkdocs calls the `on_*` functions (see `hooks` in mkdocs.yml). Importing the command line imports no torch.
"""

from __future__ import annotations

import html
import posixpath
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

CLI_PAGE = "reference/cli.md"
COMMANDS_MARK = "<!-- commands: written here by scripts/site_hooks.py when the site is built -->"
_LINK = re.compile(r"(?<!!)\[([^\]]+)\]\((?![a-z]+:)([^)\s#]+)(#[^)\s]*)?\)")
_NOTES = re.compile(r"^(?P<text>.*?)(?:(?:^|  )\[(?P<notes>.+)\])?$", re.DOTALL)


def on_config(config: Any) -> Any:
    """Expand entries of the menu that name a folder, `folder/`, to its pages; mkdocs' hook."""
    config["nav"] = expanded_menu(config["nav"], Path(config["docs_dir"]))
    return config


def expanded_menu(entry: Any, docs: Path) -> Any:
    """Replace each text that ends in a slash by the pages of that folder, index first, the others by name."""
    if isinstance(entry, list):
        return [expanded_menu(own, docs) for own in entry]
    if isinstance(entry, dict):
        return {title: expanded_menu(below, docs) for title, below in entry.items()}
    if not entry.endswith("/"):
        return entry
    pages = sorted((docs / entry).glob("*.md"), key=lambda path: (path.name != "index.md", path.name))
    return [path.relative_to(docs).as_posix() for path in pages]


def on_page_markdown(markdown: str, *, page: Any, **_: Any) -> str:
    """Complete a page before it is rendered; mkdocs' hook."""
    source = page.file.src_uri
    if source == CLI_PAGE:
        if COMMANDS_MARK not in markdown:
            raise ValueError(f"docs/{CLI_PAGE}: the line {COMMANDS_MARK!r} is missing; put it where commands belong")
        markdown = markdown.replace(COMMANDS_MARK, command_reference())
    return without_outside_links(markdown, source)


def without_outside_links(markdown: str, source: str) -> str:
    """Replace links to files of the repository outside docs/, which the site doesn't hold, by text and path.

    Args:
        markdown: text of the page.
        source: path of the page in docs/.

    Example:
        >>> without_outside_links("[recipe](../../recipes/mini/README.md)", "models/mini.md")
        'recipe (`recipes/mini/README.md` in the repository)'
    """

    def replaced(match: re.Match[str]) -> str:
        text, target = match[1], match[2]
        path = posixpath.normpath(posixpath.join("docs", posixpath.dirname(source), target))
        if path.startswith("docs/"):
            return match[0]
        return text if text.strip("`") == path else f"{text} (`{path}` in the repository)"

    return _LINK.sub(replaced, markdown)


def command_reference() -> str:
    """Describe every command of `mu-llama`, its arguments and options, as Markdown."""
    import typer

    from mu_llama.cli.main import typer_app

    return "\n".join(_described(typer.main.get_command(typer_app), "mu-llama"))


def _described(command: Any, name: str) -> Iterator[str]:
    """Yield lines about a command and those below it."""
    context = command.context_class(command, info_name=name)
    below = getattr(command, "commands", {})
    if not below:
        yield from (f"## {name}", "", _escaped(command.help or ""), "")
        yield from ("```text", " ".join((name, *command.collect_usage_pieces(context))), "```", "")
        rows = [row for row in (_row(parameter, context) for parameter in command.params) if row]
        yield from ("| argument or option | meaning | default, range |", "|---|---|---|", *rows, "")
    for own in below:
        yield from _described(below[own], f"{name} {own}")


def _row(parameter: Any, context: Any) -> str | None:
    """Describe an argument or option as a row of a table; None for hidden ones."""
    record = parameter.get_help_record(context)
    if record is None:
        return None
    described = _NOTES.match(record[1])
    assert described is not None
    cells = (f"`{record[0]}`", _escaped(described["text"]), _escaped(described["notes"] or ""))
    return "| " + " | ".join(" ".join(cell.split()).replace("|", "&#124;") for cell in cells) + " |"


def _escaped(text: str) -> str:
    """Keep help text from being read as markup, but for its code between backticks."""
    parts = text.split("`")
    if len(parts) % 2 == 0:
        parts = [text.replace("`", "&#96;")]
    return "`".join(
        part if index % 2 else re.sub(r"([\\*\[\]])", r"\\\1", html.escape(part, quote=False))
        for index, part in enumerate(parts)
    )
