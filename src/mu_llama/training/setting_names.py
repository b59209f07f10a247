"""Errors about a model's files, in the names that a training config has for them."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from types import MappingProxyType

from mu_llama.checkpoints.choose import OPTIONS
from mu_llama.checkpoints.formats.format import Role
from mu_llama.errors import CheckpointError, ConfigError, ModelNotFoundError

SETTINGS: Mapping[Role, str] = MappingProxyType(
    {"model": "model.base", "llama": "model.llama", "encoder": "model.encoder"}
)
"""The setting that names the file of each role."""
_BY_OPTION = {OPTIONS[role]: setting for role, setting in SETTINGS.items()}
# Not inside a path such as models--llama.
_OPTION = re.compile(rf"(?<![\w/.-])(?:{'|'.join(map(re.escape, _BY_OPTION))})(?![\w/.-])")


@contextmanager
def with_setting_names() -> Iterator[None]:
    """Name settings where an error names options of the command line, which training doesn't have.

    Raises:
        CheckpointError, ConfigError, ModelNotFoundError: as they came, in other words.
    """
    try:
        yield
    except (CheckpointError, ConfigError, ModelNotFoundError) as error:
        text = _OPTION.sub(lambda match: _BY_OPTION[match[0]], str(error))
        if text == str(error):
            raise
        raise type(error)(text) from error
