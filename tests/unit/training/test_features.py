"""Features of tracks: encoded once through the cache, or live, plain and augmented."""

from __future__ import annotations

import random
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
import soundfile
import torch

from mu_llama.audio.waveform import Waveform
from mu_llama.audio.windows import FULL
from mu_llama.encoders.cache import FeatureCache
from mu_llama.encoders.musicnn.encoder import build_musicnn
from mu_llama.errors import AudioError, ConfigError
from mu_llama.inference.extractor import FeatureExtractor
from mu_llama.text.prompts import Turn
from mu_llama.training.example import DataError, Example
from mu_llama.training.features import (
    AugmentedFeatures,
    Features,
    FeatureTable,
    LiveFeatures,
    augment_features,
    precompute_features,
)
from mu_llama.training.initialization import FeatureStatistics

RATE_HZ = 8000


class LevelEncoder:
    """Two layers of three features, made of level and length; counts what it encodes."""

    name = "level"
    fingerprint = "1"
    rate_hz = RATE_HZ
    num_layers = 2
    width = 3

    def __init__(self) -> None:
        self.lengths: list[int] = []

    def encode(self, window: Waveform) -> npt.NDArray[np.float32]:
        self.lengths.append(window.samples.size)
        level = float(np.abs(window.samples).mean())
        return np.array([[level, 1.0, window.duration_s], [0.0, -level, 2.0]], np.float32)


def tone(path: Path, level: float, seconds: float = 1.0) -> Path:
    samples = np.full(round(seconds * RATE_HZ), level, dtype=np.float32)
    samples[::2] *= -1
    soundfile.write(path, samples, RATE_HZ, subtype="FLOAT")
    return path


def example(audio: Path | None, number: int = 0) -> Example:
    return Example(f"{audio}:{number}", (Turn("Q", "A"),), audio)


def prepare(examples: list[Example], cache: Path, encoder: LevelEncoder) -> FeatureTable:
    return precompute_features(
        examples,
        make_encoder=lambda: encoder,
        plan=FULL,
        cache=FeatureCache(cache),
    )


def test_each_track_is_encoded_once_and_a_second_run_encodes_nothing(tmp_path: Path) -> None:
    loud, low = tone(tmp_path / "a.wav", 0.5), tone(tmp_path / "b.wav", 0.1, seconds=2)
    examples = [example(loud, 1), example(None), example(low), example(loud, 2), example(None, 2)]
    first, second = LevelEncoder(), LevelEncoder()
    table = prepare(examples, tmp_path / "cache", first)
    assert sorted(first.lengths) == [RATE_HZ, RATE_HZ, 2 * RATE_HZ]
    again = prepare(examples, tmp_path / "cache", second)
    assert second.lengths == []
    for item in examples:
        assert torch.equal(table.of(item), again.of(item))
    assert table.of(examples[0]).tolist() == [[0.5, 1.0, 1.0], [0.0, -0.5, 2.0]]
    assert (table.of(examples[0]).dtype, tuple(table.values.shape)) == (torch.float32, (3, 2, 3))
    encoded = FeatureExtractor(LevelEncoder, plan=FULL, cache=None).extract(low).values
    assert np.array_equal(table.of(examples[2]).numpy(), encoded)


def test_text_only_is_a_second_of_zeros_but_a_silent_track_is_still_refused(tmp_path: Path) -> None:
    encoder = LevelEncoder()
    table = prepare([example(None)], tmp_path / "cache", encoder)
    assert encoder.lengths == [RATE_HZ]
    assert table.of(example(None)).tolist() == [[0.0, 1.0, 1.0], [0.0, 0.0, 2.0]]
    silent = Waveform(np.zeros(RATE_HZ, dtype=np.float32), RATE_HZ)
    with pytest.raises(AudioError, match="silent"):
        FeatureExtractor(LevelEncoder, plan=FULL, cache=FeatureCache(tmp_path / "cache")).extract(silent)


def test_musicnn_encodes_zeros_as_finite_features(tmp_path: Path) -> None:
    encoder = build_musicnn()
    table = precompute_features([example(None)], make_encoder=lambda: encoder, plan=FULL, cache=None)
    features = table.of(example(None))
    assert torch.isfinite(features).all()
    direct = encoder.encode(Waveform(np.zeros(16000, dtype=np.float32), 16000))
    assert np.array_equal(features.numpy(), direct)


def test_features_can_be_trained_on(tmp_path: Path) -> None:
    examples = [example(tone(tmp_path / "a.wav", 0.3)), example(None)]
    table = prepare(examples, tmp_path / "cache", LevelEncoder())
    for source in (table, LiveFeatures(LevelEncoder(), plan=FULL)):
        for item in examples:
            weight = torch.ones(3, requires_grad=True)
            (source.of(item) @ weight).sum().backward()
            assert weight.grad is not None


def test_tracks_that_cannot_be_encoded_are_listed_after_all_were_tried(tmp_path: Path) -> None:
    good = [tone(tmp_path / name, 0.3) for name in ("a.wav", "z.wav")]
    (tmp_path / "b.wav").write_bytes(b"no sound at all")
    silent = tone(tmp_path / "c.wav", 0.0)
    paths = [good[0], tmp_path / "b.wav", silent, tmp_path / "gone.wav", good[1]]
    examples = [example(path) for path in paths]
    with pytest.raises(DataError, match=r"(?s)3 tracks that can't be encoded.*b\.wav.*c\.wav.*silent.*gone\.wav"):
        prepare(examples, tmp_path / "cache", LevelEncoder())
    again = LevelEncoder()
    table = precompute_features(
        examples, make_encoder=lambda: again, plan=FULL, cache=FeatureCache(tmp_path / "cache"), skip_unreadable=True
    )
    # Silence is heard before it can be refused; what was good is in the cache.
    assert again.lengths == [RATE_HZ]
    assert [error.audio for error in table.errors] == paths[1:4]
    assert table.usable(examples) == [examples[0], examples[4]]
    with pytest.raises(DataError, match="has no features"):
        table.of(examples[1])


