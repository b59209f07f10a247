"""The feature cache: exact, shared between processes, and never in the way."""

from __future__ import annotations

import errno
import io
import logging
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mu_llama.audio.waveform import Waveform
from mu_llama.encoders.cache import FeatureCache, content_hash, decode_entry, encode_entry, feature_key
from mu_llama.encoders.pooling import TrackFeatures
from mu_llama.errors import AudioError, AudioNotFoundError

PARTS: dict[str, Any] = {
    "encoder_name": "mert",
    "encoder_fingerprint": "f00d",
    "content": "beef",
    "window_plan": "full-60s",
    "offset_s": 0.0,
    "duration_s": None,
}
KEY = feature_key(**PARTS)
FEATURES = TrackFeatures(
    values=np.arange(24, dtype=np.float32).reshape(3, 8) / 7,
    spans=((0.1, 60.0), (60.0, 75.30000000000001)),
    duration_s=75.30000000000001,
    details={"tempo_bpm": 120.5, "key": "Am"},
)


def assert_same(actual: TrackFeatures | None, expected: TrackFeatures) -> None:
    assert actual is not None
    assert np.array_equal(actual.values, expected.values)
    assert actual.values.dtype == np.float32
    assert (actual.spans, actual.duration_s, actual.details) == (
        expected.spans,
        expected.duration_s,
        expected.details,
    )


def test_what_comes_back_is_what_was_stored(tmp_path: Path) -> None:
    cache = FeatureCache(tmp_path / "features")
    assert cache.load(KEY) is None
    assert cache.size_bytes() == 0
    cache.store(KEY, FEATURES)
    assert_same(cache.load(KEY), FEATURES)
    assert_same(FeatureCache(tmp_path / "features").load(KEY), FEATURES)
    assert cache.load(feature_key(**PARTS | {"offset_s": 1.0})) is None


def test_entries_of_earlier_versions_open() -> None:
    """Those were written of torch tensors, whose dtype counts in the checksum; this is what one of them held."""
    written = encode_entry(FEATURES)
    assert b"3b053108de0e9e91f864dbc050752a1ce8faa91d89c9eca6f7f154e85c7adae8" in written
    read = decode_entry(written)
    assert_same(read, FEATURES)
    assert read.values.flags.writeable


def test_it_computes_only_once(tmp_path: Path) -> None:
    cache = FeatureCache(tmp_path)
    calls = []

    def compute() -> TrackFeatures:
        calls.append(1)
        return FEATURES

    for _ in range(3):
        assert_same(cache.get_or_compute(KEY, compute), FEATURES)
    assert len(calls) == 1


@pytest.mark.parametrize(
    "change",
    [
        {"encoder_name": "musicnn"},
        {"encoder_fingerprint": "f00e"},
        {"content": "bee"},
        {"window_plan": "published-60s"},
        {"offset_s": 0.5},
        {"duration_s": 0.0},
        {"encoder_name": "mertf", "encoder_fingerprint": "00d"},
    ],
    ids=str,
)
def test_keys_differ_when_any_part_differs(change: dict[str, Any]) -> None:
    assert feature_key(**PARTS | change) != KEY


def test_keys_do_not_depend_on_how_a_number_is_written() -> None:
    assert feature_key(**PARTS | {"offset_s": 0}) == KEY
    assert feature_key(**PARTS | {"duration_s": 3}) == feature_key(**PARTS | {"duration_s": 3.0})


def damage_nothing_left(data: bytearray) -> bytearray:
    return data[:0]


def damage_cut(data: bytearray) -> bytearray:
    return data[:-5]


def damage_values(data: bytearray) -> bytearray:
    data[-3] ^= 1
    return data


def damage_facts(data: bytearray) -> bytearray:
    return data.replace(b"75.30", b"76.30", 1)


def damage_length(data: bytearray) -> bytearray:
    data[:8] = b"\xff" * 8
    return data


def damage_other_tensors(data: bytearray) -> bytearray:
    return data.replace(b'"values"', b'"valued"', 1)


DAMAGES = [
    damage_nothing_left,
    damage_cut,
    damage_values,
    damage_facts,
    damage_length,
    damage_other_tensors,
]


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_entry_is_computed_again_silently(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, damage: Any
) -> None:
    caplog.set_level(logging.DEBUG, logger="mu_llama")
    cache = FeatureCache(tmp_path)
    cache.store(KEY, FEATURES)
    (path,) = tmp_path.glob("*/*.safetensors")
    whole = path.read_bytes()
    damaged = bytes(damage(bytearray(whole)))
    assert damaged != whole
    path.write_bytes(damaged)
    assert cache.load(KEY) is None
    assert [record.levelname for record in caplog.records] == ["DEBUG"]
    assert_same(cache.get_or_compute(KEY, lambda: FEATURES), FEATURES)
    assert path.read_bytes() == whole


