"""MertEncoder: files in, hidden states out, with transformers' HubertModel as the oracle."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import huggingface_hub.constants
import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from mu_llama.audio.waveform import Waveform
from mu_llama.encoders import build_encoder
from mu_llama.encoders.mert.config import PUBLISHED_CONFIGS, parse_mert_config
from mu_llama.encoders.mert.encoder import load_mert, load_mert_from_tensors, normalise, published_config
from mu_llama.errors import AudioError, CheckpointError, ConfigError, ModelNotFoundError

Make = Callable[..., Any]
POS_CONV = "encoder.pos_conv_embed.conv."
VARIANTS = [
    {"do_stable_layer_norm": stable, "feat_extract_norm": norm, "conv_bias": bias}
    for stable, norm, bias in [(True, "group", False), (False, "group", False), (True, "layer", True)]
]


@pytest.mark.parametrize("settings", VARIANTS, ids=str)
def test_states_are_those_of_transformers(
    tiny_mert: Make, sound: Waveform, settings: dict[str, Any], tmp_path: Path
) -> None:
    tiny = tiny_mert(**settings)
    encoder = load_mert(tiny.save(tmp_path / "mert"))
    values = torch.from_numpy(normalise(sound.samples))[None]
    with torch.no_grad():
        output = tiny.model(values, output_hidden_states=True)
    expected = torch.cat([*output.hidden_states[:-1], output.last_hidden_state])  # (L, frames, D)
    torch.testing.assert_close(torch.stack(encoder.hidden_states(sound)), expected, rtol=0, atol=1e-6)
    means = encoder.encode(sound)
    assert means.shape == (encoder.num_layers, encoder.width) == (4, 16)
    assert isinstance(means, np.ndarray)
    np.testing.assert_allclose(means, expected.mean(dim=1).numpy(), rtol=0, atol=1e-6)


def test_last_state_comes_after_the_final_norm(tiny_mert: Make, sound: Waveform) -> None:
    tiny = tiny_mert()
    before = load_mert_from_tensors(tiny.tensors, tiny.config).encode(sound)
    tiny.tensors["encoder.layer_norm.weight"] *= 2
    after = load_mert_from_tensors(tiny.tensors, tiny.config).encode(sound)
    assert np.array_equal(before[:-1], after[:-1])
    assert not np.allclose(before[-1], after[-1], atol=1e-2)


@pytest.mark.parametrize("prefix", ["", "mert_model.", "hubert."])
@pytest.mark.parametrize("file", ["model.safetensors", "shards", "pytorch_model.bin", "old zipless bin"])
def test_every_file_and_spelling_gives_the_same(
    tiny_mert: Make, make_old_spelling: Make, sound: Waveform, tmp_path: Path, prefix: str, file: str
) -> None:
    tiny = tiny_mert()
    reference = load_mert_from_tensors(tiny.tensors, tiny.config)
    tensors = {prefix + name: tensor for name, tensor in make_old_spelling(tiny.tensors).items()}
    folder = tiny.save(tmp_path / "mert", tensors)
    if file != "model.safetensors":
        (folder / "model.safetensors").unlink()
    if file == "shards":
        save_in_shards(tensors, folder)
    elif file == "pytorch_model.bin":
        torch.save(tensors, folder / "pytorch_model.bin")
    elif file == "old zipless bin":
        torch.save(tensors, folder / "pytorch_model.bin", _use_new_zipfile_serialization=False)
    encoder = load_mert(folder)
    assert encoder.fingerprint == reference.fingerprint
    assert np.array_equal(encoder.encode(sound), reference.encode(sound))


def save_in_shards(tensors: dict[str, torch.Tensor], folder: Path) -> None:
    names = sorted(tensors)
    weight_map = {}
    for shard, part in enumerate((names[::2], names[1::2]), start=1):
        file = f"model-0000{shard}-of-00002.safetensors"
        save_file({name: tensors[name] for name in part}, folder / file)
        weight_map |= dict.fromkeys(part, file)
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": weight_map}))


def test_both_spellings_at_once_are_refused(tiny_mert: Make, make_old_spelling: Make) -> None:
    tiny = tiny_mert()
    with pytest.raises(CheckpointError, match=r"original0.*weight_g|weight_g.*original0"):
        load_mert_from_tensors(tiny.tensors | make_old_spelling(tiny.tensors), tiny.config)


def test_missing_and_unknown_tensors_are_named_with_their_nearest(tiny_mert: Make, tmp_path: Path) -> None:
    tiny = tiny_mert()
    tiny.tensors["encoder.layer_normal.bias"] = tiny.tensors.pop("encoder.layer_norm.bias")
    with pytest.raises(CheckpointError) as caught:
        load_mert(tiny.save(tmp_path / "mert"))
    text = str(caught.value)
    assert "model.safetensors" in text
    assert "lacks encoder.layer_norm.bias (nearest: encoder.layer_normal.bias)" in text
    assert "unknown encoder.layer_normal.bias (nearest: encoder.layer_norm.bias" in text


def test_another_shape_is_named_with_both_shapes(tiny_mert: Make, tmp_path: Path) -> None:
    tiny = tiny_mert()
    tiny.config["intermediate_size"] = 32
    with pytest.raises(
        CheckpointError,
        match=r"model\.safetensors.*intermediate_dense\.weight of shape \(24, 16\).*\(32, 16\).*and 4 more",
    ):
        load_mert(tiny.save(tmp_path / "mert"))


def test_a_layer_too_few_in_the_config_is_refused(tiny_mert: Make) -> None:
    tiny = tiny_mert()
    tiny.config["num_hidden_layers"] = 2
    with pytest.raises(CheckpointError, match=r"unknown encoder\.layers\.2\."):
        load_mert_from_tensors(tiny.tensors, tiny.config)


def test_training_only_tensors_are_optional_and_without_effect(tiny_mert: Make) -> None:
    tiny = tiny_mert()
    assert "masked_spec_embed" in tiny.tensors
    with_mask = load_mert_from_tensors(tiny.tensors, tiny.config).fingerprint
    del tiny.tensors["masked_spec_embed"]
    assert load_mert_from_tensors(tiny.tensors, tiny.config).fingerprint == with_mask


def test_dropout_of_the_config_never_acts(tiny_mert: Make, sound: Waveform) -> None:
    tiny = tiny_mert(hidden_dropout=0.5, layerdrop=0.5, feat_proj_dropout=0.5, attention_dropout=0.5)
    encoder = load_mert_from_tensors(tiny.tensors, tiny.config)
    first = encoder.encode(sound)
    encoder.model.train()
    assert np.array_equal(encoder.encode(sound), first)


def test_an_adapter_can_be_trained_on_the_features(tiny_mert: Make, sound: Waveform) -> None:
    tiny = tiny_mert()
    features = load_mert_from_tensors(tiny.tensors, tiny.config).encode(sound)
    weight = torch.ones(16, requires_grad=True)
    (torch.from_numpy(features) * weight).sum().backward()
    assert weight.grad is not None


def test_fingerprint_follows_weights_and_settings(tiny_mert: Make) -> None:
    tiny = tiny_mert()

    def fingerprint(**options: Any) -> str:
        return load_mert_from_tensors(tiny.tensors, tiny.config, **options).fingerprint

    seen = {fingerprint(), fingerprint(dtype=torch.bfloat16)}
    seen.add(fingerprint(preprocessor={"do_normalize": False}))
    tiny.config["layer_norm_eps"] = 1e-6
    seen.add(fingerprint())
    tiny.tensors["encoder.layer_norm.bias"][3] += 1e-6
    seen.add(fingerprint())
    assert len(seen) == 5


@pytest.mark.parametrize(("num_samples", "num_frames"), [(400, 1), (719, 1), (720, 2)])
def test_shortest_windows_keep_the_time_axis(
    tiny_mert: Make, sound: Waveform, num_samples: int, num_frames: int
) -> None:
    tiny = tiny_mert()
    encoder = load_mert_from_tensors(tiny.tensors, tiny.config)
    states = encoder.hidden_states(Waveform(sound.samples[:num_samples], 24000))
    assert {tuple(state.shape) for state in states} == {(num_frames, 16)}


def test_a_window_without_a_frame_is_refused(tiny_mert: Make, sound: Waveform) -> None:
    tiny = tiny_mert()
    encoder = load_mert_from_tensors(tiny.tensors, tiny.config)
    with pytest.raises(AudioError, match=r"399 samples.*at least 400"):
        encoder.encode(Waveform(sound.samples[:399], 24000))


def test_another_rate_is_refused(tiny_mert: Make, sound: Waveform) -> None:
    tiny = tiny_mert()
    encoder = load_mert_from_tensors(tiny.tensors, tiny.config)
    with pytest.raises(AudioError, match="16000 Hz; expected 24000"):
        encoder.encode(Waveform(sound.samples, 16000))


def test_do_normalize_is_honoured(tiny_mert: Make, sound: Waveform) -> None:
    tiny = tiny_mert(feat_extract_norm="layer", conv_bias=True)
    louder = Waveform(sound.samples * 4 + np.float32(0.1), 24000)
    plain = load_mert_from_tensors(tiny.tensors, tiny.config, preprocessor={"do_normalize": False})
    assert not np.allclose(plain.encode(sound), plain.encode(louder), atol=1e-3)
    normalising = load_mert_from_tensors(tiny.tensors, tiny.config)
    np.testing.assert_allclose(normalising.encode(sound), normalising.encode(louder), rtol=0, atol=1e-3)


def test_silence_stays_silence() -> None:
    assert not normalise(np.zeros(400, dtype=np.float32)).any()


@pytest.mark.parametrize(
    ("config", "preprocessor", "rate_hz"),
    [
        ({}, None, 24000),
        ({"sample_rate": 16000}, None, 16000),
        ({"sample_rate": 16000}, {"sampling_rate": 24000}, 24000),
        ({"model_type": "hubert"}, None, 16000),
    ],
)
def test_where_the_rate_comes_from(config: dict[str, Any], preprocessor: dict[str, Any] | None, rate_hz: int) -> None:
    assert parse_mert_config(config, preprocessor=preprocessor).rate_hz == rate_hz


@pytest.mark.parametrize(
    ("config", "match"),
    [
        ({"deepnorm": True}, "deepnorm=True, which scales residuals"),
        ({"feature_extractor_cqt": True}, "feature_extractor_cqt=True.*constant-Q"),
        ({"model_type": "llama"}, "model_type 'llama'; expected mert_model or hubert"),
        ({"hidden_size": "wide"}, "doesn't describe a HuBERT.*hidden_size"),
        ({"conv_kernel": [10, 3]}, "doesn't describe a HuBERT"),
        ({"sample_rate": 0}, "rate 0"),
    ],
)
def test_refused_configs(config: dict[str, Any], match: str) -> None:
    with pytest.raises(CheckpointError, match=match):
        parse_mert_config(config)


@pytest.mark.parametrize("setting", [{"feat_extract_norm": "batch"}, {"hidden_act": "x"}, {"num_attention_heads": 3}])
def test_configs_that_make_no_model(tiny_mert: Make, setting: dict[str, Any]) -> None:
    tiny = tiny_mert()
    with pytest.raises(CheckpointError, match="makes no model"):
        load_mert_from_tensors(tiny.tensors, tiny.config | setting)


def test_attention_relax_and_auto_map_are_without_effect(tiny_mert: Make) -> None:
    tiny = tiny_mert()
    before = load_mert_from_tensors(tiny.tensors, tiny.config).fingerprint
    tiny.config |= {"attention_relax": 32.0, "auto_map": {"AutoModel": "modeling_MERT.MERTModel"}}
    assert load_mert_from_tensors(tiny.tensors, tiny.config).fingerprint == before


def test_a_pickle_with_code_is_refused(tiny_mert: Make, tmp_path: Path) -> None:
    folder = tiny_mert().save(tmp_path / "mert")
    (folder / "model.safetensors").unlink()
    torch.save({"weight": Path("/")}, folder / "pytorch_model.bin")
    with pytest.raises(CheckpointError, match="can't be read as plain tensors"):
        load_mert(folder)


@pytest.mark.parametrize("name", ["model.safetensors", "pytorch_model.bin"])
def test_damaged_weights_are_refused(tiny_mert: Make, tmp_path: Path, name: str) -> None:
    folder = tiny_mert().save(tmp_path / "mert")
    whole = folder / "model.safetensors"
    if name == "pytorch_model.bin":
        torch.save({"a": torch.zeros(4000)}, folder / name)
        whole.unlink()
    (folder / name).write_bytes((folder / name).read_bytes()[:-2000])
    with pytest.raises(CheckpointError, match=name):
        load_mert(folder)


def test_a_shard_outside_of_the_folder_is_refused(tiny_mert: Make, tmp_path: Path) -> None:
    folder = tiny_mert().save(tmp_path / "mert")
    (folder / "model.safetensors").rename(tmp_path / "model.safetensors")
    index = {"weight_map": {"a": "../model.safetensors"}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    with pytest.raises(CheckpointError, match="without folders"):
        load_mert(folder)


@pytest.mark.parametrize("missing", ["config.json", "model.safetensors"])
def test_missing_files_are_named(tiny_mert: Make, tmp_path: Path, missing: str) -> None:
    folder = tiny_mert().save(tmp_path / "mert")
    (folder / missing).unlink()
    with pytest.raises(ModelNotFoundError, match=missing):
        load_mert(folder)


@pytest.mark.parametrize("name", ["/no/such/folder", "nowhere", "somebody/not-in-the-cache"])
def test_unknown_names_are_refused_without_a_network(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(ModelNotFoundError, match=name):
        load_mert(name)


@pytest.mark.parametrize("name", PUBLISHED_CONFIGS)
def test_published_sizes_are_recognised(name: str) -> None:
    width = PUBLISHED_CONFIGS[name]["hidden_size"]
    found = published_config({"mert_model.encoder.layer_norm.weight": torch.zeros(width)})
    assert found == PUBLISHED_CONFIGS[name]
    parsed = parse_mert_config(found)
    assert (parsed.rate_hz, parsed.min_samples) == (24000, 400)
    with pytest.raises(CheckpointError, match=r"width 5; expected one of 1024 .*768"):
        published_config({"encoder.layer_norm.weight": torch.zeros(5)})


def test_importing_the_registry_loads_no_torch() -> None:
    code = "import sys, mu_llama.encoders; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_registry_builds_by_kind(tiny_mert: Make, tmp_path: Path) -> None:
    folder = tiny_mert().save(tmp_path / "mert")
    encoder = build_encoder({"kind": "mert", "path": str(folder)})
    assert (encoder.name, encoder.fingerprint) == ("mert", load_mert(folder).fingerprint)
    assert build_encoder({"kind": "musicnn"}).name == "musicnn"


@pytest.mark.parametrize(
    ("spec", "match"),
    [
        ({"kind": "mertt"}, "did you mean mert"),
        ({}, "expected one of mert, musicnn"),
        ({"kind": "mert"}, "missing a required (keyword-only )?argument: 'path'"),
        ({"kind": "mert", "path": "x", "pth": "y"}, "unexpected keyword argument 'pth'.*path, device, dtype"),
        ({"kind": "mert", "path": "x", "dtype": "int4"}, "expected one of float32"),
    ],
)
def test_registry_refuses_bad_specs(spec: dict[str, Any], match: str) -> None:
    with pytest.raises(ConfigError, match=match):
        build_encoder(spec)
