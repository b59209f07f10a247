"""The examples of a run: data files read whole and checked against the audio on disk; the validation split."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from mu_llama.audio.file_names import Listings, equal_files, path_on_disk
from mu_llama.files import LFS_ADVICE, is_lfs_pointer_file, sha256_of
from mu_llama.training.config import DatasetEntry
from mu_llama.training.example import BadRow, DataError, Example, listing, reading
from mu_llama.training.readers import FORMATS

_HEAD_BYTES = 2**16
_SUFFIXES = (".json", ".jsonl", ".parquet")
_OR_SUFFIXES = " or ".join(_SUFFIXES)
_MAX_NAMED = 8
_EMPTY_LIST = re.compile(r"\s*(?:\[\s*\]\s*)?")
_EMPTY_ADVICE = (
    "is empty; expected at least one example: leave the file out, or, if it is a part of a small data set, give that "
    "part a larger share when it is built (`mu-llama musicqa build` with --validation or --test)"
)
"""Problem text of a file without rows."""


@dataclass(frozen=True)
class Dataset:
    """The examples of one data file."""

    entry: DatasetEntry
    """Where they come from, and their share."""
    examples: tuple[Example, ...]
    """In the order of the file."""
    num_missing: int
    """How many more were dropped, because their audio is missing."""
    sha256: str
    """Of the data file, for run records."""


def read_datasets(entries: Sequence[DatasetEntry], *, skip_missing: bool = False) -> tuple[Dataset, ...]:
    """Read data files and check that their audio exists; all problems come in one error.

    Args:
        entries: the files.
        skip_missing: drop and count examples without their audio file.

    Raises:
        DataError: if a file can't be read, rows are bad, audio files are missing (listed up to 20 each, with the
            count), or no example is left.
    """
    problems: list[str] = []
    bad: list[BadRow] = []
    missing: set[Path] = set()
    datasets = []
    listings: dict[Path, dict[str, str]] = {}
    for entry in entries:
        try:
            rows = list(read_rows(entry))
            sha256 = sha256_of(entry.path)
        except DataError as error:
            problems.append(str(error))
            continue
        bad += [row for row in rows if isinstance(row, BadRow)]
        examples = [_on_disk(row, listings) for row in rows if isinstance(row, Example)]
        absent = _absent(examples)
        missing |= absent
        usable = tuple(example for example in examples if example.audio not in absent)
        datasets.append(Dataset(entry, usable, num_missing=len(examples) - len(usable), sha256=sha256))
        if not rows or (skip_missing and not usable and examples):
            problems.append(f"{entry.path}: {'has no example whose audio is there' if rows else _EMPTY_ADVICE}")
    problems += listing("bad rows", map(str, bad), "correct them in the file")
    if not skip_missing:
        advice = "check audio_folder, or set data.skip_missing to drop their examples"
        problems += listing("missing audio files", sorted(map(str, missing)), advice)
    if problems:
        raise DataError("\n".join(problems))
    return _with_unique_ids(datasets)


def read_rows(entry: DatasetEntry) -> Iterable[Example | BadRow]:
    """Stream a data file; rows that can't be used, or repeat an id, come as `BadRow`.

    Raises:
        DataError: if the file can't be read, or (while streaming) is damaged.
    """
    _check_is_data(entry.path)
    data_format = FORMATS[detect_format(entry.path) if entry.format == "auto" else entry.format]
    folder = entry.audio_folder
    if folder is None:
        folder = entry.path.parent
        if data_format.audio_subfolder and (folder / data_format.audio_subfolder).is_dir():
            folder /= data_format.audio_subfolder
    seen: set[str] = set()
    for row in data_format.read(entry.path, audio_folder=folder):
        if isinstance(row, Example):
            if row.id in seen:
                yield BadRow(entry.path, row.id, "the id came before; expected each once")
                continue
            seen.add(row.id)
        yield row


def _check_is_data(path: Path) -> None:
    """Refuse what no format can be: a folder, and a Git LFS pointer.

    Raises:
        DataError: if the path is one.
    """
    if path.is_dir():
        names = sorted(file.name for file in path.iterdir() if file.suffix.lower() in _SUFFIXES)
        shown = ", ".join([*names[:_MAX_NAMED], *["..."] * (len(names) > _MAX_NAMED)])
        raise DataError(f"{path}: is a folder; name a data file in it: {shown or f'it holds no {_OR_SUFFIXES}'}")
    if is_lfs_pointer_file(path):
        raise DataError(f"{path}: {LFS_ADVICE}")


def detect_format(path: Path) -> str:
    """Recognize the format of a file by its beginning, whatever its name.

    Returns:
        A key of `FORMATS`.

    Raises:
        DataError: if it can't be read, is empty or begins like none of the formats.
    """
    with reading(path), path.open("rb") as file:
        text = file.read(_HEAD_BYTES).decode("utf-8-sig", errors="replace").lstrip()
    if _EMPTY_LIST.fullmatch(text):
        raise DataError(f"{path}: {_EMPTY_ADVICE}")
    for name, data_format in FORMATS.items():
        if data_format.start is not None and text.startswith(data_format.start):
            return name
    by_key = {data_format.list_key: name for name, data_format in FORMATS.items() if data_format.list_key}
    # Inside a text the closing quote of a key would have a backslash in front.
    key = re.search(rf'"({"|".join(map(re.escape, by_key))})"\s*:', text)
    if text.startswith("[") and key:
        return by_key[key[1]]
    raise DataError(f"{path}: begins like none of {', '.join(FORMATS)}; check the file, or name its format")


def hold_out(
    datasets: Sequence[Dataset], *, fraction: float, seed: int
) -> tuple[tuple[Dataset, ...], tuple[Example, ...]]:
    """Split examples into those to train on and those to validate on; all questions about a track go together.

    Files of the same bytes are one track.

    Which tracks are held out depends on the seed and their first ids, not on where the audio lies.

    Args:
        datasets: all examples.
        fraction: share of the tracks (a text-only example counts as one) to hold out; at least one is.
        seed: chooses them.

    Returns:
        The data sets without the examples that are held out, and those.

    Raises:
        DataError: if nothing would be left to train on.
    """
    everything = [example for dataset in datasets for example in dataset.examples]
    files = equal_files(example.audio for example in everything if example.audio is not None)

    def track_of(example: Example) -> Path | str:
        return example.id if example.audio is None else files[example.audio]

    first_ids: dict[Path | str, str] = {}
    for example in everything:
        first_ids.setdefault(track_of(example), example.id)

    def drawn(track: Path | str) -> bytes:
        return hashlib.sha256(f"{seed} {first_ids[track]}".encode("utf-8", "surrogatepass")).digest()

    ranked = sorted(first_ids, key=drawn)
    validation = set(ranked[: max(1, round(fraction * len(ranked)))])
    if len(validation) == len(ranked):
        raise DataError(
            f"holding out {fraction:g} of {len(ranked)} tracks leaves none to train on; give more data, or "
            "data.validation instead of data.validation_fraction"
        )
    train = tuple(
        replace(dataset, examples=tuple(example for example in dataset.examples if track_of(example) not in validation))
        for dataset in datasets
    )
    return train, tuple(example for example in everything if track_of(example) in validation)


def _with_unique_ids(datasets: Sequence[Dataset]) -> tuple[Dataset, ...]:
    """Put the number of its data set in front of an id that several data sets have, so that ids name one row."""
    owners: dict[str, set[int]] = {}
    for number, dataset in enumerate(datasets):
        for example in dataset.examples:
            owners.setdefault(example.id, set()).add(number)

    def renamed(number: int, example: Example) -> Example:
        return replace(example, id=f"{number}/{example.id}") if len(owners[example.id]) > 1 else example

    return tuple(
        replace(dataset, examples=tuple(renamed(number, example) for example in dataset.examples))
        for number, dataset in enumerate(datasets)
    )


def _on_disk(example: Example, listings: Listings) -> Example:
    """Give an example the path of its audio as the disk has it, where that differs in Unicode's normal form."""
    if example.audio is None or str(example.audio).isascii():
        return example
    return replace(example, audio=path_on_disk(example.audio, listings))


def _absent(examples: Iterable[Example]) -> set[Path]:
    """Find the audio files that don't exist, looking once for each."""
    return {path for path in {example.audio for example in examples} if path is not None and not path.is_file()}
