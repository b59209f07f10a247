"""One engine with one number of threads, in a process of its own, which measures what `benchmarks.decode` asks for.

Run by `benchmarks.decode`: a case in JSON on each line of standard input, its figures on each line of standard output.
"""

from __future__ import annotations

import json
import os
import random
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from benchmarks.measure import CLIP

QUESTION = "Describe the audio in detail"
PROMPT_TOKENS = 110
"""Positions of every prompt, audio tokens included."""
SHORTEST = 4
"""Tokens of the shortest of the ragged rows."""
Figures = dict[str, float]
Case = Callable[["Sizes"], Figures]


@dataclass(frozen=True)
class Sizes:
    """How much is generated."""

    num_tokens: int = 64
    """Of each row, where all are alike."""
    num_rows: int = 16
    """Of a batch."""
    longest: int = 128
    """Tokens of the longest of the ragged rows."""

    def lengths(self) -> list[int]:
        """Tokens of the ragged rows: each longer than the one before by the same factor, then shuffled."""
        steps = max(1, self.num_rows - 1)
        lengths = [round(SHORTEST * (self.longest / SHORTEST) ** (row / steps)) for row in range(self.num_rows)]
        random.Random(0).shuffle(lengths)
        return lengths


def prompt_ids(num_tokens: int = PROMPT_TOKENS) -> list[int]:
    """Ids of a prompt; what they say doesn't matter."""
    return random.Random(1).choices(range(100, 40_000), k=num_tokens)


class Ours:
    """`mini` through one of our engines and the scheduler.

    Args:
        settings: of `mu_llama.load`.
    """

    def __init__(self, **settings: Any) -> None:
        import mu_llama

        self._listener = mu_llama.load("mini", **settings)
        self._listener.opened.tokenizer.eos_ids = frozenset()  # every answer gets its full length
        self._track = self._listener.listen(CLIP)
        self._ids = prompt_ids(PROMPT_TOKENS - self._listener.opened.engine.num_audio_tokens)
        self.cases: dict[str, Case] = {
            "alone": self.alone, "first": self.first, "batch": self.batch, "ragged": self.ragged
        }  # fmt: skip

    def alone(self, sizes: Sizes) -> Figures:
        """Read a prompt and continue it."""
        start = time.perf_counter()
        times = self._run([sizes.num_tokens])
        return _alone(start, times)

    def first(self, _: Sizes) -> Figures:
        """Wait for the first piece of an answer: about an encoded track without a question yet, and one question on."""
        from mu_llama.engine.prefix import PrefixCache

        track, figures = replace(self._track, prefix=PrefixCache()), {}
        for name in ("first_token_ms", "next_question_ms"):
            start = time.perf_counter()
            next(iter(self._listener.stream(track, QUESTION)))
            figures[name] = (time.perf_counter() - start) * 1000
        return figures

    def batch(self, sizes: Sizes) -> Figures:
        """Answer equal rows."""
        return {"batch_per_s": self._rate([sizes.num_tokens] * sizes.num_rows)}

    def ragged(self, sizes: Sizes) -> Figures:
        """Answer rows of different lengths: each ends when it is done, and all run until the longest is done."""
        lengths = sizes.lengths()
        until_longest = self._rate([sizes.longest] * sizes.num_rows)
        return {
            "ragged_per_s": self._rate(lengths),
            "ragged_static_per_s": until_longest * sum(lengths) / (sizes.longest * sizes.num_rows),
        }

    def _rate(self, lengths: list[int]) -> float:
        start = time.perf_counter()
        return len(self._run(lengths)) / (time.perf_counter() - start)

    def _run(self, lengths: list[int]) -> list[float]:
        """Answer a row for each length; returns when each token came."""
        from mu_llama.engine.prefix import Prompt
        from mu_llama.engine.sampling import GenerationOptions

        scheduler = self._listener.opened.scheduler
        rows = [
            scheduler.submit(
                Prompt(self._ids),
                self._track.conditioning,
                options=GenerationOptions(max_new_tokens=length),
                eos_ids=frozenset(),
            )
            for length in lengths
        ]
        times = [time.perf_counter() for _ in scheduler.stream(rows)]
        assert len(times) == sum(lengths)
        return times


