"""Keeps a track's features on disk, so that no sound is encoded twice."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import logging
import os
import secrets
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import BinaryIO

import numpy as np
import numpy.typing as npt
from safetensors import SafetensorError
from safetensors.numpy import load, save

from mu_llama.audio.source import AudioSource, open_bytes
from mu_llama.audio.source_copy import SourceCopy
from mu_llama.audio.waveform import Waveform
from mu_llama.cache_folder import home_folder, report_unwritable
from mu_llama.encoders.pooling import TrackFeatures
from mu_llama.errors import AudioError

logger = logging.getLogger(__name__)

_FORMAT = 1
"""Part of every key: raise it when entries change their meaning, and old ones are no longer looked up."""
_CHUNK_BYTES = 2**20
_NOT_WRITABLE = (errno.EACCES, errno.EPERM, errno.EROFS)


def content_hash(source: AudioSource | Waveform) -> str:
    """Hash the content of a source, independent of its name.

    Args:
        source: path, bytes, binary file (hashed from where it stands; its position is restored) or Waveform.
            A path, its bytes and a file opened on it give the same value.

    Returns:
        Hex SHA-256.

    Raises:
        AudioError: if the source can't be read, or is a stream that can't be read twice.

    Example:
        >>> content_hash(b"RIFF")[:8]
        'a40ff3d5'
    """
    if isinstance(source, Waveform):
        digest = hashlib.sha256(f"waveform {source.rate_hz} ".encode())
        digest.update(source.samples.astype("<f4").tobytes())
        return digest.hexdigest()
    if isinstance(source, (str, os.PathLike, bytes, SourceCopy)) or not hasattr(source, "read"):
        return _hash_bytes(source)
    return _hash_file_object(source)


def feature_key(
    *,
    encoder_name: str,
    encoder_fingerprint: str,
    content: str,
    window_plan: str,
    offset_s: float,
    duration_s: float | None,
) -> str:
    """Name the features of one stretch of one sound under one encoder.

    Args:
        encoder_name: `Encoder.name`.
        encoder_fingerprint: `Encoder.fingerprint`.
        content: `content_hash` of the source.
        window_plan: everything that decides which seconds are encoded and how windows are weighted.
        offset_s: start in the track, in seconds.
        duration_s: length in seconds; None is up to the end.

    Returns:
        Hex SHA-256; it differs when any part differs.
    """
    duration_s = None if duration_s is None else float(duration_s)
    parts = [_FORMAT, encoder_name, encoder_fingerprint, content, window_plan, float(offset_s), duration_s]
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()


class FeatureCache:
    """A folder of features, one small file an entry; several processes may share it.

    Losing or damaging an entry costs its computation and nothing else, and so does a folder that can't be
    written: then a single warning is logged.

    Args:
        folder: created when the first entry is stored.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._warned = False

    def load(self, key: str) -> TrackFeatures | None:
        """Return the entry of a key, or None if there is none that is whole."""
        path = self._path(key)
        try:
            return decode_entry(path.read_bytes())
        except FileNotFoundError:
            return None
        except (OSError, SafetensorError, ValueError, KeyError, TypeError) as error:
            logger.debug("the cached features %s are damaged and computed again: %s", path, error)
            return None

    def store(self, key: str, features: TrackFeatures) -> None:
        """Write an entry in one step; if that can't be done, say so once and go on."""
        data = encode_entry(features)
        path = self._path(key)
        partial = path.with_name(f".{path.stem}.{secrets.token_hex(8)}.partial")
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            partial.write_bytes(data)
            # Not synced to the disk: what a power cut spoils is found damaged and computed again.
            os.replace(partial, path)  # noqa: PTH105 - the name says that it's one step
        except OSError as error:
            with contextlib.suppress(OSError):
                partial.unlink()
            self._warn_once(error)

    def get_or_compute(self, key: str, compute: Callable[[], TrackFeatures]) -> TrackFeatures:
        """Return the entry of a key, computing and storing it if it isn't there."""
        features = self.load(key)
        if features is None:
            features = compute()
            self.store(key, features)
        return features

    def size_bytes(self) -> int:
        """Return how much disk the entries take."""
        total = 0
        for path in self._files():
            with contextlib.suppress(FileNotFoundError):
                total += path.stat().st_size
        return total

    def clear(self) -> int:
        """Delete all entries, and nothing else in the folder; return how many files that were."""
        num_deleted = 0
        for path in self._files():
            with contextlib.suppress(FileNotFoundError):
                path.unlink()
                num_deleted += 1
        return num_deleted

    def _path(self, key: str) -> Path:
        return self.folder / key[:2] / f"{key}.safetensors"

    def _files(self) -> Iterator[Path]:
        subfolder = "[0-9a-f]" * 2
        yield from list(self.folder.glob(f"{subfolder}/*.safetensors"))
        yield from list(self.folder.glob(f"{subfolder}/.*.partial"))

    def _warn_once(self, error: OSError) -> None:
        if self.folder.is_relative_to(home_folder()) and error.errno in _NOT_WRITABLE:
            report_unwritable(home_folder(), error.strerror)
        elif not self._warned:
            self._warned = True
            logger.warning(
                "features can't be stored in %s (%s), so each track is encoded again: free some space there or "
                "choose another folder",
                self.folder,
                error.strerror or error,
            )


