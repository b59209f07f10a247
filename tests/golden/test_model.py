"""Adapter, neighbour blend, conditioned LLaMA and greedy text equal the reference's."""

from __future__ import annotations

import re
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from mu_llama.checkpoints.formats.faiss import read_faiss_flat
from mu_llama.checkpoints.formats.meta import find_meta_folder, read_meta_tensors
from mu_llama.checkpoints.formats.published import read_published
from mu_llama.encoders.mert.encoder import load_mert
from mu_llama.engine.sampling import nucleus
from mu_llama.engine.torch.engine import TorchEngine
from mu_llama.engine.torch.llama import MuLlama
from mu_llama.engine.torch.load import Placement, assemble
from mu_llama.model.retrieval import Blend, BlendOptions, NeighbourBlend
from mu_llama.text.prompts import ALPACA_PUBLISHED, Turn
from mu_llama.text.tokenizer import SentencePieceTokenizer, parse_sentencepiece
from tests.factories.generation import generate
from tests.factories.published import published_parts

ATOL = 2e-4
LOGITS_ATOL = 3e-4
"""From the golden README's table of tolerances."""

FILES = {
    "finetune": ["checkpoint_finetune.pth"],
    "pretrain": ["checkpoint_pretrain.pth"],
    "legacy": ["checkpoint_pretrain_legacy_bridge.pth"],
    "finetune_altrank": ["checkpoint_pretrain.pth", "checkpoint_finetune_delta_altrank.pth"],
    "namespace": ["checkpoint_finetune_namespace.pth"],
    "sharded": ["checkpoint_finetune_namespace.pth"],
}
"""The checkpoints a model name in the goldens stands for, later ones over earlier ones."""
LLAMA_FOLDERS = {"sharded": "llama-sharded"}
"""Where the LLaMA isn't in the folder `llama`."""
KNN_MODEL = re.compile(r"finetune_knn_w(?P<weight>[\d.]+)")
INFER = r"infer/(?P<model>[\w.]+)/(?P<audio>\w+)/p(?P<prompt>\d+)/"


def read_tokenizer(folder: Path) -> SentencePieceTokenizer:
    path = folder / "llama" / "tokenizer.model"
    return parse_sentencepiece(path.read_bytes(), source=path.name)


class Models:
    """Opens the models, features and prompts of one golden set, each once."""

    def __init__(self, golden: Any) -> None:
        self.golden = golden
        self.open = cache(self._open)
        self.features = cache(self._features)
        self.encoder = load_mert(golden.path / "mert", device=golden.device)
        self.tokenizer = read_tokenizer(golden.path)

    def _open(self, name: str) -> MuLlama:
        files = [self.golden.path / file for file in FILES[name]]
        llama = LLAMA_FOLDERS.get(name, "llama")
        parts = published_parts(files, llama=self.golden.path / llama, encoder=self.golden.path / "mert")
        return assemble(parts, Placement(self.golden.device, torch.float32))

    def _features(self, audio: str) -> torch.Tensor:
        num_windows = len(self.golden.json["audio"][audio]["window_lengths"])
        windows = [self.encoder.encode(self.golden.window(audio, index)) for index in range(num_windows)]
        return torch.from_numpy(np.stack(windows)).mean(dim=0)[None].to(self.golden.device)  # (1, L, D)

    def blend(self, *, size: int, sharpness: float, weight: float) -> Blend:
        vectors = read_faiss_flat(self.golden.path / "knn" / "knn.index")
        return NeighbourBlend(vectors, BlendOptions(weight=weight, num_neighbours=size, sharpness=sharpness))

    @torch.inference_mode()
    def conditioned(self, name: str, audio: str) -> tuple[MuLlama, torch.Tensor | None]:
        """The model that a golden name means, and its conditioning on an audio."""
        if match := KNN_MODEL.fullmatch(name):
            model = self.open("finetune")
            blend = self.blend(size=10, sharpness=20.0, weight=float(match["weight"]))
            return model, model.condition(self.features(audio), blend=blend)
        model = self.open(name)
        if audio == "no_audio":
            return model, None
        return model, model.condition(self.features(audio))

    def prompt(self, index: int) -> list[int]:
        text = ALPACA_PUBLISHED.render([Turn(self.golden.json["prompts"][index]["question"])])
        return self.tokenizer.encode_prompt(text)


@pytest.fixture(scope="module")
def models(golden: Any) -> Models:
    return Models(golden)


