"""The base class of settings; all problems of a tree of settings as the lines of one ConfigError."""

from __future__ import annotations

import difflib
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeVar, dataclass_transform, get_args

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, ValidationError
from pydantic.fields import FieldInfo
from pydantic_core import ErrorDetails, InitErrorDetails, PydanticCustomError

from mu_llama.errors import ConfigError

_PROBLEM, _CONTRADICTION = "problem", "contradiction"
_MAPPING = "a mapping of names to values"
# By pydantic's type of error, with the values that come with it; anything else is reported in pydantic's words.
_EXPECTED = {
    "bool_type": "true or false",
    "dict_type": _MAPPING,
    "finite_number": "a finite number",
    "float_type": "a finite number",
    "greater_than": "above {gt:g}",
    "greater_than_equal": "at least {ge:g}",
    "int_type": "a whole number",
    "invalid_key": "names that are texts",
    "less_than": "below {lt:g}",
    "less_than_equal": "at most {le:g}",
    "literal_error": "one of {expected}",
    "model_type": _MAPPING,
    "string_too_short": "a text of a length of at least {min_length}",
    "string_type": "a text (in quotes if YAML reads it as something else)",
    "too_long": "a list of at most {max_length}",
    "too_short": "a list of at least {min_length}",
    "tuple_type": "a list",
}


if TYPE_CHECKING:
    from pydantic._internal._model_construction import ModelMetaclass
else:
    ModelMetaclass = type(BaseModel)


@dataclass_transform(kw_only_default=True)
class SettingsType(ModelMetaclass):
    """Makes a call of a settings class check everything, and raise ConfigError like settings read from a file."""

    if not TYPE_CHECKING:  # type checkers see pydantic's own signature, a keyword for each field

        def __call__(self, **values: Any) -> Settings:
            """Make settings, from values by name."""
            return checked(self, values, source=self.__name__)


class Settings(BaseModel, metaclass=SettingsType):
    """Values by name, checked and not to be changed; texts don't become numbers, nor truth values whole numbers.

    Raises:
        ConfigError: with one line for each problem.
    """

    model_config = ConfigDict(
        frozen=True,
        extra="forbid",
        strict=True,
        allow_inf_nan=False,
        use_attribute_docstrings=True,
        revalidate_instances="always",
    )


SettingsT = TypeVar("SettingsT", bound=Settings)


@dataclass(frozen=True)
class Problem:
    """Something wrong with a setting, or with several that are each right."""

    path: str
    """Dotted name of the setting that it is reported under."""
    text: str
    """What came, what was expected, what to do."""
    others: tuple[str, ...] = ()
    """Dotted names of all other settings that it depends on."""

    def __str__(self) -> str:
        return f"{self.path}: {self.text}"


def problem(text: str) -> PydanticCustomError:
    """Give the error for a validator of one setting to raise, with its own text."""
    return PydanticCustomError(_PROBLEM, "{text}", {"text": text})


def refuse(contradictions: Iterable[Problem]) -> None:
    """Raise one pydantic error for all contradictions, if there are any; for the validator of a whole tree."""
    errors = [
        InitErrorDetails(
            type=PydanticCustomError(_CONTRADICTION, "{text}", {"text": conflict.text, "problem": conflict}),
            loc=tuple(conflict.path.split(".")),
            input=None,
        )
        for conflict in contradictions
    ]
    if errors:
        raise ValidationError.from_exception_data("settings", errors)


def checked(settings: type[SettingsT], raw: object, *, source: str, problems: Iterable[Problem] = ()) -> SettingsT:
    """Make settings of plain values.

    Args:
        settings: class of the whole tree.
        raw: nested mappings, lists and scalars, or settings instead of mappings.
        source: where they come from, for the message.
        problems: what is known to be wrong already.

    Raises:
        ConfigError: with one line for each problem: wrong values, and contradictions between the right ones.
    """
    problems = list(problems)
    config, errors = _validate(settings, raw)
    if config is not None and not problems:
        return config
    problems += _problems_of(errors, settings, raw, doubtful={problem.path for problem in problems})
    count = "1 problem" if len(problems) == 1 else f"{len(problems)} problems"
    lines = [str(problem) for problem in sorted(problems, key=lambda problem: problem.path)]
    raise ConfigError("\n".join([f"{source} has {count}:", *lines]))


def unfolded(raw: Any) -> Any:
    """Copy plain values, with settings as mappings and tuples as lists; parts that are the same become separate.

    Raises:
        RecursionError: if something contains itself.
    """
    if isinstance(raw, (Mapping, Settings)):
        return {key: unfolded(value) for key, value in dict(raw).items()}
    return [unfolded(value) for value in raw] if isinstance(raw, (list, tuple)) else raw


def shown(raw: Any) -> str:
    """Write a value for a message, at most 60 characters of it."""
    text = "null" if raw is None else repr(list(raw) if isinstance(raw, tuple) else raw)
    return text if len(text) <= 60 else f"{text[:57]}..."


def one_of(registry: Collection[str], *more: str) -> AfterValidator:
    """Accept only the keys that a registry has at the time of the check, and more names."""

    def check(name: str) -> str:
        if name not in registry and name not in more:
            raise problem(f"is {shown(name)}; expected one of {', '.join([*more, *registry])}")
        return name

    return AfterValidator(check)


def _as_path(value: Any) -> Path:
    if not isinstance(value, (str, Path)) or not str(value):
        raise problem(f"is {shown(value)}; expected a path")
    try:
        return Path(value).expanduser()
    except RuntimeError:
        raise problem(f"is {shown(value)}; expected a path, but its user has no home folder: write it out") from None


