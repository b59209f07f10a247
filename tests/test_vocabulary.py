"""Identifiers use the field's words, and a public name is defined in one module (docs/decisions/layout.md)."""

from __future__ import annotations

import ast
import re
from collections import defaultdict
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
FOLDERS = ("src/mu_llama", "recipes", "benchmarks")
BANNED: Mapping[str, str] = {
    "heard": "encoded", "hear": "encode", "hears": "encodes", "hearing": "extractor", "unheard": "unseen",
    "ear": "encoder", "ears": "encoder", "told": "reported", "tell": "report", "tells": "reports",
    "feel": "energy_valence", "certainty": "calibration",
    "desk": "DemoService", "visit": "Session", "visitor": "session", "held": "handle, pending, validation ...",
    "heap": "malloc", "survey": "scan", "placing": "device_map", "assembling": "load", "provision": "embedded",
    "watching": "callbacks", "rough": "augmented", "roughened": "augmented",
    "quantise": "quantize", "quantised": "quantized", "quantising": "quantizing",
    "deviation": "std", "deviations": "stds",
}  # fmt: skip
"""Part of a name, split at underscores and capitals: what to write instead."""
FIRST: Mapping[str, str] = {"most": "max"}
"""First part of a name: what to write instead."""
WHOLE: Mapping[str, str] = {
    "Say": "Phrasebook", "Knowledge": "TrackLabels", "Balance": "AnswerBalancer", "Wanted": "ReplySpec",
    "Found": "Detection", "StoredTensor": "LazyTensor", "ModelParts": "ModelSpec", "Measured": "MeasuredFact",
    "own_threads": "parallel", "one_thread": "compute_thread", "answer_text": "stop_strings",
    "warm_up": "pretrain_adapter",
}  # fmt: skip
"""A whole name, of a module too: what to write instead."""
ALLOWED: Mapping[str, str] = {
    "Answer.heard": "public attribute; JSON has heard_s",
    "EncodedTrack.heard": "the old name of spans, with a warning",
    "TrackEncoder.hearing": "the old name of extractor, with a warning",
    "ByteReader.tell": "io.IOBase calls it so",
    "_Reader.tell": "io.IOBase calls it so",
    "_most_common": "collections.Counter calls it so",
}
"""A name, of a class member with its class in front: why it stays."""
PHRASES: Mapping[str, str] = {"held_out": "data that a model isn't trained on is called so"}
"""Words that are right together: why."""
NOT_YET: frozenset[str] = frozenset()
"""Names that break the rule today. One that was mended must leave this set, and none may join it."""
CEILINGS: Mapping[str, int] = {"found": 1, "kept": 0, "own": 1, "there": 0}
"""How often a variable may have a name that doesn't say what it holds; the numbers only go down."""


def files() -> list[Path]:
    return sorted(path for folder in FOLDERS for path in (ROOT / folder).rglob("*.py"))


