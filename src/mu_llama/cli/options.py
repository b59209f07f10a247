"""Options that several commands share, and how they become a loaded model."""

from __future__ import annotations

import gc
import sys
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

if TYPE_CHECKING:
    from mu_llama.generation import GenerationOptions
    from mu_llama.listener import Listener

FAILED = 2
"""Exit code: nothing was answered."""
PARTLY_FAILED = 1
"""Exit code: some rows of a batch were not answered."""

Model = Annotated[str, typer.Option("--model", "-m", help="mini, a model folder, or a published checkpoint.pth.")]
Llama = Annotated[
    Path | None, typer.Option(help="Meta LLaMA folder beside a published checkpoint.", show_default=False)
]
EncoderPath = Annotated[
    str | None,
    typer.Option("--encoder", help="MERT folder or hub id beside a published checkpoint.", show_default=False),
]
KnnIndex = Annotated[
    Path | None, typer.Option(help="faiss file of vectors to blend into the track's own.", show_default=False)
]
KnnWeight = Annotated[float, typer.Option(min=0, max=1, help="Share of the neighbours in the blend.")]
KnnSize = Annotated[int, typer.Option(min=1, help="How many neighbours are blended.")]
Device = Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:N or mps.")]
Dtype = Annotated[str, typer.Option(help="Of the LLaMA: auto, bf16, fp16 or fp32.")]
WindowChoice = Annotated[
    str,
    typer.Option(
        help="Seconds heard: full (all), published (the first minute of up to an hour), auto (the model's own)."
    ),
]
Offset = Annotated[float, typer.Option(min=0, help="Start listening here, in seconds.")]
Duration = Annotated[float | None, typer.Option(help="Listen to so many seconds at most.", show_default="to the end")]
Cache = Annotated[bool, typer.Option(help="Keep features on disk, so that a track is encoded once.")]
MaxNewTokens = Annotated[int, typer.Option(min=1, help="Longest answer, in tokens.")]
Temperature = Annotated[float, typer.Option(min=0, help="0 takes the likeliest word; higher varies more.")]
TopP = Annotated[float, typer.Option(min=0, max=1, help="Sample among the likeliest words up to this probability.")]
Seed = Annotated[int | None, typer.Option(help="Makes sampling repeatable.", show_default=False)]
Stop = Annotated[list[str] | None, typer.Option(help="Text that ends an answer; repeatable.", show_default=False)]


def fail(message: object, *, code: int = FAILED) -> typer.Exit:
    """Print one line to standard error and give the exception that ends the command."""
    say_error(message)
    return typer.Exit(code)


def say_error(message: object) -> None:
    """Print an error as one line to standard error."""
    print("error: " + " ".join(str(message).split()), file=sys.stderr, flush=True)


def say_warnings_plainly() -> None:
    """Show this package's warnings as one line without source code."""

    def show(message: Warning | str, *_: Any, **__: Any) -> None:
        print("warning: " + " ".join(str(message).split()), file=sys.stderr, flush=True)

    warnings.showwarning = show


def report_progress(message: str) -> None:
    """Tell a person what takes long."""
    print(f"mu-llama: {message} ...", file=sys.stderr, flush=True)


def generation_options(
    *, max_new_tokens: int, temperature: float, top_p: float, seed: int | None, stop: list[str] | None
) -> GenerationOptions:
    """Collect the options of generation."""
    from mu_llama.generation import GenerationOptions

    if temperature == 0.0 and (seed is not None or top_p < 1.0):
        print("warning: --seed and --top-p change nothing at temperature 0; add --temperature 0.6", file=sys.stderr)
    return GenerationOptions(
        max_new_tokens=max_new_tokens, temperature=temperature, top_p=top_p, seed=seed, stop=tuple(stop or ())
    )


def load_listener(
    model: str,
    *,
    llama: Path | None,
    encoder: str | None,
    knn_index: Path | None,
    knn_weight: float,
    knn_size: int,
    window: str,
    device: str,
    dtype: str,
    cache: bool,
) -> Listener:
    """Load the model that the options name."""
    # What is imported and loaded stays: looking through it for garbage costs half a second.
    gc.disable()
    quieten_libraries()
    from mu_llama.listener import load
    from mu_llama.model.retrieval import BlendOptions

    plan: Literal["auto", "full", "published"] = window  # type: ignore[assignment]  # load() checks it
    listener = load(
        model,
        llama=llama,
        encoder=encoder,
        knn_index=knn_index,
        blend=None if knn_index is None else BlendOptions(weight=knn_weight, num_neighbours=knn_size),
        window=plan,
        device=device,
        dtype=dtype,
        use_cache=cache,
        report=report_progress,
    )
    gc.freeze()
    gc.enable()
    return listener


def quieten_libraries() -> None:
    """Keep libraries' own progress bars and notes out of the answers."""
    import transformers

    transformers.utils.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()
    say_warnings_plainly()
