"""Options that several commands share, and how they become a loaded model."""

from __future__ import annotations

import gc
import inspect
import json
import logging
import os
import sys
import warnings
from collections.abc import Callable
from dataclasses import dataclass, fields, is_dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, get_type_hints

import typer

from mu_llama.cli.progress import ProgressBars
from mu_llama.devices import THREADS_VARIABLE
from mu_llama.errors import ConfigError

if TYPE_CHECKING:
    from mu_llama.engine.sampling import GenerationOptions
    from mu_llama.inference.listener import Listener
    from mu_llama.model.retrieval import BlendOptions

FAILED = 2
"""Exit code: no row was answered."""
PARTLY_FAILED = 1
"""Exit code: some rows of a batch were not answered."""


@dataclass(frozen=True)
class ModelOptions:
    """Which model, and how it runs."""

    model: Annotated[
        str,
        typer.Option(
            "--model", "-m", help="mini, a model folder, a published checkpoint.pth or the folder around it, a hub id."
        ),
    ] = "mini"
    llama: Annotated[
        str | None,
        typer.Option(
            help="LLaMA beside a published checkpoint: Meta, Hugging Face or GGUF, or a hub id.", show_default=False
        ),
    ] = None
    encoder: Annotated[
        str | None,
        typer.Option(help="MERT folder or hub id beside a published checkpoint.", show_default=False),
    ] = None
    knn_index: Annotated[
        Path | None, typer.Option(help="faiss file of vectors to blend into the track's own.", show_default=False)
    ] = None
    knn_weight: Annotated[
        float | None,
        typer.Option(min=0, max=1, help="Share of the neighbours in the blend.", show_default="0.1"),
    ] = None
    knn_size: Annotated[
        int | None, typer.Option(min=1, help="How many neighbours are blended.", show_default="100")
    ] = None
    window: Annotated[
        str,
        typer.Option(
            help="Seconds used: full (all), published (the first minute of up to an hour), auto (the model's own)."
        ),
    ] = "auto"
    engine: Annotated[
        str,
        typer.Option(help="What runs the LLaMA: onnx, torch, or auto (onnx for small and quantized models on a CPU)."),
    ] = "auto"
    device: Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:N or mps.")] = "auto"
    dtype: Annotated[str, typer.Option(help="Of the LLaMA: auto, bf16, fp16 or fp32.")] = "auto"
    quantize: Annotated[
        str | None,
        typer.Option(help="Keep the LLaMA's weights in int8 or int4, to need less memory.", show_default=False),
    ] = None
    device_map: Annotated[
        str | None,
        typer.Option(
            help="Spread the LLaMA over several GPUs: auto, or a JSON file of modules and devices.", show_default=False
        ),
    ] = None
    provider: Annotated[
        str | None,
        typer.Option(help="Execution provider of onnxruntime: cpu, cuda, coreml or directml.", show_default="cpu"),
    ] = None
    threads: Annotated[
        int | None,
        typer.Option(
            min=1, help="Threads that compute on the CPU; also MU_LLAMA_THREADS.", show_default="one a physical core"
        ),
    ] = None
    cache: Annotated[bool, typer.Option(help="Keep features on disk, so that a track is encoded once.")] = True


@dataclass(frozen=True)
class AnswerOptions:
    """How answers are generated."""

    max_new_tokens: Annotated[int, typer.Option(min=1, help="Longest answer, in tokens.")] = 256
    temperature: Annotated[float, typer.Option(min=0, help="0 takes the likeliest word; higher varies more.")] = 0.0
    top_p: Annotated[
        float, typer.Option(min=0, max=1, help="Sample among the likeliest words up to this probability.")
    ] = 1.0
    seed: Annotated[int | None, typer.Option(help="Makes sampling repeatable.", show_default=False)] = None
    stop: Annotated[
        list[str] | None, typer.Option(help="Text that ends an answer; repeatable.", show_default=False)
    ] = None


Offset = Annotated[float, typer.Option(min=0, help="First second that is encoded.")]
Duration = Annotated[float | None, typer.Option(help="Encode at most so many seconds.", show_default="to the end")]


