"""MusiCNN against TensorFlow, and the promises of its encoder."""

from __future__ import annotations

import json
import multiprocessing
import os
import subprocess
import sys
import tracemalloc
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from onnx import numpy_helper

from mu_llama.audio.waveform import Waveform
from mu_llama.encoders.musicnn.encoder import MusicnnEncoder, build_musicnn, normalised, patch_plan
from mu_llama.encoders.musicnn.graph import variant_graph
from mu_llama.encoders.musicnn.log_mel import FFT_SIZE, HOP, LogMel
from mu_llama.encoders.musicnn.network import PATCH_FRAMES, MusicnnNetwork
from mu_llama.encoders.musicnn.weights import MusicnnWeights, Variant, read_musicnn_weights
from mu_llama.encoders.protocol import Encoder
from mu_llama.errors import AudioError, CheckpointError, ConfigError
from tests.factories.musicnn import plain_network
from tests.unit.encoders.synthesised_music import synthesise

EXPECTED = json.loads(Path(__file__).with_name("musicnn_expected.json").read_text())


@pytest.fixture(scope="module")
def weights() -> MusicnnWeights:
    return read_musicnn_weights()


@pytest.fixture(scope="module")
def encoder(weights: MusicnnWeights) -> MusicnnEncoder:
    return MusicnnEncoder(weights)


@pytest.fixture(scope="module")
def raw(weights: MusicnnWeights) -> MusicnnEncoder:
    """The encoder as the original hears: without level normalisation."""
    return MusicnnEncoder(weights, normalise_level=False)


def clip(style: str, duration_s: float, gain: float = 1.0, seed: int = 0) -> Waveform:
    return Waveform((gain * synthesise(style, duration_s, seed=seed)).astype(np.float32), 16000)


@pytest.mark.parametrize("expected", EXPECTED["clips"], ids=lambda expected: expected["style"])
@pytest.mark.parametrize(("kind", "tolerance"), [("float32", 1e-5), ("float16_cast", 2e-4)])
def test_tags_equal_tensorflow(raw: MusicnnEncoder, expected: dict, kind: str, tolerance: float) -> None:
    window = clip(expected["style"], expected["duration_s"], expected["gain"], expected["seed"])
    tags = raw.encode_patches(window).tag_probabilities
    for place, variant in enumerate(("msd", "mtt")):
        truth = np.array([[float(value) for value in line.split()] for line in expected[kind][variant]])
        assert len(truth) >= 3
        assert truth.max() > 0.2  # otherwise equality would say little
        ours = tags[: len(truth), 50 * place : 50 * (place + 1)]  # the original has no patch at the end
        np.testing.assert_allclose(ours, truth, rtol=0, atol=tolerance)


def test_tag_names_stand_in_order(raw: MusicnnEncoder) -> None:
    assert raw.tag_names[:2] == ("msd:rock", "msd:pop")
    assert raw.tag_names[50:52] == ("mtt:guitar", "mtt:classical")
    best = raw.encode_patches(clip("club", 12.5, 0.2)).averaged().tag_probabilities[0].argmax()
    assert raw.tag_names[int(best)] == "mtt:techno"


def test_it_is_an_encoder(encoder: MusicnnEncoder) -> None:
    as_protocol: Encoder = encoder
    features = as_protocol.encode(clip("band", 4))
    assert features.shape == (as_protocol.num_layers, as_protocol.width) == (1, 500)
    assert features.dtype == np.float32


def random_patches(num_patches: int) -> np.ndarray:
    return np.random.default_rng(0).random((num_patches, PATCH_FRAMES, 96), np.float32) * 4


