"""Encodes every track of the examples once, before training, so that an epoch costs no audio work."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path

import torch

from mu_llama.audio.windows import WindowPlan
from mu_llama.encoders.cache import FeatureCache
from mu_llama.encoders.protocol import Encoder
from mu_llama.errors import MuLlamaError
from mu_llama.inference.extractor import FeatureExtractor
from mu_llama.progress import ProgressCallback, no_progress
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
    progress: ProgressCallback = no_progress,
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
        progress: told of the bytes of audio files gone through.

    Returns:
        A table with a row for each track.

    Raises:
        DataError: after all tracks were tried, if some can't be heard and `skip_unreadable` is not set (up to 20
            are listed), if none can, or if there are no examples.
    """
    wanted = dict.fromkeys(example.audio for example in examples)
    paths = [path for path in wanted if path is not None]
    if not wanted:
        raise DataError("there are no examples to prepare; expected at least one")
    hearing = FeatureExtractor(make_encoder, plan=plan, cache=cache)
    encoder = hearing.encoder  # built here, not by several threads at once
    rows: dict[Path | None, int] = {}
    errors: list[TrackError] = []

    def values() -> Generator[torch.Tensor, None, None]:
        if None in wanted:
            rows[None] = len(rows)
            yield encode_silence(encoder, cache)
        for path, heard in _hear_all(hearing, paths, num_workers=num_workers, progress=progress):
            if isinstance(heard, TrackError):
                errors.append(heard)
                continue
            rows[path] = len(rows)
            yield heard

    with closing(values()) as found:
        table = list(found)
    if errors and (not skip_unreadable or len(errors) == len(paths)):
        advice = "replace them, or set data.skip_missing to drop their examples"
        raise DataError("\n".join(listing("tracks that can't be heard", map(str, errors), advice)))
    return FeatureTable(torch.stack(table) if table else torch.empty(0), rows, tuple(errors))


def _hear_all(
    hearing: FeatureExtractor, paths: Sequence[Path], *, num_workers: int, progress: ProgressCallback
) -> Iterator[Heard]:
    """Hear tracks, some at a time, and give them in order."""
    sizes = [_size_bytes(path) for path in paths]
    advance = progress("preparing features", sum(sizes))

    def hear(path: Path) -> Heard:
        try:
            values = hearing.extract(path).values
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
