"""From nothing to a trained and scored `mini`: every step resumes, and says how long it took.

Run: make mini, or python -m recipes.mini.make [--fraction 0.02] [--work DIR] [--only STEP ...]
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

HERE = Path(__file__).parent
CHECKOUT = HERE.parents[1]
TOGETHER = ("AB", "FCDNE")
"""Groups of clips that take about equally long. Voices are sung over recordings, so E comes after F."""
NUM_PROCESSES = max(1, os.cpu_count() or 1)
# glibc gives memory back after each update and asks for it again in the next; keeping it halves the time of an update.
KEEPS_MEMORY = {"MALLOC_ARENA_MAX": "1", "MALLOC_MMAP_THRESHOLD_": str(1 << 25), "MALLOC_TRIM_THRESHOLD_": str(1 << 33),
                "MALLOC_TOP_PAD_": str(1 << 28)}  # fmt: skip


@dataclass(frozen=True)
class Settings:
    """Of one run of the recipe."""

    work: Path
    """Folder for everything that is made."""
    fraction: float
    """Share of the clips and of the training."""
    without_test: bool = False
    """Whether the test split isn't made, since `benchmarks/data` holds what is needed of it."""

    @property
    def data_python(self) -> Path:
        """The environment that has what making data needs."""
        return self.work / "data-venv" / "bin" / "python"


def _run(*command: str | Path, **environment: str) -> None:
    subprocess.run([str(part) for part in command], check=True, cwd=CHECKOUT, env={**os.environ, **environment})


def _module(name: str) -> tuple[str, str]:
    """The arguments by which an interpreter, started in the checkout, runs a module of this package."""
    return "-m", f"recipes.mini.{name}"


