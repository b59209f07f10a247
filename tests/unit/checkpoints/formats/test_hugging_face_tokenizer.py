"""Which of a folder's tokenizers is taken: the one that fits the embeddings, added tokens included."""

from __future__ import annotations

import json
import shutil
import warnings
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AddedToken, AutoTokenizer

from mu_llama.checkpoints.convert import ConvertOptions, convert_to_folder, convert_to_gguf
from mu_llama.checkpoints.formats.gguf import read_gguf_llama
from mu_llama.checkpoints.formats.hugging_face import read_llama_folder
from mu_llama.checkpoints.formats.hugging_face_tokenizer import find_tokenizer
from mu_llama.checkpoints.formats.sentencepiece import parse_bpe_model, serialise_bpe_model
from mu_llama.checkpoints.load import find_parts, open_tokenizer
from mu_llama.engine.sampling import GenerationOptions
from mu_llama.errors import CheckpointError
from mu_llama.inference.pretrained import load
from mu_llama.text.prompts import ALPACA_PUBLISHED
from mu_llama.text.tokenizer import SentencePieceTokenizer, parse_sentencepiece

SET_A = Path(__file__).parents[3] / "golden" / "set_a"
CHECKPOINT = SET_A / "checkpoint_finetune_namespace.pth"
NUM_TOKENS = 480
TEXT = "What is the mood of the music? [PAD] <extra> é"


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A LLaMA folder with both tokenizer files, as transformers writes it."""
    folder = tmp_path_factory.mktemp("base")
    parts = find_parts(CHECKPOINT, llama=SET_A / "llama", encoder=SET_A / "mert", home=folder)
    convert_to_folder(parts, folder / "model", ConvertOptions())
    return folder / "model" / "llama"


@pytest.fixture
def folder(base: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(base, tmp_path / "llama"))


def resize(folder: Path, num_embeddings: int, **settings: Any) -> None:
    """Give the LLaMA other embeddings; new rows are zeros."""
    from safetensors.torch import load_file, save_file

    tensors = load_file(folder / "model.safetensors")
    for name in ("model.embed_tokens.weight", "lm_head.weight"):
        rows = torch.zeros(num_embeddings, tensors[name].shape[1])
        common = min(num_embeddings, tensors[name].shape[0])
        rows[:common] = tensors[name][:common]
        tensors[name] = rows
    save_file(tensors, folder / "model.safetensors")
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "vocab_size": num_embeddings, **settings}))


def add_tokens(folder: Path, *tokens: str, special: bool = True) -> None:
    """Add tokens as people do with transformers: to its files, not to tokenizer.model."""
    tokenizer = AutoTokenizer.from_pretrained(folder)
    content = (folder / "tokenizer.model").read_bytes()
    tokenizer.add_tokens([AddedToken(token, special=special) for token in tokens])
    tokenizer.save_pretrained(folder)
    (folder / "tokenizer.model").write_bytes(content)


def opened(folder: Path) -> Any:
    return open_tokenizer(read_llama_folder(folder), ALPACA_PUBLISHED)


def only_model_file(folder: Path) -> None:
    for name in ("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json"):
        (folder / name).unlink(missing_ok=True)


@pytest.mark.parametrize("where", ["everywhere", "added_tokens.json", "tokenizer_config.json", "tokenizer.json alone"])
@pytest.mark.parametrize("num_embeddings", [NUM_TOKENS + 1, 512])
def test_one_added_token_fits(where: str, num_embeddings: int, folder: Path, tmp_path: Path) -> None:
    original = parse_sentencepiece((folder / "tokenizer.model").read_bytes(), source="tokenizer.model")
    add_tokens(folder, "[PAD]")
    resize(folder, num_embeddings, pad_token_id=NUM_TOKENS)
    if where == "added_tokens.json":
        only_model_file(folder)
        (folder / "added_tokens.json").write_text(json.dumps({"[PAD]": NUM_TOKENS}))
    elif where == "tokenizer_config.json":
        only_model_file(folder)
        decoder = {"0": {"content": "<unk>", "special": True}, str(NUM_TOKENS): {"content": "[PAD]", "special": True}}
        (folder / "tokenizer_config.json").write_text(json.dumps({"added_tokens_decoder": decoder}))
    elif where == "tokenizer.json alone":
        (folder / "tokenizer.model").unlink()
    tokenizer = opened(folder)
    assert tokenizer.vocab_size == NUM_TOKENS + 1
    assert tokenizer.decode([NUM_TOKENS, *original.encode("music"), num_embeddings - 1]).strip() == "music"
    text = TEXT.replace("[PAD] ", "") if where == "tokenizer.json alone" else TEXT
    assert tokenizer.encode_prompt(text) == original.encode_prompt(text)
    assert NUM_TOKENS not in tokenizer.encode_prompt(tokenizer.without_special(TEXT))
    parts = find_parts(CHECKPOINT, llama=folder, encoder=SET_A / "mert", home=tmp_path)
    convert_to_folder(parts, tmp_path / "model", ConvertOptions())
    again = opened(tmp_path / "model" / "llama")
    assert again.vocab_size == NUM_TOKENS + 1
    assert again.encode_prompt(text) == tokenizer.encode_prompt(text)
    if where != "tokenizer.json alone":
        convert_to_gguf(parts, tmp_path / "llama.gguf", ConvertOptions())
        stored = open_tokenizer(read_gguf_llama(tmp_path / "llama.gguf"), ALPACA_PUBLISHED)
        assert stored.vocab_size == num_embeddings
        assert stored.encode_prompt(text) == tokenizer.encode_prompt(text)


def test_the_model_answers_with_it(folder: Path, tmp_path: Path) -> None:
    add_tokens(folder, "[PAD]")
    resize(folder, NUM_TOKENS + 1)
    options = GenerationOptions(max_new_tokens=4)
    audio = SET_A / "audio_short.wav"
    answers = [
        load(CHECKPOINT, llama=llama, encoder=SET_A / "mert", dtype="fp32", use_cache=False)
        .ask(audio, "What is it?", options=options)
        .text
        for llama in (SET_A / "llama", folder)
    ]
    assert answers[0] == answers[1]


def test_an_added_end_token_ends_answers(folder: Path) -> None:
    add_tokens(folder, "<|im_end|>")
    resize(folder, NUM_TOKENS + 1, eos_token_id=[2, NUM_TOKENS, 99_999])
    assert opened(folder).eos_ids == frozenset({2, NUM_TOKENS})


def test_an_added_word_is_read_from_text(folder: Path) -> None:
    add_tokens(folder, "<extra>", special=False)
    resize(folder, NUM_TOKENS + 1)
    tokenizer = opened(folder)
    assert isinstance(tokenizer, SentencePieceTokenizer)
    assert NUM_TOKENS in tokenizer.encode(TEXT)
    assert tokenizer.decode(tokenizer.encode(TEXT)) == TEXT


def test_tokens_that_were_added_without_embeddings_are_left_out(folder: Path) -> None:
    add_tokens(folder, "[PAD]")
    tokenizer = opened(folder)
    assert isinstance(tokenizer, SentencePieceTokenizer)
    assert tokenizer.vocab_size == NUM_TOKENS


def test_gaps_and_names_twice_are_unused_pieces(folder: Path) -> None:
    (folder / "added_tokens.json").write_text(json.dumps({"</s>": NUM_TOKENS, "[PAD]": NUM_TOKENS + 2, "<unk>": 0}))
    resize(folder, NUM_TOKENS + 3)
    tokenizer = opened(folder)
    assert tokenizer.vocab_size == NUM_TOKENS + 3
    assert tokenizer.encode_prompt(TEXT) == parse_sentencepiece(
        (folder / "tokenizer.model").read_bytes(), source="tokenizer.model"
    ).encode_prompt(TEXT)


def test_tokenizer_json_is_taken_where_it_alone_fits(folder: Path) -> None:
    """As in folders whose tokenizer.model was left behind by an earlier model, or is of another kind."""
    pieces = parse_bpe_model((folder / "tokenizer.model").read_bytes(), source="it").pieces
    larger = serialise_bpe_model(parse_bpe_model((folder / "tokenizer.model").read_bytes(), source="it"))
    for content in (larger + larger[: larger.index(b"\x12", 2000)], b"IQ== 0\nIg== 1\n"):
        (folder / "tokenizer.model").write_bytes(content)
        assert find_tokenizer(folder, num_embeddings=len(pieces)).name == "tokenizer.json"


@pytest.mark.parametrize("names", [["tokenizer.model"], ["tokenizer.json"], ["tokenizer.model", "tokenizer.json"]])
def test_a_larger_tokenizer_is_another_llamas(names: list[str], folder: Path) -> None:
    resize(folder, NUM_TOKENS - 1)
    for name in {"tokenizer.model", "tokenizer.json"} - set(names):
        (folder / name).unlink()
    with pytest.raises(CheckpointError, match=f"{names[0]} with {NUM_TOKENS} tokens.* has {NUM_TOKENS - 1} embeddings"):
        read_llama_folder(folder)


def test_a_far_smaller_one_is_dubious(folder: Path) -> None:
    resize(folder, 2048)
    with pytest.warns(UserWarning, match="only 480 tokens, the LLaMA has 2048 embeddings"):
        opened(folder)
    resize(folder, 640)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        opened(folder)


@pytest.mark.parametrize(
    "content", ["{", "[]", '{"[PAD]": "x"}', '{"[PAD]": -1}', '{"added_tokens_decoder": [1]}', '{"added_tokens": {}}']
)
@pytest.mark.parametrize("name", ["added_tokens.json", "tokenizer_config.json", "tokenizer.json"])
def test_damaged_lists_are_no_traceback(content: str, name: str, folder: Path) -> None:
    resize(folder, 512)
    (folder / name).write_text(content)
    with suppress(CheckpointError):
        assert opened(folder).vocab_size == NUM_TOKENS
