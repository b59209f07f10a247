"""`mu-llama train`: pretrain, finetune or train both together."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from mu_llama.cli import options as opt
from mu_llama.cli.progress import ProgressBars, plain_console
from mu_llama.errors import MuLlamaError

if TYPE_CHECKING:
    from mu_llama.training.loop import Step
    from mu_llama.training.memory import MemoryEstimate


def train_command(
    config: Annotated[Path, typer.Option("--config", "-c", help="YAML file; see configs/.", show_default=False)],
    changes: Annotated[
        list[str] | None, typer.Option("--set", help="Change a setting, e.g. data.max_tokens=128; repeatable.")
    ] = None,
    prepare: Annotated[bool, typer.Option("--prepare", help="Only encode all tracks, and stop.")] = False,
    skip_missing: Annotated[
        bool, typer.Option("--skip-missing", help="Drop and count examples whose audio is missing or can't be used.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object at the end.")] = False,
) -> None:
    """Train a model; started again, a run that was stopped goes on.

    On several GPUs or machines: accelerate launch -m mu_llama.training --config FILE
    """
    bars = ProgressBars(min_bytes=1_000_000)
    display = _Display()
    try:
        opt.quieten_libraries()
        from mu_llama.cache_folder import home_folder
        from mu_llama.training.config_file import load_config
        from mu_llama.training.session import prepare_only, train

        more = ["data.skip_missing=true"] if skip_missing else []
        settings = load_config(config, [*(changes or []), *more])
        home = home_folder()
        if prepare:
            prepared = prepare_only(settings, home=home, report=opt.report_progress, progress=bars)
            print(json.dumps(asdict(prepared)) if as_json else prepared)
            return
        result = train(settings, home=home, report=opt.report_progress, progress=bars, callback=display)
    except MuLlamaError as error:
        raise opt.fail(error) from None
    except ModuleNotFoundError as error:
        raise opt.fail(f"training needs {error.name}; run: pip install 'mu-llama[train]'") from None
    finally:
        bars.close()
        display.close()
    if as_json:
        print(json.dumps({**asdict(result), "model": str(result.model)}))
        return
    best = "" if result.best_validation_loss is None else f", best validation loss {result.best_validation_loss:.4f}"
    print(f"{result.updates} updates, loss {result.loss:.4f}{best}")
    print(f"try it: mu-llama ask --model {result.model} -q 'Describe the audio' song.mp3")


class _Display:
    """A progress bar with loss and speed, and lines for validations and sample answers."""

    def __init__(self) -> None:
        self._bar: Any = None
        self._task: Any = None

    def on_start(self, counts: dict[str, Any], memory: MemoryEstimate, total: int, done: int) -> None:
        """Print the training data and memory estimate, and draw the bar."""
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

        from mu_llama.training.callbacks import describe_counts

        console = plain_console()
        console.print(f"training on {describe_counts(counts)}")
        console.print(f"memory: {memory}")
        if done:
            console.print(f"going on after update {done}")
        columns = (
            TextColumn("{task.description}", markup=False),
            BarColumn(),
            MofNCompleteColumn(),
            TimeRemainingColumn(),
        )
        self._bar = Progress(*columns, console=console)
        self._bar.start()
        self._task = self._bar.add_task("starting", total=total, completed=done)

    def on_step(self, step: Step) -> None:
        """Move the bar."""
        status = f"loss {step.loss:.3f}  lr {step.lr:.1e}  {step.num_tokens / step.seconds:.0f} tokens/s  {_memory()}"
        self._bar.update(self._task, completed=step.update, description=status)

    def on_validation(self, update: int, loss: float, best: float) -> None:
        """Print the validation loss."""
        mark = " (best)" if loss == best else f" (best {best:.4f})"
        self._bar.console.print(f"update {update}: validation loss {loss:.4f}{mark}")

    def on_samples(self, update: int, samples: list[dict[str, str]]) -> None:
        """Print the sample answers."""
        from mu_llama.audio.file_names import distinct_names

        names = distinct_names(Path(sample["audio"]) for sample in samples)
        for sample in samples:
            name = names[Path(sample["audio"])]
            line = f"update {update}: {name}: {sample['question']} - {sample['answer']!r}"
            self._bar.console.print(line)

    def close(self) -> None:
        """Leave the terminal as it was."""
        if self._bar is not None:
            self._bar.stop()
            self._bar = None


def _memory() -> str:
    """Peak memory of the GPU, else of this process."""
    import resource
    import sys

    import torch

    if torch.cuda.is_available():
        return f"{torch.cuda.max_memory_allocated() / 2**30:.1f} GiB"
    unit = 1 if sys.platform == "darwin" else 1024
    return f"{resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 2**30:.1f} GiB"
