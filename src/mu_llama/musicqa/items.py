"""Items of a data set: tracks with replies and splits, groups that stay in one split, and rows for training."""

from __future__ import annotations

import dataclasses
import hashlib
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from mu_llama.audio.file_names import equal_files
from mu_llama.files import read_lines, to_line, write_whole
from mu_llama.labels.track import Track
from mu_llama.musicqa.audio_paths import AudioPaths, relative_to_folder
from mu_llama.musicqa.reply import Reply
from mu_llama.text.prompts import FIXED_QUESTIONS

Split = Literal["train", "validation", "test"]
SPLITS: tuple[Split, ...] = ("train", "validation", "test")
_LETTERS = "ABCD"


@dataclass(frozen=True)
class DataSetItem:
    """A track with its reply and split."""

    track: Track
    """The track."""
    reply: Reply
    """The texts about it."""
    split: Split = "train"
    """Part of the data."""

    @property
    def pairs(self) -> Iterator[tuple[str, str, str]]:
        """Kind, question and answer of everything that can be asked, choices last."""
        for question, answer in zip(FIXED_QUESTIONS, self.reply.fixed, strict=True):
            yield "fixed", question, answer
        for pair in self.reply.pairs:
            yield "open", pair.question, pair.answer
        if self.reply.caption:
            yield "caption", "Write a caption for this music.", self.reply.caption
        for number, choice in enumerate(self.reply.choices):
            options = _shuffled((choice.answer, *choice.distractors), key=f"{self.track.id} {number}")
            shown = " ".join(f"({letter}) {option}" for letter, option in zip(_LETTERS, options, strict=False))
            right = _LETTERS[options.index(choice.answer)]
            yield "choice", f"{choice.question} {shown}", f"({right}) {choice.answer}"

    def to_dict(self) -> dict[str, Any]:
        """Give plain values for JSON."""
        return {"id": self.track.id, "split": self.split, "track": self.track.to_dict(), "reply": self.reply.to_dict()}

    @classmethod
    def from_dict(cls, plain: dict[str, Any]) -> DataSetItem:
        """Undo `to_dict`."""
        return cls(Track.from_dict(plain["track"]), Reply.from_dict(plain["reply"]), plain["split"])


def split_of(group: str, *, validation: float, test: float, seed: int) -> Split:
    """Choose the split of a group by a hash of its name: tracks of one group are in one split.

    Args:
        group: `Track.group`.
        validation: share of the groups.
        test: share of the groups.
        seed: another one draws anew.

    Example:
        >>> split_of("X", validation=0.1, test=0.1, seed=0)
        'train'
    """
    drawn = int.from_bytes(_digest(f"{seed} {group}")[:8], "big") / 2**64
    if drawn < test:
        return "test"
    return "validation" if drawn < test + validation else "train"


def write_items(path: Path, items: Iterable[DataSetItem]) -> None:
    """Write items, one a line, in one step; paths of audio are relative to the file's folder."""
    paths = AudioPaths.of(path.parent)
    write_whole(path, (to_line(replace(item, track=paths.to_record(item.track)).to_dict()) for item in items))


def read_items(path: Path, *, root: Path | None = None) -> Iterator[DataSetItem]:
    """Stream items, with the absolute paths of their audio.

    Args:
        path: the file.
        root: where the corpus is now, if it isn't where it was.

    Raises:
        ConfigError: if `root` isn't there.
        RecordError: if the file is damaged.
    """
    paths = AudioPaths.of(path.parent, root=root)
    for plain in read_lines(path):
        item = DataSetItem.from_dict(plain)
        yield replace(item, track=paths.from_record(item.track))


def training_rows(item: DataSetItem, *, folder: Path | None = None) -> Iterator[dict[str, Any]]:
    """Rows that `mu-llama train` reads: one a question.

    Args:
        item: what is asked about.
        folder: of the file that the rows are for: `audio` is relative to it, so that both may move together, and
            `audio_absolute` says where the file is now, so that either may move alone. None writes absolute paths.
    """
    audio: dict[str, str | None] = {"audio": None}
    if item.track.audio is not None:
        absolute = str(item.track.audio.absolute())
        audio = {"audio": absolute}
        if folder is not None:
            audio = {"audio": relative_to_folder(item.track.audio, folder), "audio_absolute": absolute}
    for number, (kind, question, answer) in enumerate(item.pairs):
        yield {
            "id": f"{item.track.id}#{number}", **audio, "question": question, "answer": answer, "kind": kind,
            "group": item.track.group,
        }  # fmt: skip


def _digest(text: str) -> bytes:
    """Hash a text, which may hold half a surrogate pair: file names and labels come from anywhere."""
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).digest()


def _shuffled(options: tuple[str, ...], *, key: str) -> list[str]:
    return sorted(options, key=lambda option: _digest(f"{key} {option}"))


@dataclass(frozen=True)
class Groups:
    """Groups of a corpus."""

    of: Mapping[str, str]
    """Id of every track to its group; tracks that share an artist or audio, also over others, share it."""
    num_same_audio: int
    """Tracks whose audio another track has, too, byte for byte."""

    def joined(self, track: Track) -> Track:
        """Return the track with the group that it shares with other tracks, if that isn't its artist's."""
        group = self.of.get(track.id, track.group)
        return track if group == track.group else dataclasses.replace(track, shared_group=group)


def content_groups(tracks: Iterable[Track]) -> Groups:
    """Group tracks by artist and by the bytes of their audio; files are read only where sizes are equal.

    The names of groups, and so their splits, don't depend on the order of tracks: one that several artists share has
    the first of their names.
    """
    artists: dict[str, str] = {}
    audio: dict[str, Path] = {}
    for track in tracks:
        artists[track.id] = track.group
        if track.audio is not None:
            audio[track.id] = track.audio
    first = equal_files(audio.values())
    parents: dict[str, str] = {}
    owners: dict[Path, str] = {}
    for name, path in audio.items():
        _join(parents, artists[name], owners.setdefault(first[path], artists[name]))
    times = Counter(first[path] for path in audio.values())
    return Groups(
        of={name: _root(parents, group) for name, group in artists.items()},
        num_same_audio=sum(times[first[path]] > 1 for path in audio.values()),
    )


def _join(parents: dict[str, str], one: str, other: str) -> None:
    first, second = sorted((_root(parents, one), _root(parents, other)))
    if first != second:
        parents[second] = first


def _root(parents: Mapping[str, str], group: str) -> str:
    while group in parents:
        group = parents[group]
    return group
