"""Measures a track and puts the values into words for a prompt."""

from __future__ import annotations

import logging

from mu_llama.audio.facts import Facts, measure_facts
from mu_llama.audio.source import AudioSource
from mu_llama.audio.waveform import Waveform
from mu_llama.errors import MuLlamaError
from mu_llama.text.fact_prompts import MeasuredFact

logger = logging.getLogger(__name__)


def in_words(facts: Facts) -> dict[str, MeasuredFact]:
    """Put measured facts into words, by topic; what wasn't measured is left out.

    Example:
        >>> in_words(Facts(205.4, None, None, None))["duration"].text
        '3:25 minutes'
    """
    words = {"duration": MeasuredFact(f"{int(facts.duration_s // 60)}:{int(facts.duration_s % 60):02d} minutes")}
    if (tempo := facts.tempo_bpm) is not None:
        words["tempo"] = MeasuredFact(f"{float(tempo.value):.0f} BPM", tempo.confidence)
    if (key := facts.key) is not None:
        words["key"] = MeasuredFact(str(key.value), key.confidence)
    if (level := facts.loudness_lufs) is not None:
        words["loudness"] = MeasuredFact(f"{float(level.value):.1f} LUFS", level.confidence)
    return words


def measure_in_words(
    audio: AudioSource | Waveform, *, offset_s: float, duration_s: float | None
) -> dict[str, MeasuredFact]:
    """Measure a track for a prompt; where it can't be done, say why in the log and give nothing."""
    try:
        return in_words(measure_facts(audio, offset_s=offset_s, duration_s=duration_s))
    except (MuLlamaError, OSError, ValueError) as error:
        logger.warning("tempo and key are not measured: %s", error)
        return {}
