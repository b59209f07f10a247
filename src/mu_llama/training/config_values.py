"""Plain values (as YAML gives them) to the fields of dataclasses, noting every problem instead of stopping."""

from __future__ import annotations

import difflib
import math
import types
from collections.abc import Iterator, Mapping
from dataclasses import MISSING, dataclass, fields, is_dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, Union, get_args, get_origin, get_type_hints

from mu_llama.training.rule_book import Problem


@dataclass(frozen=True)
class Range:
    """Which numbers a field takes, or how long its text is."""

    low: float = -math.inf
    """Smallest value."""
    high: float = math.inf
    """Largest value."""
    above: bool = False
    """The smallest value itself is excluded."""
    below: bool = False
    """The largest value itself is excluded."""

    def holds(self, value: float) -> bool:
        """Tell whether a value is inside."""
        low = value > self.low if self.above else value >= self.low
        return low and (value < self.high if self.below else value <= self.high)

    def __str__(self) -> str:
        low = f"{'above' if self.above else 'at least'} {self.low:g}" if self.low > -math.inf else ""
        high = f"{'below' if self.below else 'at most'} {self.high:g}" if self.high < math.inf else ""
        return " and ".join(filter(None, (low, high)))


Count = Annotated[int, Range(1)]
Rate = Annotated[float, Range(0, above=True)]
NotNegative = Annotated[float, Range(0)]
Fraction = Annotated[float, Range(0, 1, above=True, below=True)]


