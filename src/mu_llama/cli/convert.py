"""`mu-llama convert`: a model of any layout as one folder, with an onnx graph or without, or its LLaMA as GGUF."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from mu_llama.cli import options as opt
from mu_llama.cli.progress import ProgressBars
from mu_llama.devices import DTYPES
from mu_llama.errors import MuLlamaError

if TYPE_CHECKING:
    from mu_llama.checkpoints.convert import ConvertOptions
    from mu_llama.checkpoints.spec import ModelSpec


def convert(
    source: Annotated[
        str, typer.Argument(help="Published checkpoint.pth or the folder around it, a model folder, mini, a hub id.")
    ],
    target: Annotated[Path, typer.Argument(help="Folder (or .gguf file) to write.")],
    llama: Annotated[
        str | None,
        typer.Option(
            help="LLaMA of a published checkpoint; params.json if the checkpoint holds it.", show_default=False
        ),
    ] = None,
    encoder: Annotated[
        str | None, typer.Option(help="MERT folder or hub id of a published checkpoint.", show_default=False)
    ] = None,
    to: Annotated[
        str,
        typer.Option(
            help="folder; onnx (a folder that runs on a CPU without torch, in int8 or int4); "
            "or gguf (the language model alone, without audio)."
        ),
    ] = "folder",
    merge: Annotated[bool, typer.Option("--merge", help="Merge LoRA, biases and norms into the LLaMA.")] = False,
    dtype: Annotated[
        str, typer.Option(help="bf16, fp16, fp32; auto keeps what is stored. With --to onnx, fp32 or auto.")
    ] = "auto",
    quantize: Annotated[
        str | None,
        typer.Option(
            help="With --to onnx: int8 or int4; without it, int8 for LLaMAs narrower than 2048, int4 for others.",
            show_default=False,
        ),
    ] = None,
    encoder_files: Annotated[
        str, typer.Option(help="copy the encoder into the folder, reference it, or auto (reference hub ids).")
    ] = "auto",
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace what is at the target.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object at the end.")] = False,
) -> None:
    """Convert a model, one tensor at a time.

    The result appears whole or not at all; started again after a kill, the conversion continues.
    """
    start, bars = time.perf_counter(), ProgressBars()
    try:
        opt.quieten_libraries()
        from mu_llama.cache_folder import home_folder
        from mu_llama.checkpoints.convert import GGUF_TAKES_NO_AUDIO, ConvertOptions, convert_to_folder, convert_to_gguf
        from mu_llama.checkpoints.load import find_parts
        from mu_llama.engine.onnx.convert import convert_to_onnx

        kind = _one_of(to, "--to", ("folder", "onnx", "gguf"))
        how: Literal["auto", "copy", "reference"] = _one_of(  # type: ignore[assignment]
            encoder_files, "--encoder-files", ("auto", "copy", "reference")
        )
        width = None if dtype == "auto" else _one_of(dtype, "--dtype", ("auto", *DTYPES))
        bits: Literal["int8", "int4"] | None = None
        if quantize is not None:
            bits = _one_of(quantize, "--quantize", ("int8", "int4"))  # type: ignore[assignment]
        chosen = ConvertOptions(merge=merge, dtype=width, encoder=how, overwrite=overwrite, quantize=bits)
        parts = find_parts(source, llama=llama, encoder=encoder, home=home_folder(), report=opt.report_progress)
        if kind == "onnx":
            _report_precision(parts, chosen)
        write = {"folder": convert_to_folder, "onnx": convert_to_onnx, "gguf": convert_to_gguf}[kind]
        write(parts, target, chosen, progress=bars)
    except MuLlamaError as error:
        raise opt.fail(error) from None
    finally:
        bars.close()
    seconds = time.perf_counter() - start
    files = sorted(path for path in target.rglob("*") if path.is_file()) if target.is_dir() else [target]
    size = sum(path.stat().st_size for path in files)
    if as_json:
        names = [str(path.relative_to(target)) if target.is_dir() else path.name for path in files]
        print(json.dumps({"target": str(target), "size_bytes": size, "files": names, "seconds": round(seconds, 1)}))
        return
    print(f"{target}: {size / 1e9:.2f} GB in {seconds:.0f} s")
    if kind != "gguf":
        print(f"try it: mu-llama ask --model {target} -q 'What instruments do you hear?' song.mp3")
    else:
        print(f"this is the language model alone, which {GGUF_TAKES_NO_AUDIO}; use a folder to ask about music")


def _report_precision(parts: ModelSpec, chosen: ConvertOptions) -> None:
    """Say which precision the graph has, where it wasn't asked for, and warn where it doesn't suit the model."""
    from mu_llama.engine.onnx.convert import chosen_precision
    from mu_llama.inference.engines import warn_of_int4

    precision, width = chosen_precision(parts, chosen), parts.llama.config.hidden_size
    warn_of_int4(parts, precision)
    if chosen.quantize is None and precision != "fp32":
        advice = "; --quantize int8 is closer to the original" if precision == "int4" else ""
        opt.report_progress(f"the LLaMA (width {width}) is written in {precision}{advice}")


def _one_of(value: str, option: str, known: tuple[str, ...]) -> str:
    from mu_llama.errors import ConfigError

    if value not in known:
        raise ConfigError(f"{option} is {value!r}; expected {', '.join(known)}")
    return value