def words(name: str) -> list[str]:
    """The words of an identifier in lower case, split at underscores and capitals."""
    return [word.lower() for word in re.findall(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+", name)]


class Identifiers(ast.NodeVisitor):
    """Collects the names that a module defines: functions, classes, arguments, variables and attributes."""

    def __init__(self) -> None:
        self.names: list[str] = []
        self._classes: list[str] = []
        self._is_class_body = False

    def _add(self, name: str, *, is_member: bool = False) -> None:
        self.names.append(f"{self._classes[-1]}.{name}" if is_member and self._classes else name)

    def visit_ClassDef(self, node: ast.ClassDef) -> None:
        self._add(node.name)
        self._classes.append(node.name)
        outside, self._is_class_body = self._is_class_body, True
        self.generic_visit(node)
        self._is_class_body = outside
        self._classes.pop()

    def _function(self, node: ast.FunctionDef | ast.AsyncFunctionDef) -> None:
        self._add(node.name, is_member=self._is_class_body)
        outside, self._is_class_body = self._is_class_body, False
        self.generic_visit(node)
        self._is_class_body = outside

    visit_FunctionDef = visit_AsyncFunctionDef = _function

    def visit_arg(self, node: ast.arg) -> None:
        self._add(node.arg)
        self.generic_visit(node)

    def visit_alias(self, node: ast.alias) -> None:
        if node.asname:
            self._add(node.asname)

    def visit_ExceptHandler(self, node: ast.ExceptHandler) -> None:
        if node.name:
            self._add(node.name)
        self.generic_visit(node)

    def visit_MatchAs(self, node: ast.MatchAs) -> None:
        if node.name:
            self._add(node.name)
        self.generic_visit(node)

    def visit_Name(self, node: ast.Name) -> None:
        if isinstance(node.ctx, ast.Store):
            self._add(node.id, is_member=self._is_class_body)

    def visit_Attribute(self, node: ast.Attribute) -> None:
        if isinstance(node.ctx, ast.Store):
            self._add(node.attr, is_member=isinstance(node.value, ast.Name) and node.value.id == "self")
        self.generic_visit(node)


def identifiers(text: str) -> list[str]:
    """Names that a module's text defines; members of a class with the class in front."""
    visitor = Identifiers()
    visitor.visit(ast.parse(text))
    return visitor.names


def better_name(name: str) -> str | None:
    """What to write instead of a name, if it uses a banned word."""
    if name in ALLOWED:
        return None
    last = name.rpartition(".")[2]
    parts = words(re.sub("|".join(PHRASES), "", last, flags=re.IGNORECASE))
    better = [WHOLE.get(last), *(FIRST.get(part) for part in parts[:1]), *(BANNED.get(part) for part in parts)]
    return next(filter(None, better), None)


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("def hears(): pass", "hears"),
        ("class HeardTrack: pass", "HeardTrack"),
        ("def f(most_turns): pass", "most_turns"),
        ("def f(*, quantise=None): pass", "quantise"),
        ("feature_deviation: float = 0.0", "feature_deviation"),
        ("class A:\n    heard: int", "A.heard"),
        ("class A:\n    def f(self):\n        self._told = 1", "A._told"),
        ("for ears in ():\n    pass", "ears"),
        ("with open('a') as held:\n    pass", "held"),
        ("import numpy as heap", "heap"),
        ("class Say: pass", "Say"),
    ],
)
def test_banned_words_are_seen(text: str, name: str) -> None:
    assert [found for found in identifiers(text) if better_name(found)] == [name]


@pytest.mark.parametrize(
    "text",
    [
        "class Answer:\n    heard: int",
        "HELD_OUT = held_out_rows = 1",
        "almost_done = earlier = learned = 1",
        "f(heard=1)",
        "print('hear', x.heard)",
    ],
)
def test_other_words_are_not(text: str) -> None:
    assert [name for name in identifiers(text) if better_name(name)] == []


def uses() -> Iterator[tuple[str, str]]:
    """Every name that is defined, with the file."""
    for path in files():
        for name in identifiers(path.read_text(encoding="utf-8")):
            yield name, path.relative_to(ROOT).as_posix()
        yield path.stem, path.relative_to(ROOT).as_posix()


def test_names_use_the_words_of_the_field() -> None:
    wrong = defaultdict[str, set[str]](set)
    for name, path in uses():
        if better_name(name):
            wrong[name].add(path)
    new = [
        f"{name} ({', '.join(sorted(paths))}): say {better_name(name)}"
        for name, paths in sorted(wrong.items())
        if name not in NOT_YET
    ]
    assert not new, "\n".join(new)
    assert sorted(NOT_YET - wrong.keys()) == [], "these are mended: take them out of NOT_YET"


def test_variables_say_what_they_hold() -> None:
    counts = dict.fromkeys(CEILINGS, 0)
    for name, _ in uses():
        if name in counts:
            counts[name] += 1
    assert {name: count for name, count in counts.items() if count > CEILINGS[name]} == {}


SAME_NAME_NOT_YET: frozenset[str] = frozenset()
"""Public names that two modules define today. One that was mended must leave this set, and none may join it."""
SAME_NAME_ALLOWED: Mapping[str, str] = {"tracks": "each file of musicqa/sources/ defines it for the registry"}


def public_definitions(text: str) -> set[str]:
    """Classes and functions that a module defines at its top level for others."""
    kinds = (ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
    return {node.name for node in ast.parse(text).body if isinstance(node, kinds) and not node.name.startswith("_")}


def test_a_public_name_is_defined_in_one_module() -> None:
    modules = defaultdict[str, list[str]](list)
    for path in sorted((ROOT / "src/mu_llama").rglob("*.py")):
        if path.parent.name == "cli":  # a command's function has the command's name
            continue
        for name in public_definitions(path.read_text(encoding="utf-8")):
            modules[name].append(path.relative_to(ROOT / "src").as_posix())
    twice = {name: where for name, where in modules.items() if len(where) > 1 and name not in SAME_NAME_ALLOWED}
    assert {name: where for name, where in twice.items() if name not in SAME_NAME_NOT_YET} == {}
    assert sorted(SAME_NAME_NOT_YET - twice.keys()) == [], "these are mended: take them out of SAME_NAME_NOT_YET"
