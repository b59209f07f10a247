"""Tokens per second of `ask_many` at 16 rows against 16 single calls, the same rows and answers of one length."""

from __future__ import annotations

import time

import mu_llama
from benchmarks.measure import CLIP, alternate, medians, write_result
from mu_llama.engine.sampling import GenerationOptions
from mu_llama.inference.listener import Listener
from mu_llama.inference.results import Answer, EncodedTrack

ROWS = 16
TOKENS = 64
RUNS = 3


def main() -> None:
    """Measure and write the result."""
    listener = mu_llama.load("mini")
    listener.opened.tokenizer.eos_ids = frozenset()  # every answer gets its full length
    tracks = [listener.listen(CLIP, offset_s=float(second), duration_s=10.0) for second in range(ROWS)]
    values = alternate(RUNS, single=lambda: _single(listener, tracks), batch=lambda: _batch(listener, tracks))
    middle = medians(values)
    write_result(
        "batching",
        {
            "what": f"tokens per second, {ROWS} rows of {TOKENS} tokens",
            "median_tokens_per_s": {name: round(value, 1) for name, value in middle.items()},
            "ratio": round(middle["batch"] / middle["single"], 2),
            "runs_tokens_per_s": values,
        },
    )


_QUESTION = "Describe the audio in detail"
_OPTIONS = GenerationOptions(max_new_tokens=TOKENS)


def _single(listener: Listener, tracks: list[EncodedTrack]) -> float:
    start = time.perf_counter()
    total = sum(listener.ask(track, _QUESTION, options=_OPTIONS).num_tokens for track in tracks)
    return total / (time.perf_counter() - start)


def _batch(listener: Listener, tracks: list[EncodedTrack]) -> float:
    start = time.perf_counter()
    answers = listener.ask_many(tracks, [_QUESTION], options=_OPTIONS, batch_size=ROWS)
    total = sum(answer.num_tokens for answer in answers if isinstance(answer, Answer))
    assert total == ROWS * TOKENS
    return total / (time.perf_counter() - start)


if __name__ == "__main__":
    main()
