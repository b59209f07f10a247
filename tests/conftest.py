"""Options of the whole suite; pytest reads them only from a conftest above every test that is asked for."""

from pathlib import Path

import pytest

DEFAULT_GOLDEN = Path(__file__).parent / "golden" / "set_a"


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--golden",
        metavar="PATH",
        type=Path,
        default=DEFAULT_GOLDEN,
        help="folder of golden reference data that tests/golden compares with (default: tests/golden/set_a)",
    )
    parser.addoption(
        "--device",
        choices=("cpu", "cuda"),
        default="cpu",
        help="what tests/golden computes on (default: cpu)",
    )
