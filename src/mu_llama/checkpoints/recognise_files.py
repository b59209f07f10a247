"""Tell what a file of weights is, by its first bytes and the names of its tensors."""

from __future__ import annotations

import re
import stat
import struct
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from mu_llama.checkpoints.found import Detection, Part, unreadable
from mu_llama.checkpoints.lazy_tensor import LazyTensor
from mu_llama.checkpoints.meta_llama import PARAMS_FILE
from mu_llama.checkpoints.published import state_dict_of
from mu_llama.checkpoints.recognise_folders import SETTINGS_FILES, recognise_folder, recognise_meta
from mu_llama.checkpoints.safetensors_files import read_safetensors
from mu_llama.checkpoints.torch_files import read_torch_file
from mu_llama.git_lfs import LFS_ADVICE, is_lfs_pointer

_HEAD_BYTES = 4096
_ZIP, _GGUF = b"PK\x03\x04", b"GGUF"
_TORCH_SUFFIXES = {".pth", ".pt", ".bin", ".ckpt"}
_OTHER_SUFFIXES = {".safetensors", ".gguf", ".index", ".model"}
# Protobuf of SentencePiece: a piece, in it the length of its text, the text, and its score.
_SENTENCEPIECE = re.compile(rb"\n.\n(.)", re.DOTALL)
_SCORE_TAG = b"\x15"
# Four-letter code of a flat, inverted or graph index, width int32, count int64 (faiss, index_write.cpp).
_FAISS = struct.Struct("<4siq")
_FAISS_CODE = re.compile(rb"I[xwH][A-Za-z0-9]{2}")
_MAX_WIDTH, _MAX_VECTORS = 1 << 16, 1 << 40
_PUBLISHED_PREFIXES = ("mu_mert_", "prefix_query.", "llama.", "mert_model.")
# What else a file's weights may be, by how a key begins.
_FOLDER_FILES = (
    (("tok_embeddings.", "layers."), "LLaMA weights in Meta's layout"),
    (("base_model.model.",), "weights of a peft adapter"),
    (("model.layers.", "model.embed_tokens."), "language model weights in Hugging Face's layout"),
    (("feature_extractor.conv_", "hubert.feature_extractor.", "mert.feature_extractor."), "MERT weights"),
    (("adapter.", "conditioner."), "adapter weights of a mu-llama folder"),
)


def recognise_file(path: Path) -> Detection | None:
    """Tell what a file is; one that can't be read is unknown, with the reason.

    Returns:
        None for a file that neither its content nor its name makes out to be of a model.
    """
    try:
        if path.is_symlink() and not path.exists():
            return Detection(path, "unknown", f"a broken link to {path.readlink()}")
        status = path.stat()
        if not stat.S_ISREG(status.st_mode):  # opening a pipe would wait for ever
            return None
        with path.open("rb") as file:
            head = file.read(_HEAD_BYTES)
        return _by_content(path, head, status.st_size)
    except Exception as error:  # one bad file must not hide the others
        return unreadable(path, error)


def _by_content(path: Path, head: bytes, size_bytes: int) -> Detection | None:
    if is_lfs_pointer(head):
        return Detection(path, "unknown", LFS_ADVICE.removeprefix("is "))
    if head.startswith(_GGUF):
        return Detection(path, "GGUF", f"{size_bytes / 1e9:.2g} GB", frozenset({"llama", "tokenizer"}))
    if _is_faiss(head):
        code, width, count = _FAISS.unpack_from(head)
        return Detection(path, "faiss index", f"{count} vectors of width {width}, type {code.decode()}")
    if _is_sentencepiece(head):
        return Detection(path, "tokenizer", "SentencePiece", frozenset({"tokenizer"}))
    if head.startswith(b"{"):
        return _by_json(path, head)
    if head[8:9] == b"{" and struct.unpack_from("<Q", head)[0] < size_bytes:
        return _by_keys(path, read_safetensors(path), is_torch=False)
    if (head.startswith(_ZIP) and b"data.pkl" in head[:300]) or path.suffix in _TORCH_SUFFIXES:
        return _by_torch_content(path, read_torch_file(path))
    if path.suffix in _OTHER_SUFFIXES:
        return Detection(path, "unknown", f"its content isn't that of a {path.suffix} file")
    return None