class Transformers:
    """The LLaMA of `mini`, its LoRA merged, in bf16 through transformers' own `generate`."""

    def __init__(self) -> None:
        import torch
        from transformers import LlamaForCausalLM

        from mu_llama.arrays import BFLOAT16, to_torch
        from mu_llama.cache_folder import home_folder
        from mu_llama.checkpoints.load import find_parts
        from mu_llama.checkpoints.lora import merged_llama
        from mu_llama.engine.torch.llama import to_transformers

        parts = find_parts("mini", home=home_folder())
        config, tensors = merged_llama(parts.llama, parts.tuning, dtype=BFLOAT16, source=parts.source)
        self._model: Any = LlamaForCausalLM(to_transformers(config)).to(torch.bfloat16).eval()
        wrong = self._model.load_state_dict({name: to_torch(value.read()) for name, value in tensors.items()}, False)
        assert wrong.unexpected_keys == []
        assert set(wrong.missing_keys) <= {"lm_head.weight"}  # tied
        self._model.tie_weights()
        self._model.generation_config.eos_token_id = None
        self.cases: dict[str, Case] = {"alone": self.alone, "batch": self.batch, "ragged": self.ragged}

    def alone(self, sizes: Sizes) -> Figures:
        """Read a prompt and continue it."""
        times: list[float] = []

        class Clock:
            """What `generate` calls a streamer; the first call brings the prompt."""

            def put(self, _: Any) -> None:
                times.append(time.perf_counter())

            def end(self) -> None:
                pass

        start = time.perf_counter()
        self._generate(1, sizes.num_tokens, streamer=Clock())
        return _alone(start, times[1:])

    def batch(self, sizes: Sizes) -> Figures:
        """Answer equal rows."""
        return {"batch_per_s": self._rate(sizes.num_rows, sizes.num_tokens)}

    def ragged(self, sizes: Sizes) -> Figures:
        """Answer rows of different lengths, which all run until the longest is done: it can't do otherwise."""
        useful = sum(sizes.lengths()) / (sizes.longest * sizes.num_rows)
        return {"ragged_static_per_s": self._rate(sizes.num_rows, sizes.longest) * useful}

    def _rate(self, num_rows: int, num_tokens: int) -> float:
        start = time.perf_counter()
        self._generate(num_rows, num_tokens)
        return num_rows * num_tokens / (time.perf_counter() - start)

    def _generate(self, num_rows: int, num_tokens: int, **settings: Any) -> None:
        import torch

        ids = torch.tensor([prompt_ids()] * num_rows)
        count = {"max_new_tokens": num_tokens, "min_new_tokens": num_tokens}
        mask = torch.ones_like(ids)
        self._model.generate(ids, attention_mask=mask, do_sample=False, pad_token_id=0, **count, **settings)


