"""Prompt templates."""

from __future__ import annotations

import pytest

from mu_llama.errors import ConfigError
from mu_llama.text.prompts import ALPACA_PUBLISHED, CHATML_MUSIC, TEMPLATES, Turn, template_by_name


def test_templates_render_history() -> None:
    turns = [Turn("Q1", "A1"), Turn("Q2")]
    for template in TEMPLATES.values():
        text = template.render(turns)
        assert text.index("Q1") < text.index("A1") < text.index("Q2")
        assert text.startswith(template.render(turns[:1]) + "A1")
        assert text.endswith(template.between)
    assert "<built-in function input>" in ALPACA_PUBLISHED.render([Turn("{braces} stay")])
    assert "{braces} stay" in ALPACA_PUBLISHED.render([Turn("{braces} stay")])
    with pytest.raises(ValueError, match="earlier turn"):
        CHATML_MUSIC.render([Turn("Q1"), Turn("Q2")])
    with pytest.raises(ValueError, match="at least one"):
        CHATML_MUSIC.render([])
    with pytest.raises(ConfigError, match="chatml-music"):
        template_by_name("vicuna")
