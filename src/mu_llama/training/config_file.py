"""Training settings from YAML and the command line, and back to plain values for run records."""

from __future__ import annotations

import re
from collections.abc import Hashable, Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from mu_llama.errors import ConfigError

try:
    from mu_llama.training.config import TrainConfig
    from mu_llama.training.config_types import Problem, checked, shown, unfolded
except ModuleNotFoundError as error:
    raise ConfigError(f"training settings need {error.name}; run: pip install 'mu-llama[train]'") from error


def load_config(path: str | Path, overrides: Sequence[str] = ()) -> TrainConfig:
    """Read a YAML file, put overrides over it and check all of it.

    Args:
        path: YAML file of a mapping; paths in it are relative to the working directory, not to the file.
        overrides: `key=value` with dotted keys, e.g. `data.max_tokens=128`, `data.train.0.path=my.jsonl`,
            `run.trackers=[wandb]`; values are read as YAML, `null` takes a value away.

    Raises:
        ConfigError: if the file can't be read, or with one line for each problem of file and overrides together:
            unknown keys with the nearest right one, wrong types, values out of range, contradictions.
    """
    source = str(path)
    try:
        text = Path(path).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or error
        raise ConfigError(f"{source}: can't be read ({reason}); expected a YAML file of training settings") from error
    try:
        raw = _read_yaml(text)
    except _NotYamlError as error:
        raise ConfigError(f"{source}: is not YAML ({error}); correct it there") from error
    return parse_config(raw, overrides, source=source)


def parse_config(raw: object, overrides: Sequence[str] = (), *, source: str = "training settings") -> TrainConfig:
    """Check plain values, such as those of `config_to_dict`, and make the settings of them.

    Args:
        raw: nested mappings, lists and scalars; not changed.
        overrides: as for `load_config`.
        source: where they come from, for messages.

    Raises:
        ConfigError: with one line for each problem.
    """
    problems: list[Problem] = []
    if isinstance(raw, Mapping):
        try:
            raw = unfolded(raw)
        except RecursionError:
            raise ConfigError(f"{source}: holds an anchor that contains itself; write the value out") from None
        problems = [problem for override in overrides for problem in _apply(raw, override)]
    return checked(TrainConfig, raw, source=source, problems=problems)


def config_to_dict(config: TrainConfig) -> dict[str, Any]:
    """Give all settings, defaults too, as plain values for JSON or YAML; `parse_config` reads them back."""
    return config.model_dump(mode="json")


class _Loader(yaml.SafeLoader):
    """Safe YAML in which `1e-4` is a number, and a key given twice an error."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        seen = set()
        for key in (key for key, _ in node.value if isinstance(key, yaml.ScalarNode)):
            if key.value in seen:
                raise yaml.constructor.ConstructorError(
                    None, None, f"the key {key.value!r} is given twice", key.start_mark
                )
            seen.add(key.value)
        return super().construct_mapping(node, deep=deep)


# YAML 1.1, which PyYAML reads, wants a point and a sign: 1.0e-4.
_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float", re.compile(r"[-+]?[0-9][0-9_]*(\.[0-9_]*)?[eE][-+]?[0-9]+$"), list("-+0123456789")
)


class _NotYamlError(ValueError):
    """Why a text can't be read, in one line."""


def _read_yaml(text: str) -> Any:
    try:
        return yaml.load(text, _Loader)
    except RecursionError:
        raise _NotYamlError("too many brackets inside one another") from None
    except (yaml.YAMLError, ValueError) as error:  # PyYAML raises plain ValueErrors for a day 32 and the like
        raise _NotYamlError(" ".join(str(error).split())) from error


def _apply(raw: Any, override: str) -> list[Problem]:
    """Set one `key=value` inside nested mappings and lists, and give what is wrong with it."""
    key, equals, text = override.partition("=")
    key = key.strip()
    if not equals or not all(key.split(".")):
        return [Problem(override, "is no override; expected key=value, such as data.max_tokens=128")]
    try:
        value = _read_yaml(text)
    except _NotYamlError as error:
        return [Problem(key, f"the value {shown(text)} is not YAML ({error}); put it in quotes, or correct it")]
    *parents, last = key.split(".")
    inside = raw
    for name in parents:
        if isinstance(inside, dict) and inside.get(name) is None:
            inside[name] = {}
        entry = _entry(inside, name)
        if entry is None:
            return [_no_place(key, name)]
        inside = inside[entry]
    entry = last if isinstance(inside, dict) else _entry(inside, last)
    if entry is None:
        return [_no_place(key, last)]
    inside[entry] = value
    return []


def _entry(inside: Any, name: str) -> str | int | None:
    """Give the key or index by which a name is found, or None."""
    if isinstance(inside, dict):
        return name
    if isinstance(inside, list) and name.isdecimal() and int(name) < len(inside):
        return int(name)
    return None


def _no_place(key: str, name: str) -> Problem:
    return Problem(key, f"there is no place for {name!r}; give the whole value above it, such as [..] or {{..}}")
