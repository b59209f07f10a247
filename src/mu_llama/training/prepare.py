"""Encodes every track of the examples once, before training, so that an epoch costs no audio work."""

from __future__ import annotations

import os
import secrets
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, suppress
from pathlib import Path

import torch

from mu_llama.audio.windows import WindowPlan
from mu_llama.encoders.feature_cache import FeatureCache
from mu_llama.encoders.protocol import Encoder
from mu_llama.errors import MuLlamaError
from mu_llama.hearing import Hearing
from mu_llama.progress import Track, silent
from mu_llama.training.example import DataError, Example
from mu_llama.training.features import FeatureTable, TrackError
from mu_llama.training.listing import listing
from mu_llama.training.silence import encode_silence

Heard = tuple[Path, torch.Tensor | TrackError]


def prepare_features(
    examples: Iterable[Example],
    *,
    make_encoder: Callable[[], Encoder],
    plan: WindowPlan,
    cache: FeatureCache | None,
    skip_unreadable: bool = False,
    num_workers: int = 1,
    store: Path | None = None,
    track: Track = silent,
) -> FeatureTable:
    """Encode every distinct track of some examples, through the feature cache.

    What is in the cache is not encoded again, so an interrupted preparation goes on where it stopped and a finished
    one only reads the files to recognise them. Text-only examples get the features of a second of zeros.

    Args:
        examples: those of training and validation together.
        make_encoder: builds the encoder; called once.
        plan: which seconds of a track are heard.
        cache: keeps features by content; None keeps nothing.
        skip_unreadable: leave tracks that can't be heard out of the table and list them in its `errors`.
        num_workers: tracks that are worked on at the same time, in threads: one is read while another is encoded.
        store: file to map the table from, instead of holding it in memory; written in one step.
        track: told of the bytes of audio files gone through.

    Returns:
        A table with a row for each track.

    Raises:
        DataError: after all tracks were tried, if some can't be heard and `skip_unreadable` is not set (up to 20
            are listed), if none can, or if there are no examples; or if `store` can't be written.
    """
    wanted = dict.fromkeys(example.audio for example in examples)
    paths = [path for path in wanted if path is not None]
    if not wanted:
        raise DataError("there are no examples to prepare; expected at least one")
    hearing = Hearing(make_encoder, plan=plan, cache=cache)
    encoder = hearing.encoder  # built here, not by several threads at once
    rows: dict[Path | None, int] = {}
    errors: list[TrackError] = []

    def values() -> Generator[torch.Tensor, None, None]:
        if None in wanted:
            rows[None] = len(rows)
            yield encode_silence(encoder, cache)
        for path, heard in _hear_all(hearing, paths, num_workers=num_workers, track=track):
            if isinstance(heard, TrackError):
                errors.append(heard)
                continue
            rows[path] = len(rows)
            yield heard

    with closing(values()) as found:
        table = _in_memory(found) if store is None else _mapped(found, store, (encoder.num_layers, encoder.width))
    if errors and (not skip_unreadable or len(errors) == len(paths)):
        advice = "replace them, or set data.skip_missing to drop their examples"
        raise DataError("\n".join(listing("tracks that can't be heard", map(str, errors), advice)))
    return FeatureTable(table, rows, tuple(errors))


def _hear_all(hearing: Hearing, paths: Sequence[Path], *, num_workers: int, track: Track) -> Iterator[Heard]:
    """Hear tracks, some at a time, and give them in order."""
    sizes = [_size_bytes(path) for path in paths]
    advance = track("preparing features", sum(sizes))

    def hear(path: Path) -> Heard:
        try:
            values = hearing.hear(path).values
        except (MuLlamaError, OSError) as error:
            return path, TrackError(path, " ".join(str(error).split()))
        if not torch.isfinite(values).all():
            return path, TrackError(path, "its features are not finite; build the encoder with dtype float32")
        return path, values

    if num_workers == 1:
        for path, size_bytes in zip(paths, sizes, strict=True):
            yield hear(path)
            advance(size_bytes)
        return
    with ThreadPoolExecutor(num_workers) as pool:
        try:
            for heard, size_bytes in zip(pool.map(hear, paths), sizes, strict=True):
                yield heard
                advance(size_bytes)
        finally:
            pool.shutdown(cancel_futures=True)


def _size_bytes(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:
        return 0


def _in_memory(values: Iterator[torch.Tensor]) -> torch.Tensor:
    rows = list(values)
    return torch.stack(rows) if rows else torch.empty(0)


def _mapped(values: Iterator[torch.Tensor], store: Path, shape: tuple[int, int]) -> torch.Tensor:
    """Write rows of a shape to a file one after the other, and map it to (N, L, D)."""
    partial = store.with_name(f".{store.name}.{secrets.token_hex(8)}.partial")
    num_rows = 0
    try:
        store.parent.mkdir(parents=True, exist_ok=True)
        with partial.open("wb") as file:
            for row in values:
                file.write(row.numpy().tobytes())
                num_rows += 1
        os.replace(partial, store)  # noqa: PTH105 - the name says that it's one step
    except OSError as error:
        raise DataError(
            f"{store}: the features can't be written ({error.strerror or error}); free some space"
        ) from error
    finally:
        with suppress(OSError):  # gone, or never made
            partial.unlink()
    if num_rows == 0:
        return torch.empty(0)
    flat = torch.from_file(str(store), shared=False, size=num_rows * shape[0] * shape[1], dtype=torch.float32)
    return flat.view(num_rows, *shape)
