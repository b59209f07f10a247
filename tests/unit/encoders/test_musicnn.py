"""MusiCNN against TensorFlow, and the promises of its encoder."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch

from mu_llama.audio.waveform import Waveform
from mu_llama.encoders.musicnn.encoder import (
    MusicnnEncoder,
    MusicnnWeights,
    build_musicnn,
    normalised,
    patch_plan,
    read_musicnn_weights,
)
from mu_llama.encoders.musicnn.network import PATCH_FRAMES
from mu_llama.encoders.protocol import Encoder
from mu_llama.errors import AudioError, CheckpointError, ConfigError
from tests.unit.encoders.synthesised_music import synthesise

EXPECTED = json.loads(Path(__file__).with_name("musicnn_expected.json").read_text())


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> Iterator[None]:
    """Keep threads from waiting for each other where test machines have fewer cores than jobs."""
    num_threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(num_threads)


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
    tags = raw.encode_patches(window).tag_probabilities.numpy()
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
    assert features.dtype == torch.float32


def test_batch_equals_patch_by_patch(encoder: MusicnnEncoder) -> None:
    patches = torch.rand(3, PATCH_FRAMES, 96, generator=torch.Generator().manual_seed(0)) * 4
    together = encoder._network(patches)
    for place, patch in enumerate(patches):
        alone = encoder._network(patch[None])
        torch.testing.assert_close(alone.tag_logits[0], together.tag_logits[place], rtol=1e-4, atol=1e-4)
        torch.testing.assert_close(alone.pooled[0], together.pooled[place], rtol=1e-4, atol=1e-4)


def test_one_variant_equals_its_columns_among_two(weights: MusicnnWeights, encoder: MusicnnEncoder) -> None:
    window = clip("band", 4)
    both = encoder.encode_patches(window)
    alone = MusicnnEncoder(weights, variants=("mtt",)).encode_patches(window)
    torch.testing.assert_close(alone.penultimate, both.penultimate[:, 200:], rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(alone.pooled, both.pooled[:, 1506:], rtol=1e-4, atol=1e-4)


def test_dropped_filters_are_constants(weights: MusicnnWeights) -> None:
    """A filter that isn't computed gives what the full layer gives, at the patch's edges too."""
    from mu_llama.encoders.musicnn.front_end import FrontEndLayer, norm_affine

    tensors = {name[4:]: tensor for name, tensor in weights.tensors.items() if name.startswith("msd.")}
    patch = torch.rand(1, PATCH_FRAMES, 96, generator=torch.Generator().manual_seed(0)) * 4
    (ours,) = FrontEndLayer([tensors], "timbral_38", num_frames=PATCH_FRAMES)(patch)
    scale, offset = norm_affine(tensors, "input")
    heard = torch.nn.functional.pad(patch * scale + offset, (0, 0, 3, 3))[:, None]
    full = torch.nn.functional.conv2d(heard, tensors["timbral_38.kernel"][:, None], tensors["timbral_38.bias"])
    scale, offset = (part[:, None, None] for part in norm_affine(tensors, "timbral_38"))
    plain = (torch.relu(full) * scale + offset).amax(3).transpose(1, 2)
    torch.testing.assert_close(ours, plain, rtol=0, atol=2e-4)


def test_loud_clip_stays_finite(raw: MusicnnEncoder) -> None:
    """The original overflows float16 here and answers NaN."""
    window = clip("club", 4, gain=3.0)
    patch = raw._log_mel(torch.from_numpy(window.samples))
    assert patch.max() > np.log10(65504)
    features = raw.encode_patches(window)
    assert torch.isfinite(features.tag_probabilities).all()
    assert torch.isfinite(features.pooled).all()


def test_later_patches_have_features_of_their_own(encoder: MusicnnEncoder) -> None:
    """The original repeats the penultimate features of the first patch."""
    window = Waveform(np.concatenate([clip("chamber", 3).samples, clip("club", 3).samples]), 16000)
    first, second = encoder.encode_patches(window).penultimate[:2]
    assert torch.dist(first, second) > 1


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
    assert torch.dist(encoder.encode(window), encoder.encode(Waveform(changed, 16000))) > 0.1


def test_average_weighs_new_frames(encoder: MusicnnEncoder) -> None:
    features = encoder.encode_patches(clip("band", 4))
    assert features.start_s.tolist() == pytest.approx([0, (251 - 187) * 256 / 16000])
    expected = (187 * features.penultimate[0] + 64 * features.penultimate[1]) / 251
    torch.testing.assert_close(features.averaged().penultimate[0], expected)


def test_short_window_is_repeated(encoder: MusicnnEncoder, raw: MusicnnEncoder) -> None:
    short = clip("band", 1)
    features = raw.encode_patches(short)
    assert features.start_s.tolist() == [0]
    looped = Waveform(np.tile(short.samples, 3)[: 186 * 256], 16000)
    torch.testing.assert_close(features.pooled, raw.encode_patches(looped).pooled)
    assert encoder.encode(Waveform(short.samples[:1600], 16000)).isfinite().all()


def test_level_hardly_matters_when_normalised(encoder: MusicnnEncoder, raw: MusicnnEncoder) -> None:
    samples = synthesise("band", 4)
    rms = np.sqrt(np.mean(samples**2))
    quiet, loud = (Waveform((samples / rms * 10 ** (level / 20)).astype(np.float32), 16000) for level in (-30, -10))
    torch.testing.assert_close(encoder.encode(quiet), encoder.encode(loud), rtol=0, atol=1e-2)
    assert (raw.encode(quiet) - raw.encode(loud)).abs().max() > 0.1


def test_silence_stays_silent_and_gain_is_capped(encoder: MusicnnEncoder) -> None:
    assert normalised(torch.zeros(100)).tolist() == [0] * 100
    assert float(normalised(torch.full((100,), 1e-6)).max()) == pytest.approx(1e-4, rel=1e-3)
    assert encoder.encode(Waveform(np.zeros(16000, np.float32), 16000)).isfinite().all()


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