def _validate(settings: type[SettingsT], raw: object) -> tuple[SettingsT | None, list[ErrorDetails]]:
    try:
        return settings.model_validate(raw), []
    except ValidationError as error:
        return None, error.errors(include_url=False)


def _problems_of(
    errors: list[ErrorDetails], settings: type[Settings], raw: object, *, doubtful: set[str]
) -> list[Problem]:
    """Say what is wrong with single values, and how the others contradict one another.

    Pydantic looks for contradictions only when every value is right. So wrong ones are left out and the rest is
    validated again; a contradiction that depends on something left out, or otherwise doubtful, doesn't count.
    """
    wrong = [error for error in errors if error["type"] != _CONTRADICTION]
    fields, problems = _fields(settings), []
    for error in (error for error in wrong if error["type"] == "extra_forbidden"):
        meant, text = _nearest(error["loc"], fields)
        problems.append(Problem(_dotted(error["loc"]), text))
        doubtful.add(meant)
    for error in (error for error in wrong if error["type"] != "extra_forbidden"):
        if error["type"] != "missing" or _dotted(error["loc"]) not in doubtful:
            problems.append(Problem(_dotted(error["loc"]) or "(settings)", _text(error, fields)))
    if wrong and isinstance(raw, (Mapping, Settings)):
        rest, left_out = _without(wrong, unfolded(raw))
        doubtful |= left_out
        examples = {name: field.examples[0] for name, field in settings.model_fields.items() if field.examples}
        _, errors = _validate(settings, examples | rest)
    contradictions = (error["ctx"]["problem"] for error in errors if error["type"] == _CONTRADICTION)
    return problems + [
        conflict
        for conflict in contradictions
        if not any(
            f"{path}.".startswith(f"{other}.") for path in (conflict.path, *conflict.others) for other in doubtful
        )
    ]


def _without(errors: Iterable[ErrorDetails], raw: dict[str, Any]) -> tuple[dict[str, Any], set[str]]:
    """Take wrong values out, lists with one as a whole; give the rest, and the dotted names of what was taken out."""
    names = set()
    for error in errors:
        *parents, last = error["loc"][:-1] if error["type"] == "missing" and len(error["loc"]) > 1 else error["loc"]
        path: list[Any] = []
        inside: dict[Any, Any] = raw
        for name in parents:
            if not isinstance(inside.get(name), dict):
                last = name
                break
            path.append(name)
            inside = inside[name]
        for key in [key for key in inside if key == last or not isinstance(key, str)]:
            del inside[key]
        names.add(_dotted([*path, last]))
    return raw, names


def _text(error: ErrorDetails, fields: Mapping[tuple[str, ...], FieldInfo]) -> str:
    kind, context = error["type"], error.get("ctx", {})
    if kind == _PROBLEM:
        return str(context["text"])
    if kind == "missing":
        field = fields.get(_names(error["loc"]))
        example = f", such as {field.examples[0]}" if field and field.examples else ""
        return f"is missing and has no default; give it{example}"
    if kind == "literal_error":
        context = {"expected": context["expected"].replace("'", "").replace(" or ", ", ")}
    expected = f"expected {_EXPECTED[kind].format(**context)}" if kind in _EXPECTED else error["msg"]
    return f"is {shown(error['input'])}; {expected}"


def _nearest(location: tuple[int | str, ...], fields: Mapping[tuple[str, ...], FieldInfo]) -> tuple[str, str]:
    """Give the dotted name that an unknown one seems to mean, and a text that says so."""
    *parents, key = location
    siblings = [names[-1] for names in fields if names[:-1] == _names(parents)]
    by_last = {names[-1]: names for names in reversed(list(fields))}
    if close := difflib.get_close_matches(str(key), siblings, n=1):
        meant = _dotted([*parents, *close])
    elif close := difflib.get_close_matches(str(key), by_last, n=1, cutoff=0.75):
        meant = _dotted(by_last[close[0]])
    else:
        return _dotted(location), f"is unknown; expected one of {', '.join(siblings)}"
    return meant, f"is unknown; did you mean {meant}?"


def _fields(settings: type[Settings], parents: tuple[str, ...] = ()) -> dict[tuple[str, ...], FieldInfo]:
    """Give every field of a tree by its names from the top, without positions in lists."""
    fields: dict[tuple[str, ...], FieldInfo] = {}
    for name, field in settings.model_fields.items():
        fields[*parents, name] = field
        for inner in _sections(field.annotation):
            fields |= _fields(inner, (*parents, name))
    return fields


def _sections(annotation: Any) -> list[type[Settings]]:
    if isinstance(annotation, type) and issubclass(annotation, Settings):
        return [annotation]
    return [section for argument in get_args(annotation) for section in _sections(argument)]


def _names(location: Iterable[int | str]) -> tuple[str, ...]:
    return tuple(name for name in location if isinstance(name, str))


def _dotted(location: Iterable[int | str]) -> str:
    return ".".join(map(str, location))


AnyT = TypeVar("AnyT")
Count = Annotated[int, Field(ge=1)]
Fraction = Annotated[float, Field(gt=0, lt=1)]
FilePath = Annotated[Path, BeforeValidator(_as_path)]
Listed = Annotated[AnyT, BeforeValidator(lambda value: tuple(value) if isinstance(value, list) else value)]
"""A tuple, which YAML and JSON write as a list."""
