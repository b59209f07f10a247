"""The folder of an onnx graph: a LLaMA built for onnxruntime, in the cache or inside a model folder.

`engine.onnx` writes and runs it; here it is recognised, and a model folder that holds one is described.
"""

from __future__ import annotations

import dataclasses
from pathlib import Path

from mu_llama.checkpoints.formats.format import PART_OF_FOLDER, Detection, FileHead, Format, read_json
from mu_llama.checkpoints.formats.hugging_face import read_llama_folder
from mu_llama.checkpoints.spec import LlamaSpec
from mu_llama.errors import CheckpointError
from mu_llama.hub import refuse_lfs_pointer

KIND = "onnx graph"
GRAPH_FILE, GRAPH_WEIGHTS_FILE, DESCRIPTION_FILE = "model.onnx", "weights.bin", "graph.json"
MANIFEST_FILE = "manifest.json"
"""Sizes and checksums of the other files."""
GRAPH_FILES = (GRAPH_FILE, GRAPH_WEIGHTS_FILE, DESCRIPTION_FILE, MANIFEST_FILE)
"""Everything in the folder of a graph."""
# How the file of a graph begins: the number of the ONNX format's version, one byte of it.
_GRAPH_START = b"\x08"


def graph_precision(folder: Path) -> str:
    """Precision of the weights in a graph's folder: fp32, int8 or int4.

    Raises:
        CheckpointError: if graph.json is missing, damaged or another program's.
    """
    path = folder / DESCRIPTION_FILE
    options = read_json(path).get("options")
    precision = options.get("precision") if isinstance(options, dict) else None
    if not isinstance(precision, str):
        raise CheckpointError(f"{path}: has no precision; expected the description of an onnx graph")
    return precision


def read_graph_llama(llama_folder: Path, graph: Path) -> LlamaSpec:
    """Describe a LLaMA whose weights are in a graph; whether the graph is whole is seen when it is opened.

    Args:
        llama_folder: config.json and tokenizer.
        graph: the graph's folder.

    Raises:
        CheckpointError: if files are missing or weren't downloaded.
    """
    missing = [name for name in GRAPH_FILES if not (graph / name).is_file()]
    if missing:
        raise CheckpointError(
            f"{graph}: {', '.join(missing)} missing; expected an onnx graph whole: copy or convert the model again"
        )
    files = tuple(graph / name for name in GRAPH_FILES)
    for path in files:
        refuse_lfs_pointer(path)
    llama = read_llama_folder(llama_folder, with_weights=False)
    return dataclasses.replace(llama, graph=graph, files=(*llama.files, *files))


def _recognise(folder: Path) -> Detection | None:
    content = read_json(folder / DESCRIPTION_FILE)
    if not isinstance(content.get("options"), dict) or "table" not in content:
        return None
    sizes = f"{content.get('num_layers')} layers of width {content.get('hidden_size')}"
    return Detection(folder, KIND, f"{sizes}, {graph_precision(folder)}")


def _recognise_file(file: FileHead) -> Detection | None:
    """The graph's own file, where its description is beside it; the file of weights has no mark of its own."""
    if file.path.suffix != ".onnx" or not file.head.startswith(_GRAPH_START):
        return None
    beside = file.path.with_name(DESCRIPTION_FILE)
    is_ours = beside.is_file() and _recognise(file.path.parent) is not None
    return Detection(file.path, PART_OF_FOLDER, "graph of a LLaMA") if is_ours else None


FORMAT = Format(
    KIND,
    "the onnx graph of a LLaMA, without its tokenizer and the audio adapter",
    settings_file=DESCRIPTION_FILE,
    recognise_folder=_recognise,
    recognise_file=_recognise_file,
    files=GRAPH_FILES,
    is_inner=True,
)
