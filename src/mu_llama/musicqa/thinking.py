"""Takes a chat model's reasoning away from its answer, by the marks that chat templates put around it."""

from __future__ import annotations

import re

from mu_llama.musicqa.writers.protocol import Damaged

_NAME = r"(?:\w+:)?(?:think(?:ing)?|thoughts?|reason(?:ing)?|analysis|reflection|scratchpad)"
# <think> (DeepSeek, Qwen and most others), [THINK] (Mistral), <|START_THINKING|> (Command), <|begin_of_thought|>,
# ◁think▷ (Kimi), <|channel|>analysis (gpt-oss), <|channel>thought (Gemma 4), <unused94> (MedGemma).
_MARK = re.compile(
    rf"""
    (?P<end>
        </\s*{_NAME}\s*> | \[/{_NAME}\] | ◁/{_NAME}▷ | <\|/{_NAME}\|> | <\|end_(?:of_)?{_NAME}\|> | <unused95>
        | <channel\|> | <\|channel\|>\s*final\b(?:\s*<\|constrain\|>\s*\w+)?(?:\s*<\|message\|>)?
    ) | (?P<begin>
        <\s*{_NAME}(?:\s[^<>]*)?> | \[{_NAME}\] | ◁{_NAME}▷ | <\|{_NAME}\|> | <\|(?:start|begin)_(?:of_)?{_NAME}\|>
        | <unused94> | <\|channel>\s*thought | <\|channel\|>
    )
    """,
    re.VERBOSE | re.IGNORECASE,
)
# gpt-oss where the server dropped the special tokens: analysisThe user wants ... assistantfinal{...}
_BARE_BEGIN, _BARE_END = re.compile(r"\s*analysis(?=[A-Z{])"), "assistantfinal"
_END_OF_TURN = re.compile(r"<\|(?:end|return|call|start|im_end|eot_id|end_of_text|endoftext)\|>")


def without_thinking(text: str) -> str:
    """Give what stands behind the reasoning: behind its last end, whether or not a beginning is there.

    Raises:
        Damaged: if reasoning begins and has no end; then nothing is an answer.

    Example:
        >>> without_thinking("The user wants a caption.</think>A calm piano.")
        'A calm piano.'
    """
    is_open = False
    if _BARE_BEGIN.match(text):
        before, mark, behind = text.rpartition(_BARE_END)
        text, is_open = (behind, False) if mark else (before or text, True)
    start = 0
    for match in _MARK.finditer(text):
        is_open = match["begin"] is not None
        start = start if is_open else match.end()
    if is_open:
        raise Damaged("its reasoning has no end, so there is no answer in it")
    return _END_OF_TURN.split(text[start:], maxsplit=1)[0]
