"""Measured facts: tempo, key, loudness and length, each with a confidence."""

from mu_llama.audio.facts.fact import Fact, Facts
from mu_llama.audio.facts.measure import measure_facts

__all__ = ["Fact", "Facts", "measure_facts"]