def test_features_that_are_not_finite_count_as_unheard(tmp_path: Path) -> None:
    class Overflowing(LevelEncoder):
        def encode(self, window: Waveform) -> npt.NDArray[np.float32]:
            return super().encode(window) + np.float32(np.inf)

    with pytest.raises(DataError, match="not finite"):
        prepare([example(tone(tmp_path / "a.wav", 0.3))], tmp_path / "cache", Overflowing())


def test_nothing_to_prepare_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no examples"):
        prepare([], tmp_path / "cache", LevelEncoder())


def test_progress_counts_the_bytes_of_all_tracks(tmp_path: Path) -> None:
    tracks = [tone(tmp_path / f"{n}.wav", 0.1, seconds=n) for n in (1, 2)]
    totals: list[int] = []
    steps: list[int] = []

    def track(label: str, total: int) -> object:
        totals.append(total)
        return steps.append

    precompute_features(
        [example(path) for path in tracks],
        make_encoder=LevelEncoder,
        plan=FULL,
        cache=None,
        progress=track,  # type: ignore[arg-type]
    )
    assert totals == [sum(path.stat().st_size for path in tracks)]
    assert steps == [path.stat().st_size for path in tracks]


def test_statistics_are_over_distinct_tracks_without_silence(tmp_path: Path) -> None:
    one, two, other = (tone(tmp_path / f"{n}.wav", 0.25 * n) for n in (1, 2, 3))
    examples = [example(one), example(one, 2), example(None), example(two), example(other)]
    table = prepare(examples, tmp_path / "cache", LevelEncoder())
    measured = table.statistics(examples[:4])
    stacked = torch.stack([table.of(example(one)), table.of(example(two))])
    torch.testing.assert_close(measured.mean, stacked.mean(0))
    torch.testing.assert_close(measured.std, stacked.std(0).clamp_min(1e-3))
    with pytest.raises(ConfigError, match="at least 2"):
        table.statistics(examples[:3])


def test_live_features_equal_the_table_and_augment_only_with_randomness(tmp_path: Path) -> None:
    examples = [example(tone(tmp_path / "a.wav", 0.2, seconds=2)), example(None)]
    table = prepare(examples, tmp_path / "cache", LevelEncoder())

    def quieter(window: Waveform, rng: random.Random) -> Waveform:
        return Waveform(window.samples * np.float32(rng.uniform(0.1, 0.9)), window.rate_hz)

    live: Features = LiveFeatures(LevelEncoder(), plan=FULL, augment=quieter)
    for item in examples:
        assert torch.equal(live.of(item), table.of(item))
    changed = live.of(examples[0], rng=random.Random(1))
    expected = 0.2 * np.float32(random.Random(1).uniform(0.1, 0.9))
    assert float(changed[0, 0]) == pytest.approx(float(expected), rel=1e-5)
    assert torch.equal(live.of(examples[1], rng=random.Random(1)), table.of(examples[1]))


AUDIO = Path("a.flac")
EXAMPLE = Example("a", audio=AUDIO, turns=())
STATISTICS = FeatureStatistics(mean=torch.full((1, 4000), 5.0), std=torch.full((1, 4000), 2.0))


def _augmented(noise: float, dropout: float) -> AugmentedFeatures:
    table = FeatureTable(torch.ones(1, 1, 4000), {AUDIO: 0})
    return AugmentedFeatures(table, STATISTICS, noise=noise, dropout=dropout)


def test_validation_takes_features_as_they_are() -> None:
    assert torch.equal(_augmented(1.0, 0.5).of(EXAMPLE), torch.ones(1, 4000))


def test_the_same_source_of_randomness_gives_the_same() -> None:
    first, second = (_augmented(1.0, 0.5).of(EXAMPLE, rng=random.Random(3)) for _ in range(2))
    assert torch.equal(first, second)
    assert not torch.equal(first, _augmented(1.0, 0.5).of(EXAMPLE, rng=random.Random(4)))


def test_noise_and_dropout_stay_within_what_was_set() -> None:
    shares = [(_augmented(0.0, 0.5).of(EXAMPLE, rng=random.Random(seed)) == 5.0).float().mean() for seed in range(40)]
    assert 0.0 <= min(shares) < 0.1
    assert 0.4 < max(shares) <= 0.55
    spreads = [_augmented(0.5, 0.0).of(EXAMPLE, rng=random.Random(seed)).std() for seed in range(40)]
    assert 0.0 <= min(spreads) < 0.2
    assert 0.8 < max(spreads) < 1.1, "half of a standard deviation of two"


def test_noise_is_in_standard_deviations_of_each_feature() -> None:
    generator = torch.Generator().manual_seed(0)
    augmented = augment_features(torch.ones(1, 4000), STATISTICS, noise=0.5, dropout=0.0, generator=generator)
    assert abs(float(augmented.std()) - 1.0) < 0.1