def assert_close(actual: torch.Tensor, expected: torch.Tensor, *, atol: float) -> None:
    torch.testing.assert_close(actual.cpu().flatten(), expected.flatten(), rtol=0, atol=atol)


def test_sizes_come_from_the_weights(golden: Any, models: Models) -> None:
    model, config = models.open("finetune"), golden.config
    assert model.adapter.config.num_conditioned_layers == config["query_layer"]
    assert model.adapter.config.bridge_width == config["bridge_ffn"]
    assert model.adapter.config.num_encoder_layers == config["n_hidden_states"]
    assert model.llama.config.intermediate_size == config["llama_ffn_hidden"]
    assert model.llama.config.vocab_size == config["vocab_size"]
    assert model.llama.config.head_dim == config["head_dim"]


@pytest.mark.golden_keys(r"encode/(?P<audio>(?!legacy|edge)\w+)/agg")
def test_aggregated_feature(golden: Any, models: Models, golden_key: re.Match[str]) -> None:
    mixed = models.open("finetune").adapter.mix(models.features(golden_key["audio"]))
    assert_close(mixed, golden.expected[golden_key[0]], atol=ATOL * golden.slack)


@pytest.mark.golden_keys(r"encode/legacy/(?P<audio>\w+)/agg")
def test_aggregated_feature_of_the_legacy_checkpoint(golden: Any, models: Models, golden_key: re.Match[str]) -> None:
    mixed = models.open("legacy").adapter.mix(models.features(golden_key["audio"]))
    assert_close(mixed, golden.expected[golden_key[0]], atol=ATOL * golden.slack)


@pytest.mark.golden_keys(r"forward_audio/(?P<legacy>legacy/)?(?P<audio>\w+)/noknn(?:_weight_(?P<weight>[\d.]+))?/out")
def test_audio_vector(golden: Any, models: Models, golden_key: re.Match[str]) -> None:
    adapter = models.open("legacy" if golden_key["legacy"] else "finetune").adapter
    pooled = adapter.pool(models.features(golden_key["audio"]), weight=float(golden_key["weight"] or 1.0))
    stem = golden_key[0].removesuffix("out")
    for part, actual in (
        ("features", pooled),
        ("projected", adapter.projection(pooled)),
        ("out", adapter.bridge(pooled)),
    ):
        if stem + part in golden.expected:
            assert_close(actual, golden.expected[stem + part], atol=ATOL * golden.slack)


@pytest.mark.golden_keys(
    r"forward_audio/(?P<audio>\w+)/knn_size(?P<size>\d+)_t(?P<sharpness>[\d.]+)_w(?P<weight>[\d.]+)/out"
)
def test_audio_vector_with_neighbours(golden: Any, models: Models, golden_key: re.Match[str]) -> None:
    adapter = models.open("finetune").adapter
    options = {name: float(golden_key[name]) for name in ("sharpness", "weight")}
    pooled = adapter.pool(models.features(golden_key["audio"]))
    blended = torch.from_numpy(models.blend(size=int(golden_key["size"]), **options)(pooled.numpy(force=True))).to(
        pooled.device
    )
    assert_close(blended, golden.expected[golden_key[0].removesuffix("out") + "features"], atol=ATOL * golden.slack)
    assert_close(adapter.bridge(blended), golden.expected[golden_key[0]], atol=ATOL * golden.slack)


@pytest.mark.golden_keys(r"knn/(?P<audio>\w+)/top(?P<size>\d+)_indices")
def test_neighbour_search(golden: Any, models: Models, golden_key: re.Match[str]) -> None:
    query = models.open("finetune").adapter.pool(models.features(golden_key["audio"])).numpy(force=True)
    size = int(golden_key["size"])
    index = NeighbourBlend(read_faiss_flat(golden.path / "knn" / "knn.index"), BlendOptions())
    similarities, indices = index.search(query, num_neighbours=size)
    assert indices.tolist() == golden.expected[golden_key[0]].tolist()
    expected = golden.expected[golden_key[0].replace("indices", "sims")]
    assert_close(torch.from_numpy(similarities), expected, atol=ATOL * golden.slack)


@pytest.mark.golden_keys(INFER + r"(?P<which>full_logits|last_logits|last(?P<count>\d+)_logits)")
@torch.inference_mode()
def test_logits_without_cache(golden: Any, models: Models, golden_key: re.Match[str]) -> None:
    model, conditioning = models.conditioned(golden_key["model"], golden_key["audio"])
    ids = torch.tensor([models.prompt(int(golden_key["prompt"]))], device=golden.device)
    logits = model(ids, conditioning=conditioning)[0]
    expected = golden.expected[golden_key[0]]
    assert_close(logits[-len(expected) :], expected, atol=LOGITS_ATOL * golden.slack)


