"""The tiny model of the workflow tests, for the demo."""

from __future__ import annotations

from tests.workflow.conftest import home, tiny, tracks

__all__ = ["home", "tiny", "tracks"]