class LlamaCpp:
    """SmolLM2 as it is fetched (Q4_1), without LoRA, in llama.cpp through the package xllamacpp.

    Args:
        gguf: the model.
        threads: that compute.
        num_rows: most rows at once.
    """

    def __init__(self, gguf: Path, threads: int, *, num_rows: int = 16) -> None:
        self._single = _llama_server(gguf, threads, num_rows=1)
        self._several = _llama_server(gguf, threads, num_rows=num_rows)
        self.cases: dict[str, Case] = {"alone": self.alone, "batch": self.batch, "ragged": self.ragged}

    def alone(self, sizes: Sizes) -> Figures:
        """Read a prompt and continue it, by llama.cpp's own clock."""
        timings = _complete(self._single, sizes.num_tokens)["timings"]
        return {"prompt_ms": timings["prompt_ms"], "alone_per_s": timings["predicted_per_second"]}

    def batch(self, sizes: Sizes) -> Figures:
        """Answer equal rows; of several its clocks overlap, so ours is taken."""
        return {"batch_per_s": self._rate([sizes.num_tokens] * sizes.num_rows)}

    def ragged(self, sizes: Sizes) -> Figures:
        """Answer rows of different lengths: as they end, and all until the longest is done."""
        lengths = sizes.lengths()
        until_longest = self._rate([sizes.longest] * sizes.num_rows)
        return {
            "ragged_per_s": self._rate(lengths),
            "ragged_static_per_s": until_longest * sum(lengths) / (sizes.longest * sizes.num_rows),
        }

    def _rate(self, lengths: list[int]) -> float:
        from concurrent.futures import ThreadPoolExecutor

        start = time.perf_counter()
        with ThreadPoolExecutor(len(lengths)) as pool:
            done = list(pool.map(lambda length: _complete(self._several, length), lengths))
        elapsed_s = time.perf_counter() - start
        assert [one["timings"]["predicted_n"] for one in done] == lengths
        return sum(lengths) / elapsed_s


def _llama_server(gguf: Path, threads: int, *, num_rows: int) -> Any:
    import xllamacpp

    parameters = xllamacpp.CommonParams()
    parameters.model.path = str(gguf)
    parameters.n_parallel, parameters.n_ctx = num_rows, 512 * num_rows
    parameters.cpuparams.n_threads = parameters.cpuparams_batch.n_threads = threads
    parameters.verbosity = 0
    return xllamacpp.Server(parameters)


def _complete(server: Any, num_tokens: int) -> Mapping[str, Any]:
    settings = {"n_predict": num_tokens, "ignore_eos": True, "cache_prompt": False, "temperature": 0.0, "top_k": 1}
    answer: Mapping[str, Any] = server.handle_completions({"prompt": prompt_ids(), "samplers": ["top_k"], **settings})
    return answer


def _alone(start: float, times: list[float]) -> Figures:
    rate = (len(times) - 1) / (times[-1] - times[0]) if len(times) > 1 else 0.0
    return {"prompt_ms": (times[0] - start) * 1000, "alone_per_s": rate}


ENGINES: dict[str, str] = {
    "torch": "torch, bf16",
    "transformers": "transformers' generate, bf16",
    "llama_cpp": "llama.cpp, Q4_1",
    "onnx_int8": "onnx, int8",
    "onnx_int4": "onnx, int4",
    "onnx_fp32": "onnx, fp32",
}
"""Key and heading of what is measured."""


def open_measured(name: str, *, threads: int, gguf: Path | None, num_rows: int) -> Ours | Transformers | LlamaCpp:
    """Open one of `ENGINES` with so many threads."""
    if name in ("torch", "transformers"):
        import torch

        torch.set_num_threads(threads)
    if name == "transformers":
        return Transformers()
    if name == "llama_cpp":
        assert gguf is not None, "it is fetched before"
        return LlamaCpp(gguf, threads, num_rows=num_rows)
    if name == "torch":
        return Ours(engine="torch")
    precision = name.removeprefix("onnx_")
    return Ours(engine="onnx", **({"dtype": "fp32"} if precision == "fp32" else {"quantize": precision}))


def main() -> None:
    """Open the engine of the first argument, then measure case by case until standard input ends."""
    request = json.loads(sys.argv[1])
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # whatever libraries print goes to standard error
    sizes, gguf = Sizes(**request["sizes"]), request["gguf"]
    measured = open_measured(
        request["engine"], threads=request["threads"], gguf=gguf and Path(gguf), num_rows=sizes.num_rows
    )
    print(json.dumps(list(measured.cases)), file=answers, flush=True)
    for line in sys.stdin:
        asked = json.loads(line)
        print(json.dumps(measured.cases[asked["case"]](Sizes(**asked["sizes"]))), file=answers, flush=True)


if __name__ == "__main__":
    main()
