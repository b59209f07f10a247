"""The tiny model of the workflow tests, behind a desk."""

from __future__ import annotations

from tests.workflow.conftest import home, tiny, tracks

__all__ = ["home", "tiny", "tracks"]