class RecordReader:
    """Reads the fields of a tree of dataclasses from nested mappings.

    Args:
        root: the dataclass at the top; its type hints may use Annotated with `Range`, Literal, tuples, optional
            values, paths, plain mappings and other dataclasses.
    """

    def __init__(self, root: type) -> None:
        self._root = root
        self._all_names = list(_names(root))
        self.problems: list[Problem] = []
        """What was wrong so far."""
        self.doubtful: set[str] = set()
        """Dotted names that have a problem, or that a misspelt one seems to mean."""

    def read(self, raw: object) -> dict[str, Any]:
        """Give the root's fields; those with problems are left out, or hold what was right about them."""
        if not isinstance(raw, Mapping):
            self._expected("(settings)", raw, "a mapping of names to values")
            return {}
        return self._fields(self._root, raw, prefix="")

    def _fields(self, record: type, raw: Mapping[Any, Any], *, prefix: str) -> dict[str, Any]:
        hints = get_type_hints(record, include_extras=True)
        for key in raw:
            if key not in hints:
                self._note(f"{prefix}{key}", f"is unknown; {self._nearest(str(key), list(hints), prefix)}")
        values = {}
        for field in fields(record):
            path = prefix + field.name
            if field.name in raw:
                value = self._value(hints[field.name], raw[field.name], path)
            else:
                value = field.default
                if value is MISSING and path not in self.doubtful:
                    self._note(path, "is missing; it has no default")
            if value is not MISSING:
                values[field.name] = value
        return values

    def _nearest(self, key: str, siblings: list[str], prefix: str) -> str:
        by_last = {name.rpartition(".")[2]: name for name in reversed(self._all_names)}
        if close := difflib.get_close_matches(key, siblings, n=1):
            meant = prefix + close[0]
        elif close := difflib.get_close_matches(key, by_last, n=1, cutoff=0.75):
            meant = by_last[close[0]]
        else:
            return f"expected one of {', '.join(siblings)}"
        self.doubtful.add(meant)
        return f"did you mean {meant}?"

    def _value(self, hint: Any, raw: Any, path: str) -> Any:
        """Convert one value; MISSING if it can't be."""
        origin, arguments = get_origin(hint), get_args(hint)
        if origin is Annotated:
            return self._in_range(arguments[1], self._value(arguments[0], raw, path), path)
        if origin in (Union, types.UnionType):
            (inner,) = (argument for argument in arguments if argument is not types.NoneType)
            return None if raw is None else self._value(inner, raw, path)
        if origin is Literal:
            if raw in arguments and isinstance(raw, str):
                return raw
            return self._expected(path, raw, "one of " + ", ".join(arguments))
        if origin is tuple:
            return self._tuple(arguments, raw, path)
        if isinstance(origin or hint, type) and issubclass(origin or hint, Mapping):
            named = isinstance(raw, Mapping) and all(isinstance(key, str) for key in raw)
            return dict(raw) if named else self._expected(path, raw, "a mapping of names to values")
        if is_dataclass(hint):
            return self._record(hint, raw, path)
        return self._scalar(hint, raw, path)

    def _tuple(self, arguments: tuple[Any, ...], raw: Any, path: str) -> Any:
        if not isinstance(raw, (list, tuple)):
            return self._expected(path, raw, "a list")
        if arguments[-1] is Ellipsis:
            arguments = (arguments[0],) * len(raw)
        if len(raw) != len(arguments):
            return self._expected(path, raw, f"a list of {len(arguments)}")
        values = [
            self._value(hint, item, f"{path}.{index}")
            for index, (hint, item) in enumerate(zip(arguments, raw, strict=True))
        ]
        return MISSING if MISSING in values else tuple(values)

    def _record(self, hint: Any, raw: Any, path: str) -> Any:
        if not isinstance(raw, Mapping):
            return self._expected(path, raw, "a mapping of names to values")
        values = self._fields(hint, raw, prefix=f"{path}.")
        required = {field.name for field in fields(hint) if field.default is MISSING}
        return hint(**values) if required <= values.keys() else MISSING

    def _scalar(self, hint: Any, raw: Any, path: str) -> Any:
        is_number = isinstance(raw, (int, float)) and not isinstance(raw, bool)
        if hint is float and is_number and math.isfinite(raw):
            return float(raw)
        if hint is Path and isinstance(raw, (str, Path)) and str(raw):
            return Path(raw).expanduser()
        if hint in (bool, str) and isinstance(raw, hint):
            return raw
        if hint is int and is_number and isinstance(raw, int):
            return raw
        expected = {bool: "true or false", int: "a whole number", float: "a finite number", Path: "a path"}
        return self._expected(path, raw, expected.get(hint, "a text (in quotes if YAML reads it as something else)"))

    def _in_range(self, allowed: Range, value: Any, path: str) -> Any:
        if value is MISSING or allowed.holds(len(value) if isinstance(value, str) else value):
            return value
        what = "a text of a length of " if isinstance(value, str) else ""
        return self._expected(path, value, f"{what}{allowed}")

    def _expected(self, path: str, raw: Any, expected: str) -> Any:
        self._note(path, f"is {_shown(raw)}; expected {expected}")
        return MISSING

    def _note(self, path: str, text: str) -> None:
        self.problems.append(Problem(path, text))
        self.doubtful.add(path)


def to_plain(value: Any) -> Any:
    """Turn dataclasses, tuples and paths into what JSON and YAML can hold.

    Example:
        >>> to_plain(Range(0, 1))
        {'low': 0, 'high': 1, 'above': False, 'below': False}
    """
    if is_dataclass(value) and not isinstance(value, type):
        return {field.name: to_plain(getattr(value, field.name)) for field in fields(value)}
    if isinstance(value, Mapping):
        return {key: to_plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [to_plain(item) for item in value]
    return str(value) if isinstance(value, Path) else value


def _names(record: type, prefix: str = "") -> Iterator[str]:
    """Give the dotted names of all settings that have one."""
    hints = get_type_hints(record)
    for field in fields(record):
        yield prefix + field.name
        for inner in (hints[field.name], *get_args(hints[field.name])):
            if is_dataclass(inner) and get_origin(hints[field.name]) is not tuple:
                assert isinstance(inner, type)
                yield from _names(inner, f"{prefix}{field.name}.")


def _shown(raw: Any) -> str:
    text = "null" if raw is None else repr(raw)
    return text if len(text) <= 60 else f"{text[:57]}..."