def test_batch_equals_patch_by_patch(encoder: MusicnnEncoder) -> None:
    patches = random_patches(3)
    together = encoder._network(patches)
    for place, patch in enumerate(patches):
        alone = encoder._network(patch[None])
        np.testing.assert_allclose(alone.tag_logits[0], together.tag_logits[place], rtol=1e-5, atol=1e-5)
        np.testing.assert_allclose(alone.pooled[0], together.pooled[place], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("variant", ["msd", "mtt"])
@pytest.mark.parametrize(("style", "gain"), [("chamber", 1.0), ("club", 3.0)])
def test_the_graph_equals_the_network_layer_by_layer(
    weights: MusicnnWeights, raw: MusicnnEncoder, variant: Variant, style: str, gain: float
) -> None:
    """The oracle runs every filter, in float64."""
    spectrogram = raw._spectrogram(clip(style, 6, gain).samples)
    patches = np.stack([spectrogram[:PATCH_FRAMES], spectrogram[-PATCH_FRAMES:]])
    ours = MusicnnNetwork([weights.graph(variant)])(patches)
    truth = plain_network(weights.of_variant(variant), torch.from_numpy(patches).double())
    np.testing.assert_allclose(ours.tag_probabilities, truth["tag_logits"].sigmoid(), rtol=0, atol=1e-5)
    np.testing.assert_allclose(ours.penultimate, truth["penultimate"], rtol=0, atol=1e-5)
    for part in ("tag_logits", "pooled"):
        largest = float(truth[part].abs().max())
        np.testing.assert_allclose(getattr(ours, part), truth[part], rtol=0, atol=1e-5 * largest)


def test_the_spectrogram_equals_torchs(weights: MusicnnWeights) -> None:
    filters = weights.tensors["mel_filters"]
    samples = clip("band", 12.34).samples
    spectrum = torch.stft(
        torch.from_numpy(samples), FFT_SIZE, HOP, window=torch.hann_window(FFT_SIZE), center=True,
        pad_mode="constant", return_complex=True,
    )  # fmt: skip
    expected = (torch.tensor(filters) @ spectrum.abs().square()).mul(10000).log1p().div(np.log(10)).T
    ours = LogMel(filters)(samples)
    assert ours.dtype == np.float32
    np.testing.assert_allclose(ours, expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize("variant", ["msd", "mtt"])
def test_the_graph_in_the_package_is_made_of_the_weights_in_it(weights: MusicnnWeights, variant: Variant) -> None:
    shipped, made = (
        onnx.load_model_from_string(graph)
        for graph in (weights.graphs[variant], variant_graph(weights.of_variant(variant)))
    )
    for ours, theirs in zip(shipped.graph.initializer, made.graph.initializer, strict=True):
        assert (ours.name, list(ours.dims)) == (theirs.name, list(theirs.dims))
        arrays = [numpy_helper.to_array(tensor) for tensor in (ours, theirs)]
        np.testing.assert_allclose(*arrays, rtol=1e-4, atol=1e-6, err_msg="run python -m recipes.musicnn.graphs")
    for model in (shipped, made):
        del model.graph.initializer[:]
    assert shipped == made, "run python -m recipes.musicnn.graphs"


def test_other_weights_get_a_graph_of_their_own(weights: MusicnnWeights) -> None:
    changed = {**weights.tensors, "mtt.tags.bias": weights.tensors["mtt.tags.bias"] + 1}
    other = MusicnnEncoder(MusicnnWeights(changed, weights.tag_names, "0" * 64), variants=("mtt",))
    ours = MusicnnEncoder(weights, variants=("mtt",))
    window = clip("band", 3)
    difference = other.encode_patches(window).tag_logits - ours.encode_patches(window).tag_logits
    np.testing.assert_allclose(difference, 1, atol=1e-4)


@pytest.mark.parametrize("damage", [lambda graph: graph[:-1000], lambda graph: b"", lambda graph: b"no graph" * 9])
def test_a_damaged_graph_says_so(weights: MusicnnWeights, damage: object) -> None:
    damaged = replace(weights, graphs={variant: damage(graph) for variant, graph in weights.graphs.items()})  # type: ignore[operator]
    with pytest.raises(CheckpointError, match=r"^MusiCNN's graph is damaged \([^\n]*\): reinstall mu-llama$"):
        MusicnnEncoder(damaged)


def test_threads_change_nothing(weights: MusicnnWeights) -> None:
    window = clip("band", 13)
    one, three = (MusicnnEncoder(weights, threads=threads).encode(window) for threads in (1, 3))
    assert np.array_equal(one, three)
    with pytest.raises(ConfigError, match="threads are 0; expected at least 1"):
        MusicnnEncoder(weights, threads=0)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="processes aren't forked here")
def test_a_forked_process_encodes(weights: MusicnnWeights) -> None:
    window, context = clip("band", 7), multiprocessing.get_context("fork")
    encoder, queue = MusicnnEncoder(weights, threads=2), context.Queue()
    expected = encoder.encode(window)
    process = context.Process(target=lambda: queue.put(encoder.encode(window)), daemon=True)
    process.start()
    assert np.array_equal(queue.get(timeout=30), expected)
    process.join(30)


def test_memory_stays_small_on_ten_minutes(encoder: MusicnnEncoder) -> None:
    """Besides the level, which takes two copies of the samples, one spectrogram; patches are views of it."""
    samples = np.random.default_rng(0).random(600 * 16000, np.float32)
    tracemalloc.start()
    spectrogram = encoder._spectrogram(samples)
    _, peak_bytes = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak_bytes < 4 * samples.nbytes
    assert spectrogram.nbytes < samples.nbytes


ALONE = """
import io, sys, wave
import numpy as np
from mu_llama.audio.read import read_audio
from mu_llama.encoders import build_encoder
from mu_llama.audio.windows import stream_windows
from mu_llama.encoders.pooling import encode_track

file = io.BytesIO()
with wave.open(file, "wb") as out:
    out.setparams((1, 2, 16000, 0, "NONE", ""))
    out.writeframes((np.sin(np.arange(16000) / 9) * 9000).astype("<i2").tobytes())
encoder = build_encoder({"kind": "musicnn", "parts": ["penultimate", "tag_logits", "pooled"]})
features = encode_track(encoder, stream_windows(file.getvalue(), rate_hz=encoder.rate_hz))
assert features.values.shape == (1, 3512), features.values.shape
print(*sorted({"torch", "transformers", "onnx", "scipy"} & set(sys.modules)))
"""


def test_encoding_a_file_imports_neither_torch_nor_onnx() -> None:
    done = subprocess.run([sys.executable, "-c", ALONE], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, "\n", "")


def test_one_variant_equals_its_columns_among_two(weights: MusicnnWeights, encoder: MusicnnEncoder) -> None:
    window = clip("band", 4)
    both = encoder.encode_patches(window)
    alone = MusicnnEncoder(weights, variants=("mtt",)).encode_patches(window)
    np.testing.assert_allclose(alone.penultimate, both.penultimate[:, 200:], rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(alone.pooled, both.pooled[:, 1506:], rtol=1e-4, atol=1e-4)


def test_loud_clip_stays_finite(raw: MusicnnEncoder) -> None:
    """The original overflows float16 here and answers NaN."""
    window = clip("club", 4, gain=3.0)
    patch = raw._log_mel(window.samples)
    assert patch.max() > np.log10(65504)
    features = raw.encode_patches(window)
    assert np.isfinite(features.tag_probabilities).all()
    assert np.isfinite(features.pooled).all()


def test_later_patches_have_features_of_their_own(encoder: MusicnnEncoder) -> None:
    """The original repeats the penultimate features of the first patch."""
    window = Waveform(np.concatenate([clip("chamber", 3).samples, clip("club", 3).samples]), 16000)
    first, second = encoder.encode_patches(window).penultimate[:2]
    assert np.linalg.norm(first - second) > 1


@pytest.mark.parametrize("num_frames", [187, 188, 373, 374, 375, 1000])
def test_plan_hears_every_frame(num_frames: int) -> None:
    starts, plan_weights = patch_plan(num_frames)
    heard = {frame for start in starts for frame in range(start, start + PATCH_FRAMES)}
    assert heard == set(range(num_frames))
    assert sum(plan_weights) == pytest.approx(1)
    assert min(plan_weights) > 0
    if num_frames % PATCH_FRAMES == 1:
        assert plan_weights[-1] == pytest.approx(1 / num_frames)


def test_last_second_is_heard(encoder: MusicnnEncoder) -> None:
    window = clip("band", 10)
    changed = window.samples.copy()
    changed[-8000:] = clip("club", 1).samples[-8000:]
    assert np.linalg.norm(encoder.encode(window) - encoder.encode(Waveform(changed, 16000))) > 0.1


def test_average_weighs_new_frames(encoder: MusicnnEncoder) -> None:
    features = encoder.encode_patches(clip("band", 4))
    assert features.start_s.tolist() == pytest.approx([0, (251 - 187) * 256 / 16000])
    expected = (187 * features.penultimate[0] + 64 * features.penultimate[1]) / 251
    np.testing.assert_allclose(features.averaged().penultimate[0], expected, rtol=1e-5, atol=1e-6)


def test_short_window_is_repeated(encoder: MusicnnEncoder, raw: MusicnnEncoder) -> None:
    short = clip("band", 1)
    features = raw.encode_patches(short)
    assert features.start_s.tolist() == [0]
    looped = Waveform(np.tile(short.samples, 3)[: 186 * 256], 16000)
    np.testing.assert_allclose(features.pooled, raw.encode_patches(looped).pooled, rtol=1e-5)
    assert np.isfinite(encoder.encode(Waveform(short.samples[:1600], 16000))).all()


def test_level_hardly_matters_when_normalised(encoder: MusicnnEncoder, raw: MusicnnEncoder) -> None:
    samples = synthesise("band", 4)
    rms = np.sqrt(np.mean(samples**2))
    quiet, loud = (Waveform((samples / rms * 10 ** (level / 20)).astype(np.float32), 16000) for level in (-30, -10))
    np.testing.assert_allclose(encoder.encode(quiet), encoder.encode(loud), rtol=0, atol=1e-2)
    assert np.abs(raw.encode(quiet) - raw.encode(loud)).max() > 0.1


def test_silence_stays_silent_and_gain_is_capped(encoder: MusicnnEncoder) -> None:
    assert normalised(np.zeros(100, np.float32)).tolist() == [0] * 100
    assert float(normalised(np.full(100, 1e-6, np.float32)).max()) == pytest.approx(1e-4, rel=1e-3)
    assert np.isfinite(encoder.encode(Waveform(np.zeros(16000, np.float32), 16000))).all()


def test_fingerprint_tells_settings_apart(weights: MusicnnWeights, encoder: MusicnnEncoder) -> None:
    others = [
        MusicnnEncoder(weights, variants=("mtt", "msd")),
        MusicnnEncoder(weights, parts=("penultimate",)),
        MusicnnEncoder(weights, normalise_level=False),
        MusicnnEncoder(MusicnnWeights(weights.tensors, weights.tag_names, "0" * 64)),
    ]
    assert len({encoder.fingerprint, *(other.fingerprint for other in others)}) == 5
    assert build_musicnn().fingerprint == encoder.fingerprint
    assert others[1].width == others[1].encode(clip("band", 1)).shape[1] == 400


def test_unusable_windows_are_refused(encoder: MusicnnEncoder) -> None:
    with pytest.raises(AudioError, match="at 44100 Hz; expected 16000 Hz: resample"):
        encoder.encode(Waveform(np.zeros(44100, np.float32), 44100))
    with pytest.raises(AudioError, match=r"lasts 0\.050 s; expected at least 0\.1 s"):
        encoder.encode(Waveform(np.zeros(800, np.float32), 16000))


def test_unusable_settings_are_refused(weights: MusicnnWeights) -> None:
    with pytest.raises(ConfigError, match="parts are"):
        MusicnnEncoder(weights, parts=())
    with pytest.raises(ConfigError, match=r"variants are \('msd', 'msd'\)"):
        MusicnnEncoder(weights, variants=("msd", "msd"))
    fewer = {name: tensor for name, tensor in weights.tensors.items() if name != "msd.tags.bias"}
    with pytest.raises(CheckpointError, match=r"lack \['tags\.bias'\]"):
        MusicnnEncoder(MusicnnWeights(fewer, weights.tag_names, weights.sha256))