def spoil_by_file(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder.write_text("a file stands where the folder should be")


def spoil_by_full_disk(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*args: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "replace", refuse)


@pytest.mark.parametrize("spoil", [spoil_by_file, spoil_by_full_disk])
def test_a_folder_that_cannot_be_written_warns_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, spoil: Any
) -> None:
    folder = tmp_path / "features"
    spoil(folder, monkeypatch)
    cache = FeatureCache(folder)
    for _ in range(3):
        assert_same(cache.get_or_compute(KEY, lambda: FEATURES), FEATURES)
    warnings = [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]
    assert len(warnings) == 1
    assert str(folder) in warnings[0]
    assert cache.size_bytes() == 0
    assert not list(tmp_path.rglob("*.partial"))


WRITER = """
import sys
from pathlib import Path
import numpy as np
from mu_llama.encoders.cache import FeatureCache
from mu_llama.encoders.pooling import TrackFeatures

folder, key, number = Path(sys.argv[1]), sys.argv[2], float(sys.argv[3])
cache = FeatureCache(folder)
features = TrackFeatures(np.full((13, 512), number, np.float32), ((0.0, number),), number)
print("ready", flush=True)
sys.stdin.readline()
for _ in range(300):
    cache.store(key, features)
    found = cache.load(key)
    assert found is not None and np.unique(found.values).tolist() == [found.duration_s], found
"""


def test_processes_may_write_the_same_key(tmp_path: Path) -> None:
    command = [sys.executable, "-c", WRITER, str(tmp_path), KEY]
    writers = [
        subprocess.Popen(
            [*command, number],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for number in ("1", "2")
    ]
    for writer in writers:
        assert writer.stdout is not None
        assert writer.stdout.readline() == "ready\n"
        assert writer.stdin is not None
        writer.stdin.write("go\n")
        writer.stdin.flush()
    for writer in writers:
        _, errors = writer.communicate(timeout=120)
        assert writer.returncode == 0, errors
    found = FeatureCache(tmp_path).load(KEY)
    assert found is not None
    assert found.duration_s in (1.0, 2.0)
    assert len([path for path in tmp_path.rglob("*") if path.is_file()]) == 1


def test_clear_deletes_entries_and_nothing_else(tmp_path: Path) -> None:
    cache = FeatureCache(tmp_path)
    other = tmp_path / "model.safetensors"
    other.write_bytes(b"mine")
    cache.store(KEY, FEATURES)
    left_behind = tmp_path / KEY[:2] / ".dead.partial"
    left_behind.write_bytes(b"12345")
    assert cache.size_bytes() == 5 + next(tmp_path.glob("*/*.safetensors")).stat().st_size
    assert cache.clear() == 2
    assert (cache.size_bytes(), cache.load(KEY), other.read_bytes()) == (0, None, b"mine")
    assert FeatureCache(tmp_path / "never made").clear() == 0


def test_the_same_bytes_hash_the_same_however_given(tmp_path: Path) -> None:
    data = bytes(range(256)) * 10_000
    path = tmp_path / "a.wav"
    path.write_bytes(data)
    with path.open("rb") as file:
        hashes = {content_hash(path), content_hash(str(path)), content_hash(data), content_hash(file)}
        assert file.tell() == 0
    assert len(hashes) == 1


def test_a_file_object_is_hashed_from_where_it_stands() -> None:
    file = io.BytesIO(b"headersound")
    file.seek(6)
    assert content_hash(file) == content_hash(b"sound")
    assert file.tell() == 6


def test_waveforms_hash_by_samples_and_rate() -> None:
    samples = np.linspace(-1, 1, 100, dtype=np.float32)
    first = content_hash(Waveform(samples, 8000))
    assert first == content_hash(Waveform(samples.copy(), 8000))
    assert first != content_hash(Waveform(samples, 8001))
    assert first != content_hash(Waveform(samples[:-1], 8000))
    assert first == content_hash(Waveform(np.repeat(samples, 2)[::2], 8000))


def test_what_cannot_be_hashed_says_so(tmp_path: Path) -> None:
    with pytest.raises(AudioNotFoundError, match=r"none\.wav"):
        content_hash(tmp_path / "none.wav")
    read_end, write_end = os.pipe()
    os.close(write_end)
    with os.fdopen(read_end, "rb") as stream, pytest.raises(AudioError, match="only once; pass the bytes"):
        content_hash(stream)
    with pytest.raises(AudioError, match="expected a path"):
        content_hash(3)  # type: ignore[arg-type]
