"""The docs hold: commands and their options, links and anchors, named files, the menu, the model card's scores."""

from __future__ import annotations

import ast
import json
import re
import shlex
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer
import yaml

from benchmarks.mini.card import with_table
from mu_llama.cli.main import typer_app
from scripts.site_hooks import CLI_PAGE, COMMANDS_MARK, command_reference, expanded_menu, without_outside_links

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
PAGES = sorted(DOCS.rglob("*.md"))
TEXTS = [*PAGES, ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted(ROOT.glob("recipes/*/README.md"))]
FENCE = re.compile(r"^( *)```(\w*)\n(.*?)^\1```", flags=re.DOTALL | re.MULTILINE)
CODE_SPAN = re.compile(r"`([^`\n]+)`")
LINK = re.compile(r"\]\(([^)\s]+)\)")
HEADING = re.compile(r"^#+ +(.+?) *$", flags=re.MULTILINE)
ENDS_COMMAND = {">", "|", ";", "&&"}
# Folders whose files the docs name; what is made when a program runs (work/, runs/, site/) isn't there.
OWN_FOLDERS = ("benchmarks", "configs", "docs", "examples", "recipes", "scripts", "src", "tests")
PAGES_IN_TESTS = pytest.mark.parametrize("path", TEXTS, ids=lambda path: str(path.relative_to(ROOT)))


def prose(text: str) -> str:
    return CODE_SPAN.sub("", FENCE.sub("", text))


def code_lines(text: str) -> Iterator[str]:
    """Lines of fenced blocks that a shell would read, continued ones joined, and code within sentences."""
    for _, kind, block in FENCE.findall(text):
        if kind in ("", "sh", "bash", "console"):
            yield from block.replace("\\\n", " ").splitlines()
    yield from CODE_SPAN.findall(FENCE.sub("", text))


def command_words(line: str) -> list[str]:
    """Arguments of `mu-llama` in a line; empty where it isn't called."""
    if "mu-llama" not in line:
        return []
    words = shlex.split(line, comments=True)
    places = [number for number, word in enumerate(words) if word == "mu-llama" or word.endswith("/mu-llama")]
    if not places:
        return []
    called = words[places[0] + 1 :]
    end = next((number for number, word in enumerate(called) if word in ENDS_COMMAND), len(called))
    return called[:end]


def check_command(words: list[str]) -> None:
    """Parse arguments as the program would, without running or converting anything."""
    command: Any = typer.main.get_command(typer_app)
    while words and not words[0].startswith("-") and hasattr(command, "commands"):
        assert words[0] in command.commands, f"there is no command {words[0]!r}"
        command, words = command.commands[words[0]], words[1:]
    if words == ["..."]:  # any arguments
        return
    context = command.context_class(command, info_name="mu-llama")
    _, rest, _ = command.make_parser(context).parse_args(list(words))
    assert not rest, f"more arguments than the command takes: {rest}"


COMMANDS = [
    pytest.param(words, id=f"{path.relative_to(ROOT)}: {' '.join(words)}")
    for path in TEXTS
    for line in code_lines(path.read_text(encoding="utf-8"))
    if (words := command_words(line)) and not words[0].isupper()  # COMMAND stands for any
]


@pytest.mark.parametrize("words", COMMANDS)
def test_commands_parse(words: list[str]) -> None:
    check_command(words)


def test_commands_were_found_in_blocks_and_sentences() -> None:
    assert len(COMMANDS) > 40
    assert command_words("A=1 mu-llama train --config x.yaml --set a='[1]' > log # why") == [
        "train", "--config", "x.yaml", "--set", "a=[1]",
    ]  # fmt: skip
    assert command_words(".venv/bin/mu-llama ask a.mp3") == ["ask", "a.mp3"]
    assert command_words("pip install 'mu-llama[facts]'") == []


@pytest.mark.parametrize(
    "words",
    [["ask", "a.ogg", "--questions", "x"], ["listen", "a.ogg"], ["ask", "a.ogg", "-q"], ["info", "a.ogg"],
     ["musicqa", "built", "--out", "x"]],
)  # fmt: skip
def test_commands_that_are_wrong_are_found(words: list[str]) -> None:
    with pytest.raises(Exception, match=r"(?i)no such|no command|requires an argument|more arguments"):
        check_command(words)