def _together(*commands: tuple[str | Path, ...]) -> None:
    """Run commands side by side, one thread each."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
    started = [subprocess.Popen([str(p) for p in command], cwd=CHECKOUT, env=environment) for command in commands]
    codes = [process.wait() for process in started]
    for command, code in zip(commands, codes, strict=True):
        if code:
            raise subprocess.CalledProcessError(code, [str(part) for part in command])


def environment(settings: Settings) -> None:
    """Make the data environment."""
    if not settings.data_python.exists():
        _run(sys.executable, "-m", "venv", settings.work / "data-venv")
    pip = (settings.data_python, "-m", "pip", "install", "--quiet", "--no-deps")
    _run(*pip, "-r", HERE / "requirements.txt")
    _run(*pip, "--no-build-isolation", "-r", HERE / "requirements-built.txt")


def clips(settings: Settings) -> None:
    """Fetch, plan and render, in two processes."""
    command = (settings.data_python, *_module("data"), "--work", settings.work, "--fraction", str(settings.fraction),
               *(["--without-test"] if settings.without_test else []))  # fmt: skip
    _run(*command, "--groups", "")  # fetches alone
    _together(*((*command, "--groups", groups) for groups in TOGETHER))
    _run(*command, "--groups", "", "--join")


def energy_valence(settings: Settings) -> None:
    """Guess energy and valence."""
    _together((settings.data_python, *_module("energy_valence"), "--work", settings.work))


def features(settings: Settings) -> None:
    """Encode every clip once; training never opens the sound again."""
    command = (sys.executable, *_module("extract_features"), "--work", settings.work, "--of", str(NUM_PROCESSES))
    _together(*((*command, "--part", str(part)) for part in range(NUM_PROCESSES)))


def tracks(settings: Settings) -> None:
    """Write what is known of every clip."""
    _run(sys.executable, *_module("tracks"), "--work", settings.work)


def pretrain(settings: Settings) -> None:
    """Train the adapter on the labels."""
    if not (settings.work / "warm" / "config.json").exists():
        _run(sys.executable, *_module("pretrain_adapter"), "--work", settings.work)


def questions(settings: Settings) -> None:
    """Write conversations."""
    _run(sys.executable, *_module("rows"), "--work", settings.work)


def train(settings: Settings) -> None:
    """Train adapter and LoRA with the project's own command."""
    from mu_llama.devices import is_cpu_slow_at_bf16

    steps = max(2, round(_recipe_steps() * settings.fraction))
    overrides = {
        "model.base": str(settings.work / "warm"),
        "data.train": json.dumps([{"path": str(settings.work / "train.jsonl")}]),
        "data.validation": json.dumps([{"path": str(settings.work / "val.jsonl")}]),
        "run.out": str(settings.work / "run"),
        "schedule.steps": str(steps),
        "schedule.warmup_steps": str(min(40, steps // 2)),
    }
    if is_cpu_slow_at_bf16():
        overrides["precision.dtype"] = "fp32"
    finished = settings.work / "run" / "model"
    if finished.exists():
        return
    sets = [part for name, value in overrides.items() for part in ("--set", f"{name}={value}")]
    _run(Path(sys.executable).parent / "mu-llama", "train", "--config", HERE / "train.yaml", *sets, **KEEPS_MEMORY)


def _recipe_steps() -> int:
    text = (HERE / "train.yaml").read_text(encoding="utf-8")
    return int(text.split("steps:", 1)[1].split()[0])


def score(settings: Settings) -> None:
    """Write the held-out fixture and score the model on it."""
    data = CHECKOUT / "benchmarks" / "data"
    if not settings.without_test:
        data = settings.work / "benchmark"
        _run(sys.executable, *_module("test_set"), "--work", settings.work, "--out", data)
    _run(sys.executable, "-m", "benchmarks.mini", "--model", settings.work / "run" / "model", "--data", data,
         "--state", settings.work / "run" / "scores.json", "--out", settings.work / "mini.json")  # fmt: skip


def card(settings: Settings) -> None:
    """Write the model in half precision, with its scores in its card."""
    from benchmarks.mini.card import table

    shipped = settings.work / "shipped"
    _run(sys.executable, *_module("ship"), settings.work / "run" / "model", shipped)
    card = (settings.work / "run" / "model" / "MODEL_CARD.md").read_text(encoding="utf-8")
    scores = table(json.loads((settings.work / "mini.json").read_text(encoding="utf-8")))
    (shipped / "MODEL_CARD.md").write_text(f"{card.rstrip()}\n\n## Scores\n\n{scores}\n", encoding="utf-8")


STEPS: dict[str, Callable[[Settings], None]] = {
    "environment": environment, "clips": clips, "energy_valence": energy_valence, "features": features,
    "tracks": tracks, "pretrain": pretrain, "questions": questions, "train": train, "score": score, "card": card,
}  # fmt: skip
FORMER_NAMES = {"feel": "energy_valence", "listen": "features", "warm": "pretrain"}
"""What `--only` called steps before."""


def _step(name: str) -> str:
    return FORMER_NAMES.get(name, name)


def _check_settings(settings: Settings) -> None:
    """Refuse to go on in a folder that holds another share of the clips.

    Raises:
        SystemExit: if it does.
    """
    path = settings.work / "settings.json"
    wanted = {"fraction": settings.fraction, "without_test": settings.without_test}
    if path.exists() and json.loads(path.read_text()) != wanted:
        raise SystemExit(f"{settings.work} was begun with {path.read_text().strip()}; give the same, or another --work")
    path.write_text(json.dumps(wanted) + "\n")


def main() -> None:
    """Run the steps and write `times.jsonl`."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--work", type=Path, default=CHECKOUT / "work" / "mini")
    parser.add_argument("--fraction", type=float, default=1.0, help="share of the clips and of the training")
    parser.add_argument(
        "--without-test", action="store_true", help="make no test split; scored by what benchmarks/data has of it"
    )
    parser.add_argument("--only", nargs="*", choices=list(STEPS), type=_step, help="these steps alone")
    arguments = parser.parse_args()
    settings = Settings(arguments.work.resolve(), arguments.fraction, arguments.without_test)
    settings.work.mkdir(parents=True, exist_ok=True)
    _check_settings(settings)
    for name in arguments.only or STEPS:
        began = time.monotonic()
        print(f"== {name}", flush=True)
        STEPS[name](settings)
        seconds = round(time.monotonic() - began)
        with (settings.work / "times.jsonl").open("a", encoding="utf-8") as file:
            file.write(json.dumps({"step": name, "seconds": seconds, "fraction": settings.fraction}) + "\n")
        print(f"== {name}: {seconds} s", flush=True)


if __name__ == "__main__":
    main()