def records_expanded(command: Callable[..., None]) -> Callable[..., None]:
    """Replace each parameter that is a record of options by one option for each of the record's fields.

    Commands share options by sharing a record; Typer sees a plain signature.
    """
    hints = get_type_hints(command, include_extras=True)
    parameters, records = [], {}
    for name, parameter in inspect.signature(command).parameters.items():
        if not is_dataclass(hints[name]):
            parameters.append(parameter.replace(annotation=hints[name], kind=inspect.Parameter.KEYWORD_ONLY))
            continue
        types = get_type_hints(hints[name], include_extras=True)
        records[name] = (hints[name], [field.name for field in fields(hints[name])])
        parameters += [
            inspect.Parameter(
                field.name, inspect.Parameter.KEYWORD_ONLY, default=field.default, annotation=types[field.name]
            )
            for field in fields(hints[name])
        ]

    def run(**values: Any) -> None:
        for name, (record, names) in records.items():
            values[name] = record(**{field: values.pop(field) for field in names})
        command(**values)

    run.__name__, run.__doc__ = command.__name__, command.__doc__
    run.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    run.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
    return run


def fail(message: object, *, code: int = FAILED) -> typer.Exit:
    """Print an error and give the exception that ends the command."""
    say_error(message)
    return typer.Exit(code)


def say_error(message: object) -> None:
    """Print an error to standard error: one line, or a list of problems, one a line."""
    lines = [" ".join(line.split()) for line in str(message).splitlines()]
    print("error: " + "\n  ".join(line for line in lines if line), file=sys.stderr, flush=True)


def say_warnings_plainly() -> None:
    """Print this package's warnings as one line without source code, and hide those of libraries."""

    def show(message: Warning | str, *_: Any, **__: Any) -> None:
        if _warner().partition(".")[0] == __name__.partition(".")[0]:
            print("warning: " + " ".join(str(message).split()), file=sys.stderr, flush=True)

    warnings.showwarning = show


def _warner() -> str:
    """Name of the module that called `warnings.warn`, whichever line `stacklevel` blames."""
    frame = sys._getframe(2)
    while frame.f_back is not None and frame.f_globals.get("__name__") == warnings.__name__:
        frame = frame.f_back
    return str(frame.f_globals.get("__name__"))


def report_progress(message: str) -> None:
    """Print one line about a slow step that starts."""
    print(f"mu-llama: {message} ...", file=sys.stderr, flush=True)


def generation_options(answers: AnswerOptions) -> GenerationOptions:
    """Turn the options of the command line into those of generation."""
    from mu_llama.engine.sampling import GenerationOptions

    if answers.temperature == 0.0 and (answers.seed is not None or answers.top_p < 1.0):
        print("warning: --seed and --top-p change nothing at temperature 0; add --temperature 0.6", file=sys.stderr)
    return GenerationOptions(
        max_new_tokens=answers.max_new_tokens,
        temperature=answers.temperature,
        top_p=answers.top_p,
        seed=answers.seed,
        stop=tuple(answers.stop or ()),
    )


def load_listener(chosen: ModelOptions) -> Listener:
    """Load the model that the options name."""
    # Imported modules and weights stay alive: garbage collection over them costs half a second.
    gc.disable()
    quieten_libraries()
    if chosen.threads is not None:
        os.environ[THREADS_VARIABLE] = str(chosen.threads)
    from mu_llama.inference.pretrained import load

    listener = load(
        chosen.model,
        llama=chosen.llama,
        encoder=chosen.encoder,
        knn_index=chosen.knn_index,
        blend=_blend(chosen),
        window=chosen.window,  # type: ignore[arg-type]  # load() checks it
        engine=chosen.engine,  # type: ignore[arg-type]  # load() checks it
        device=chosen.device,
        dtype=chosen.dtype,
        quantize=chosen.quantize,  # type: ignore[arg-type]  # load() checks it
        device_map=_device_map(chosen.device_map),
        provider=chosen.provider,
        use_cache=chosen.cache,
        report=report_progress,
        progress=ProgressBars(),
    )
    gc.freeze()
    gc.enable()
    return listener


def _blend(chosen: ModelOptions) -> BlendOptions | None:
    from mu_llama.model.retrieval import BlendOptions

    if chosen.knn_index is None:
        if chosen.knn_weight is not None or chosen.knn_size is not None:
            raise ConfigError("--knn-weight and --knn-size change nothing alone; add --knn-index FILE")
        return None
    weight = 0.1 if chosen.knn_weight is None else chosen.knn_weight
    return BlendOptions(weight=weight, num_neighbours=chosen.knn_size or 100)


def _device_map(text: str | None) -> Any:
    if text is None or text == "auto":
        return text
    try:
        return json.loads(Path(text).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ConfigError(f"--device-map {text!r} is neither auto nor a readable JSON file ({error})") from error


def quieten_libraries() -> None:
    """Turn off libraries' notes, which would mix with the answers; those that aren't imported yet read it later."""
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    if (transformers := sys.modules.get("transformers")) is not None:
        transformers.utils.logging.set_verbosity_error()
    logging.getLogger("bitsandbytes").setLevel(logging.ERROR)
