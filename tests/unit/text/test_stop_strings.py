"""Stop strings and trimmed ends of an answer."""

from __future__ import annotations

import pytest

from mu_llama.text.stop_strings import StopStringFilter
from tests.unit.text.byte_tokenizer import Bytes


@pytest.mark.parametrize(
    ("written", "stop", "expected", "stopped"),
    [
        ("  Hello there. \n", (), "Hello there.", False),
        ("one STOP two", ("STOP",), "one", True),
        ("one STO two", ("STOP",), "one STO two", False),
        ("a\n\n### Instruction", ("\n\n###",), "a", True),
        ("both END and STOP", ("STOP", "END"), "both", True),
        ("ends in ST", ("STOP",), "ends in ST", False),
    ],
)
def test_answer_text(written: str, stop: tuple[str, ...], expected: str, stopped: bool) -> None:
    text = StopStringFilter(Bytes(), stop)
    pieces = []
    for token in written.encode():
        pieces.append(text.push(token))
        if text.stopped:
            break
    pieces.append(text.finish())
    assert "".join(pieces) == text.text == expected
    assert text.stopped == stopped