def _is_faiss(head: bytes) -> bool:
    if len(head) < _FAISS.size:
        return False
    code, width, count = _FAISS.unpack_from(head)
    return _FAISS_CODE.fullmatch(code) is not None and 0 < width <= _MAX_WIDTH and 0 <= count <= _MAX_VECTORS


def _is_sentencepiece(head: bytes) -> bool:
    match = _SENTENCEPIECE.match(head)
    return match is not None and head[match.end() + match[1][0] :].startswith(_SCORE_TAG)


def _by_json(path: Path, head: bytes) -> Detection | None:
    if path.name == PARAMS_FILE:
        return replace(recognise_meta(path.parent), path=path)
    if path.name in SETTINGS_FILES:
        owner = recognise_folder(path.parent)
        return Detection(path, "part of a folder", "settings") if owner else None
    if b'"added_tokens"' in head and b'"version"' in head:
        return Detection(path, "tokenizer", "Hugging Face tokenizer", frozenset({"tokenizer"}))
    return None


def _by_torch_content(path: Path, content: Mapping[str, Any]) -> Detection:
    inner = content.get("model", content)
    tensors = {k: v for k, v in inner.items() if isinstance(v, LazyTensor)} if isinstance(inner, dict) else {}
    if not tensors:
        return Detection(path, "unknown", "a PyTorch file without tensors")
    return _by_keys(path, state_dict_of({"model": tensors}, path), is_torch=True)


def _by_keys(path: Path, tensors: Mapping[str, LazyTensor], *, is_torch: bool) -> Detection:
    if any("image_bind" in name for name in tensors):
        return Detection(path, "ImageBind-LLM baseline", "not MU-LLaMA; plays no part")
    foreign = [name for name in tensors if not name.startswith(_PUBLISHED_PREFIXES)]
    if not foreign or any(name.startswith("mu_mert_") for name in tensors):
        if is_torch:
            return _published(path, tensors, foreign)
        return Detection(path, "unknown", "keys of a MU-LLaMA checkpoint as safetensors; expected the .pth")
    for beginnings, what in _FOLDER_FILES:
        if any(name.startswith(beginnings) for name in tensors):
            return Detection(path, "part of a folder", what)
    return Detection(path, "unknown", f"weights of another model, with keys such as {foreign[0]!r}")


def _published(path: Path, tensors: Mapping[str, LazyTensor], foreign: list[str]) -> Detection:
    there: dict[Part, bool] = {
        "adapter": any(name.startswith("mu_mert_") for name in tensors),
        "llama": "llama.layers.0.attention.wq.weight" in tensors,
        "encoder": any(name.startswith("mert_model.") for name in tensors),
    }
    prefix = tensors.get("prefix_query.weight")
    ranks = sorted({value.shape[0] for name, value in tensors.items() if re.search(r"\.lora_\w+_l1\.weight$", name)})
    phrases = [] if there["adapter"] else ["a delta without the audio adapter"]
    if prefix is not None and len(prefix.shape) == 2:
        phrases.append("{} conditioned layers of width {}".format(*prefix.shape))
    inside: dict[Part, str] = {"llama": "LLaMA", "encoder": "MERT"}
    phrases += [f"{name} inside" for part, name in inside.items() if there[part]]
    phrases += [f"no {name} inside" for part, name in inside.items() if there["adapter"] and not there[part]]
    phrases += [f"LoRA rank {' and '.join(map(str, ranks))}"] if ranks else []
    phrases += [f"with keys that MU-LLaMA doesn't have, such as {foreign[0]!r}"] if foreign else []
    holds = frozenset(part for part, is_there in there.items() if is_there)
    return Detection(path, "published checkpoint", ", ".join(phrases), holds)