@PAGES_IN_TESTS
def test_named_files_modules_and_targets_exist(path: Path) -> None:
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    for line in code_lines(path.read_text(encoding="utf-8")):
        for word in re.split(r"[\s'\"=()\[\]{},]+", line):
            first, slash, rest = word.partition("/")
            if slash and first in OWN_FOLDERS and re.fullmatch(r"[\w./-]+", rest):
                assert (ROOT / word).exists(), word
        for module in re.findall(r"python -m ((?:benchmarks|mu_llama|recipes)[\w.]*)", line):
            base = (ROOT / "src" if module.startswith("mu_llama") else ROOT) / module.replace(".", "/")
            assert base.with_suffix(".py").is_file() or (base / "__main__.py").is_file(), module
        made = re.match(r"make (?!\.\.\.)(.+)", line)
        for target in [word for word in shlex.split(made[1], comments=True) if "=" not in word] if made else []:
            assert target == "..." or re.search(rf"^{re.escape(target)}:", makefile, flags=re.MULTILINE), target


def anchors(text: str) -> dict[str, set[str]]:
    """Anchors of a page's headings, as the site makes them and as a repository's viewer does."""
    made: dict[str, set[str]] = {"site": set(), "viewer": set()}
    before: Counter[str] = Counter()
    for heading in HEADING.findall(FENCE.sub("", text)):
        plain = re.sub(r"[^\w\s-]", "", heading).strip().lower()
        for kind, anchor, joint in (
            ("site", re.sub(r"[-\s]+", "-", plain), "_"), ("viewer", re.sub(r"\s", "-", plain), "-"),
        ):  # fmt: skip
            number = before[f"{kind} {anchor}"]
            before[f"{kind} {anchor}"] += 1
            made[kind].add(f"{anchor}{joint}{number}" if number else anchor)
    return made


def broken_links(path: Path) -> Iterator[str]:
    text = prose(path.read_text(encoding="utf-8"))
    targets = [*LINK.findall(text), *re.findall(r"(?:src|href)=\"([^\"]+)\"", text)]
    for target in targets:
        if re.match(r"[a-z]+:", target):
            continue
        name, _, anchor = target.partition("#")
        other = (path.parent / name).resolve() if name else path
        if not other.exists():
            yield f"{target}: there is no such file"
        elif anchor and not all(anchor in made for made in anchors(other.read_text(encoding="utf-8")).values()):
            yield f"{target}: there is no such heading"


@PAGES_IN_TESTS
def test_links_lead_to_files_and_headings(path: Path) -> None:
    assert list(broken_links(path)) == []


def test_broken_links_are_found(tmp_path: Path) -> None:
    (tmp_path / "other.md").write_text("# A title\n\n```\n# no heading\n```\n\n## It's a part\n\n## Part - two\n")
    page = tmp_path / "page.md"
    page.write_text(
        "[a](other.md#its-a-part) [b](gone.md) [c](other.md#no-heading) [d](https://x.org/y) `[e](f)`"
        ' [g](other.md#part-two) <img src="picture.png">'
    )
    assert [line.split(":")[0] for line in broken_links(page)] == [
        "gone.md", "other.md#no-heading", "other.md#part-two", "picture.png",
    ]  # fmt: skip


def menu_pages() -> list[str]:
    def leaves(entry: Any) -> Iterator[str]:
        if isinstance(entry, str):
            yield entry
        else:
            for below in entry.values() if isinstance(entry, dict) else entry:
                yield from leaves(below)

    menu = yaml.safe_load((ROOT / "mkdocs.yml").read_text(encoding="utf-8"))["nav"]
    return list(leaves(expanded_menu(menu, DOCS)))


def test_the_menu_holds_every_page_once() -> None:
    assert sorted(menu_pages()) == sorted(page.relative_to(DOCS).as_posix() for page in PAGES)


