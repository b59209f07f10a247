"""Many files, some questions: a table, and files to download."""

from __future__ import annotations

import csv
import io
import json
import tempfile
import zipfile
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from mu_llama.app.service import DemoService, Window
from mu_llama.app.session import Visit
from mu_llama.errors import AudioError, QuestionError
from mu_llama.generation import GenerationOptions
from mu_llama.inference.answering import Row as Waiting
from mu_llama.inference.answering import end_of_batch, rows_of, write_rows
from mu_llama.inference.results import Answer, EncodedTrack, Failure

HEADINGS = ("file", "question", "answer", "error")
FORMATS = ("csv", "jsonl", "zip")
Row = tuple[str, str, str, str]
"""As `HEADINGS`: answer or error is empty."""
_BATCH_ROWS = 8


@dataclass(frozen=True)
class Asked:
    """What is asked about every file, and how."""

    questions: Sequence[str]
    """Empty ones are left out."""
    options: GenerationOptions
    """How answers are written."""
    window: Window = "auto"
    """Which seconds are heard."""
    knn_weight: float | None = None
    """Share of an index's neighbours; None is the listener's own."""


def answer_files(
    desk: DemoService, visit: Visit, paths: Sequence[str], asked: Asked, *, run: int
) -> Iterator[tuple[int, list[Row]]]:
    """Ask every question about every file, until the session stops it or starts another.

    Args:
        desk: answers.
        visit: the session.
        paths: the files.
        asked: about each.
        run: of the visit; once it is overtaken, the computation ends at the next word.

    Yields:
        How many files are done, and all rows so far.

    Raises:
        AudioError: if there are no files.
        QuestionError: if there are no questions, or more than the limit allows.
    """
    questions = [question.strip() for question in asked.questions if question.strip()]
    if not paths:
        raise AudioError("there are no files yet; drop some first")
    if not questions:
        raise QuestionError("there is no question yet; write one a line")
    if len(paths) * len(questions) > desk.limits.most_answers:
        raise QuestionError(
            f"{len(paths)} files and {len(questions)} questions are {len(paths) * len(questions)} answers, the most is "
            f"{desk.limits.most_answers}; drop fewer"
        )
    rows, waiting = list[Row](), list[Waiting | Failure]()
    for heard, (path, name) in enumerate(zip(paths, unique_names(paths), strict=True), start=1):
        if not visit.is_current(run):
            return
        waiting += rows_of(desk.listener.opened, partial(_heard, desk, path, name, asked), questions, name=name)
        while waiting and visit.is_current(run):
            end = end_of_batch(waiting, _BATCH_ROWS)
            if end is None and heard < len(paths):
                break
            rows += _answered(desk, waiting[:end], asked, lambda: visit.is_current(run))
            waiting = [] if end is None else waiting[end:]
        yield len(rows) // len(questions), list(rows)


def _heard(desk: DemoService, path: str, name: str, asked: Asked) -> EncodedTrack:
    return replace(desk.blended(desk.hear(path, window=asked.window), asked.knn_weight), name=name)


def _answered(
    desk: DemoService, waiting: Sequence[Waiting | Failure], asked: Asked, goes_on: Callable[[], bool]
) -> Iterator[Row]:
    """The rows of one batch, in order; an answer that a stop cuts short isn't given."""
    asking = [row for row in waiting if not isinstance(row, Failure)]
    answers: dict[int, str] = {}
    written = write_rows(desk.listener.opened, asking, asked.options) if asking else iter(())
    for number, piece in desk.compute.each(written):
        if isinstance(piece, Answer):
            answers[number] = piece.text
        if not goes_on():
            break
    numbers = iter(range(len(asking)))
    for row in waiting:
        if isinstance(row, Failure):
            yield readable(row.audio), readable(row.question), "", readable(str(row.error))
        elif (number := next(numbers)) in answers:
            yield readable(row.track.name), row.question, answers[number], ""


def readable(text: str) -> str:
    r"""A text as a page and a file can hold it: a question mark for each half of a surrogate pair.

    Example:
        >>> readable("half an emoji: \ud83d")
        'half an emoji: ?'
    """
    return text.encode("utf-8", "replace").decode("utf-8")


def unique_names(paths: Sequence[str]) -> list[str]:
    """Names of files, numbered where several have one.

    Example:
        >>> unique_names(["cd1/01.wav", "cd2/01.wav", "b.ogg"])
        ['01.wav', '01 (2).wav', 'b.ogg']
    """
    names: list[str] = []
    for path in map(Path, paths):
        number, name = 1, path.name
        while name in names:
            number += 1
            name = f"{path.stem} ({number}){path.suffix}"
        names.append(name)
    return names


def save_all(rows: Sequence[Row]) -> list[str]:
    """Write rows in every form, into a folder that goes when the process ends; gives the paths as `FORMATS`."""
    if not _FOLDERS:
        _FOLDERS.append(tempfile.TemporaryDirectory(prefix="mu-llama-demo-"))
    folder = Path(tempfile.mkdtemp(prefix="answers-", dir=_FOLDERS[0].name))
    return [str(save_rows(rows, folder, form)) for form in FORMATS]


_FOLDERS: list[tempfile.TemporaryDirectory[str]] = []


def save_rows(rows: Sequence[Row], folder: Path, form: str) -> Path:
    """Write rows as one file to download.

    Args:
        rows: from `answer_files`.
        folder: where.
        form: `csv`, `jsonl`, or `zip` of a text file a track, beside which people keep captions.
    """
    path = folder / f"answers.{form}"
    if form == "csv":
        text = io.StringIO()
        writer = csv.writer(text)
        writer.writerow(HEADINGS)
        writer.writerows([[_not_a_formula(cell) for cell in row] for row in rows])
        path.write_text(text.getvalue(), encoding="utf-8", newline="")
    elif form == "jsonl":
        lines = [json.dumps(dict(zip(HEADINGS, row, strict=True)), ensure_ascii=False) + "\n" for row in rows]
        path.write_text("".join(lines), encoding="utf-8")
    else:
        _write_sidecars(rows, path)
    return path


def _write_sidecars(rows: Sequence[Row], path: Path) -> None:
    """One text file for each track; one of several answers says what each was asked."""
    texts: dict[str, list[tuple[str, str]]] = {}
    for name, question, answer, _ in rows:
        if answer:
            texts.setdefault(name, []).append((question, answer))
    stems = Counter(Path(name).stem for name in texts)
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, said in texts.items():
            stem = Path(name).stem if stems[Path(name).stem] == 1 else name
            single = said[0][1] + "\n"
            text = single if len(said) == 1 else "".join(f"{question}\n{answer}\n\n" for question, answer in said)
            archive.writestr(f"{stem}.txt", text)


def _not_a_formula(cell: str) -> str:
    """Keep spreadsheets from running a cell as a formula."""
    return f"'{cell}" if cell.startswith(("=", "+", "-", "@", "\t", "\r")) else cell
