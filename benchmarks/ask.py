"""Whole process of `mu-llama ask` with warm caches against plain transformers without any audio.

Both start Python, load the same SmolLM2 in bf16 (ours in its default precision), and write the same number of tokens
from a prompt of the same text.

`--other` measures another version instead, in turns with this one, each with a cache folder of its own: a clip whose
features are cached and one whose features aren't; wall time, user time and peak memory. It takes a checkout, whose
code this environment then runs, or the `mu-llama` command of another environment:

git worktree add ../old COMMIT && python -m benchmarks.ask --other ../old
"""

from __future__ import annotations

import argparse
import json
import shutil
import statistics
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

from benchmarks.measure import CLIP, COMMAND, ROOT, Run, alternate, medians, run_process, write_result
from mu_llama.cache_folder import home_folder
from mu_llama.checkpoints.embedded import SMOLLM2, provide_llama
from mu_llama.text.prompts import CHATML_MUSIC, Turn

QUESTION = "Describe the audio in detail"
RUNS = 5
WARM = {"PYTHONDONTWRITEBYTECODE": ""}
"""Compiled modules are one of the caches."""

PLAIN = """
import sys
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer
folder, prompt, count = sys.argv[1], sys.argv[2], int(sys.argv[3])
tokenizer = AutoTokenizer.from_pretrained(folder)
model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.bfloat16)
inputs = tokenizer(prompt, return_tensors="pt")
out = model.generate(**inputs, max_new_tokens=count, min_new_tokens=count, do_sample=False, pad_token_id=0)
print(tokenizer.decode(out[0, inputs["input_ids"].shape[1]:]))
"""


@dataclass(frozen=True)
class Installation:
    """A `mu-llama` command with a cache folder of its own.

    Example:
        Installation.at(Path("../old"), home=Path("/tmp/old-home"))
    """

    command: Path
    """What is run."""
    environment: dict[str, str]
    """Added to the environment."""
    home: Path
    """Its cache folder."""

    @classmethod
    def at(cls, place: Path, *, home: Path) -> Installation:
        """Of a checkout, run by this environment's Python, or of a command."""
        environment = {**WARM, "MU_LLAMA_HOME": str(home)}
        if not place.is_dir():
            return cls(place, environment, home)
        if not (place / "src" / "mu_llama").is_dir():
            sys.exit(f"{place}: holds no src/mu_llama; expected a checkout of mu-llama or its command")
        return cls(COMMAND, {**environment, "PYTHONPATH": str(place.resolve() / "src")}, home)

    def ask(self, *, is_cold: bool) -> Run:
        """Ask about the clip, its features cached or not."""
        if is_cold:
            shutil.rmtree(self.home / "features", ignore_errors=True)
        return run_process([self.command, "ask", CLIP, "-q", QUESTION, "--json"], **self.environment)


def against(other: Path, *, repeats: int) -> dict[str, object]:
    """Measure this version and another in turns; the round that doesn't count fills their caches."""
    models = provide_llama(SMOLLM2, home_folder(), report=print).parent
    with tempfile.TemporaryDirectory() as folder:
        installations = {}
        for name, place in (("this", ROOT), ("other", other)):
            home = Path(folder) / name
            home.mkdir()
            (home / "models").symlink_to(models)
            installations[name] = Installation.at(place, home=home)
        runs: dict[str, dict[str, list[Run]]] = {"cold": {}, "warm": {}}
        for turn in range(repeats + 1):
            for clip, by_name in runs.items():
                for name, installation in installations.items():
                    run = installation.ask(is_cold=clip == "cold")
                    if turn:
                        by_name.setdefault(name, []).append(run)
    return {clip: _compared(by_name["this"], by_name["other"]) for clip, by_name in runs.items()}


def _compared(mine: list[Run], other: list[Run]) -> dict[str, object]:
    result: dict[str, object] = {}
    for figure in ("seconds", "user_s", "peak_mib"):
        one, two = (statistics.median(getattr(run, figure) for run in runs) for runs in (mine, other))
        result[figure] = {"this": round(one, 3), "other": round(two, 3), "ratio": round(one / two, 3)}
    answers = [json.loads(runs[-1].output)["answer"] for runs in (mine, other)]
    return {**result, "runs_s": {"this": _seconds(mine), "other": _seconds(other)}, "same_answer": len({*answers}) == 1}


def _seconds(runs: list[Run]) -> list[float]:
    return [round(run.seconds, 3) for run in runs]


def main() -> None:
    """Measure and write the result."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--other", type=Path, help="checkout or mu-llama command of another version")
    parser.add_argument("--repeats", type=int, default=RUNS)
    parser.add_argument("--json", type=Path, help="where to write instead of benchmarks/results")
    arguments = parser.parse_args()
    if arguments.other is not None:
        result = {
            "command": "python -m benchmarks.ask --other PLACE",
            "what": "whole process of ask, 30 s clip, features cached (warm) or not (cold), medians in turns",
            **against(arguments.other, repeats=arguments.repeats),
        }
        write_result("ask_versions", result, path=arguments.json)
        return
    folder = provide_llama(SMOLLM2, home_folder(), report=print)
    ours = [COMMAND, "ask", CLIP, "-q", QUESTION, "--json"]
    num_tokens = int(json.loads(run_process(ours).output)["num_tokens"])
    prompt = CHATML_MUSIC.render([Turn(QUESTION)])
    plain = [sys.executable, "-c", PLAIN, folder, prompt, str(num_tokens)]
    values = alternate(
        arguments.repeats,
        mu_llama=lambda: run_process(ours, **WARM).seconds,
        transformers=lambda: run_process(plain, **WARM).seconds,
    )
    middle = medians(values)
    write_result(
        "ask",
        {
            "what": "whole process, warm caches, 30 s clip, seconds",
            "num_tokens": num_tokens,
            "median_s": middle,
            "ratio_to_transformers": round(middle["mu_llama"] / middle["transformers"], 3),
            "runs_s": values,
        },
        path=arguments.json,
    )


if __name__ == "__main__":
    main()