@pytest.mark.parametrize("path", sorted((DOCS / "decisions").glob("0*.md")), ids=lambda path: path.stem)
def test_decisions_are_records_and_listed(path: Path) -> None:
    headings = HEADING.findall(path.read_text(encoding="utf-8"))
    assert headings[1:] == ["Context", "Decision", "Consequence"]
    assert f"[{headings[0]}]({path.name})" in (DOCS / "decisions" / "index.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("path", sorted((DOCS / "guide").glob("*.md")), ids=lambda path: path.stem)
def test_guides_use_the_terms_of_the_field(path: Path) -> None:
    text = re.sub(r"\"[^\"]*\"", "", prose(path.read_text(encoding="utf-8")))
    assert re.findall(r"\b(?:hears?|heard|hearing|ears?|told)\b", text, flags=re.IGNORECASE) == []


def names_of(module: Path) -> set[str]:
    """What a module defines or imports at its top level, under `if TYPE_CHECKING` too."""
    names = set()
    for node in ast.walk(ast.parse(module.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ClassDef | ast.FunctionDef):
            names.add(node.name)
        elif isinstance(node, ast.ImportFrom):
            names |= {alias.asname or alias.name for alias in node.names}
    return names


@pytest.mark.parametrize(
    "name", [name for path in PAGES for name in re.findall(r"^::: (\S+)", path.read_text(), flags=re.MULTILINE)]
)
def test_documented_python_exists(name: str) -> None:
    parts = name.split(".")
    for length in range(len(parts), 0, -1):
        base = ROOT / "src" / Path(*parts[:length])
        module = base / "__init__.py" if base.is_dir() else base.with_suffix(".py")
        if module.is_file():
            assert set(parts[length : length + 1]) <= names_of(module), name
            return
    pytest.fail(f"{name}: there is no such module")


def test_the_command_line_page_describes_every_command_and_option() -> None:
    assert COMMANDS_MARK in (DOCS / CLI_PAGE).read_text(encoding="utf-8")
    written = command_reference()

    def check(command: Any, name: str) -> None:
        for below, own in getattr(command, "commands", {}).items():
            check(own, f"{name} {below}")
        if not hasattr(command, "commands"):
            section = written.split(f"## {name}\n")[1].split("\n## ")[0]
            shown = [parameter for parameter in command.params if not getattr(parameter, "hidden", False)]
            for option in (option for parameter in shown for option in parameter.opts):
                assert re.search(rf"(?:`|, |/ ){re.escape(option)}\b", section, flags=re.IGNORECASE), (name, option)

    check(typer.main.get_command(typer_app), "mu-llama")


def test_help_text_never_becomes_markup() -> None:
    app = typer.Typer()

    @app.command()
    def one(way: str = typer.Option("a", help="<b>x</b> [link](y) | *z* `<code>`", show_default="<i>")) -> None:
        """Say <script>1</script> in *one* line."""

    @app.command()
    def two() -> None:
        """Do nothing."""

    from scripts import site_hooks

    written = "\n".join(site_hooks._described(typer.main.get_command(app), "x"))
    outside_code = CODE_SPAN.sub("", FENCE.sub("", written))
    assert not re.search(r"<[a-z/]", outside_code)
    assert r"\[link\](y) &#124; \*z\* `<code>`" in written


def test_links_out_of_the_docs_become_text_on_the_site() -> None:
    given = "[recipe](../../recipes/mini/README.md) [page](../guide/ask.md#a) [web](https://x.org) ![p](../../p.png)"
    assert without_outside_links(given, "models/mini.md") == (
        "recipe (`recipes/mini/README.md` in the repository) [page](../guide/ask.md#a) [web](https://x.org) "
        "![p](../../p.png)"
    )


def test_the_model_card_is_short_and_its_scores_are_those_of_the_benchmark() -> None:
    card = (DOCS / "models" / "mini.md").read_text(encoding="utf-8")
    result = json.loads((ROOT / "benchmarks" / "results" / "mini.json").read_text(encoding="utf-8"))
    assert len(card.splitlines()) <= 90
    assert with_table(card, result) == card
    with pytest.raises(ValueError, match="no place for scores"):
        with_table("# A card\n", result)