@pytest.mark.golden_keys(INFER + "greedy_step_logits")
@torch.inference_mode()
def test_logits_with_cache(golden: Any, models: Models, golden_key: re.Match[str]) -> None:
    model, conditioning = models.conditioned(golden_key["model"], golden_key["audio"])
    cache = model.new_cache()
    ids = torch.tensor([models.prompt(int(golden_key["prompt"]))], device=golden.device)
    for expected in golden.expected[golden_key[0]]:
        logits = model(ids, conditioning=conditioning, past_key_values=cache, logits_to_keep=1)[0, -1]
        assert_close(logits, expected, atol=LOGITS_ATOL * golden.slack)
        ids = logits.argmax().reshape(1, 1)


def test_greedy_tokens(golden: Any, models: Models) -> None:
    assert golden.json["greedy"]
    for case in golden.json["greedy"]:
        model, conditioning = models.conditioned(case["model"], case["audio"])
        [ids] = generate(
            TorchEngine(model),
            [models.prompt(case["prompt"])],
            [conditioning[0].numpy(force=True)],
            eos_ids=models.tokenizer.eos_ids,
            max_new_tokens=case["max_gen_len"],
        )
        assert ids == case["token_ids"], case
        assert models.tokenizer.decode(ids) == case["text"]


@pytest.mark.parametrize("other_name", ["namespace", "sharded"])
def test_the_same_model_in_other_files(models: Models, other_name: str) -> None:
    one, other = models.open("finetune").state_dict(), models.open(other_name).state_dict()
    assert one.keys() == other.keys()
    assert all(torch.equal(one[name], other[name]) for name in one)


def test_old_key_prefix_names_the_same_tensors(golden: Any) -> None:
    path = golden.path / "checkpoint_old_llma_keys.pth"
    old, new = read_published([path]), read_published([golden.path / "checkpoint_pretrain.pth"])
    assert set(old.gates) == set(new.gates)
    renamed = {f"llama.layers.{layer}.attention.gate" for layer in old.gates} | set(old.adapter)
    assert renamed == set(golden.json["llma_key_renaming"].values())


def test_sharded_llama_is_the_same(golden: Any) -> None:
    whole = read_meta_tensors(find_meta_folder(golden.path / "llama").shards, golden.path)
    shards = find_meta_folder(golden.path / "llama-sharded").shards
    joined = read_meta_tensors(shards, golden.path)
    assert len(shards) > 1
    assert whole.keys() == joined.keys()
    assert all(np.array_equal(whole[name].read(), joined[name].read()) for name in whole)


def test_prompt_text_and_ids(golden: Any, models: Models) -> None:
    for question, text in golden.json["format_prompt"].items():
        assert ALPACA_PUBLISHED.render([Turn(question)]) == text
    for index, case in enumerate(golden.json["prompts"]):
        assert models.prompt(index) == case["ids"]


def test_tokenizer(golden: Any) -> None:
    tokenizer: SentencePieceTokenizer = read_tokenizer(golden.path)
    expected = golden.json["tokenizer"]
    assert tokenizer.vocab_size == expected["n_words"]
    assert (tokenizer.bos_id, tokenizer.eos_id) == (expected["bos"], expected["eos"])
    for case in expected["encode"]:
        assert tokenizer.encode(case["text"]) == case["ids"]
        assert tokenizer.encode_prompt(case["text"]) == case["ids_bos_eos"][:-1]
        assert tokenizer.decode(case["ids"]) == case["decoded"]


def test_nucleus(golden: Any) -> None:
    logits = golden.expected["infer/finetune/short/p0/last_logits"][0]
    for case in golden.json["top_p"]:
        ids, probabilities = nucleus(logits, temperature=case["temperature"], top_p=case["top_p"])
        if not case["kept_set_depends_on_fp32_rounding"]:
            assert ids.tolist() == case["kept_ids"]
        num_common = min(len(ids), len(case["kept_ids"]))
        expected = torch.tensor(case["kept_probs"])[:num_common]
        assert_close(probabilities[:num_common], expected, atol=1e-6)


def test_golden_files_are_all_there(golden: Any) -> None:
    files = {Path(file) for names in FILES.values() for file in names}
    assert all((golden.path / file).is_file() for file in files)