def encode_entry(features: TrackFeatures) -> bytes:
    """Write features as the bytes of a safetensors file, with a checksum in its metadata."""
    values = np.ascontiguousarray(features.values, np.float32)
    facts = json.dumps({"heard": features.spans, "duration_s": features.duration_s, "details": dict(features.details)})
    # compat: files in users' caches call the spans `heard`.
    # One metadata key, because safetensors writes several in any order.
    entry = json.dumps({"facts": facts, "sha256": _checksum(values, facts)})
    data: bytes = save({"values": values}, metadata={"entry": entry})
    return data


def decode_entry(data: bytes) -> TrackFeatures:
    """Read what `encode_entry` wrote.

    Raises:
        SafetensorError, ValueError, KeyError, TypeError: if the bytes are anything else.
    """
    values = load(data)["values"].copy()  # what `load` gives can't be written to
    # The safetensors format: 8 bytes of little-endian length, then that much JSON.
    header = json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")])
    entry = json.loads(header["__metadata__"]["entry"])
    facts = entry["facts"]
    if entry["sha256"] != _checksum(values, facts):
        raise ValueError("the checksum is another")
    known = json.loads(facts)
    spans = tuple((float(start_s), float(end_s)) for start_s, end_s in known["heard"])
    return TrackFeatures(values, spans, float(known["duration_s"]), known["details"])


def _checksum(values: npt.NDArray[np.float32], facts: str) -> str:
    # compat: caches were written when values were torch tensors, whose dtype is called `torch.float32`.
    digest = hashlib.sha256(json.dumps([list(values.shape), f"torch.{values.dtype}", facts]).encode())
    digest.update(values.tobytes())
    return digest.hexdigest()


def _hash_bytes(source: AudioSource) -> str:
    reader = open_bytes(source)
    try:
        digest = hashlib.sha256()
        while chunk := reader.read(_CHUNK_BYTES):
            digest.update(chunk)
    finally:
        reader.close()
    if reader.failure is not None:
        raise AudioError(f"{reader.label}: can't be read ({reader.failure}); check the disk") from reader.failure
    return digest.hexdigest()


def _hash_file_object(file: BinaryIO) -> str:
    seekable = getattr(file, "seekable", None)
    if not callable(getattr(file, "seek", None)) or (callable(seekable) and not seekable()):
        raise AudioError("the given stream can be read only once; pass the bytes that it holds")
    position = file.tell()
    try:
        return _hash_bytes(file)
    finally:
        file.seek(position)
