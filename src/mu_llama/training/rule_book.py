"""Rules over several settings at once, each saying what it looks at."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from typing import Any

Check = Callable[..., str | None]
"""Called with the values of some settings; gives what is wrong and what to do, or None."""


@dataclass(frozen=True)
class Problem:
    """Something wrong with one setting."""

    path: str
    """Its dotted name."""
    text: str
    """What came, what was expected, what to do."""

    def __str__(self) -> str:
        return f"{self.path}: {self.text}"


class RuleBook:
    """Rules in the order in which they are reported."""

    def __init__(self) -> None:
        self._rules: list[tuple[tuple[str, ...], Check]] = []

    def rule(self, *paths: str) -> Callable[[Check], Check]:
        """Add a check, as a decorator.

        Args:
            paths: dotted names of the settings it is called with; what it finds is reported under the first.
        """

        def add(check: Check) -> Check:
            self._rules.append((paths, check))
            return check

        return add

    def broken(self, values: Mapping[str, Any], *, doubtful: Collection[str]) -> list[Problem]:
        """Check every rule whose settings are themselves right.

        Args:
            values: the settings at the top, each a scalar or an object with those below as attributes; what is
                inside of None is None.
            doubtful: dotted names that have a problem already; rules that look at one, or at something inside
                or around it, are passed over.
        """
        problems = []
        for paths, check in self._rules:
            if any(_overlap(path, other) for path in paths for other in doubtful):
                continue
            message = check(*(_look_up(values, path) for path in paths))
            if message is not None:
                problems.append(Problem(paths[0], message))
        return problems


def _overlap(path: str, other: str) -> bool:
    return f"{path}.".startswith(f"{other}.") or f"{other}.".startswith(f"{path}.")


def _look_up(values: Mapping[str, Any], path: str) -> Any:
    first, *rest = path.split(".")
    value = values[first]
    for name in rest:
        value = None if value is None else getattr(value, name)
    return value
