"""Many files, some questions: a table, and files to download."""

from __future__ import annotations

import csv
import io
import json
import tempfile
import zipfile
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from mu_llama.app.service import DemoService
from mu_llama.app.session import DemoSession
from mu_llama.audio.windows import WindowChoice
from mu_llama.engine.sampling import GenerationOptions
from mu_llama.errors import AudioError, QuestionError
from mu_llama.files import without_surrogates
from mu_llama.inference.results import Answer, EncodedTrack, Failure, LazyTrack

HEADINGS = ("file", "question", "answer", "error")
FORMATS = ("csv", "jsonl", "zip")
TableRow = tuple[str, str, str, str]
"""Cells as `HEADINGS`: answer or error is empty."""
_BATCH_ROWS = 8


@dataclass(frozen=True)
class BatchRequest:
    """The questions about every file, and how they are answered."""

    questions: Sequence[str]
    """Empty ones are left out."""
    options: GenerationOptions
    """How answers are generated."""
    window: WindowChoice | None = None
    """Which seconds are used; None as the listener was loaded."""
    knn_weight: float | None = None
    """Share of an index's neighbours; None is the listener's own."""


def answer_files(
    service: DemoService, session: DemoSession, paths: Sequence[str], request: BatchRequest, *, run: int
) -> Iterator[tuple[int, list[TableRow]]]:
    """Ask every question about every file, until the session stops it or starts another.

    Args:
        service: answers.
        session: the session.
        paths: the files.
        request: what is asked about each.
        run: of the session; once it is superseded, the computation ends at the next token.

    Yields:
        How many files are done, and all rows so far.

    Raises:
        AudioError: if there are no files.
        QuestionError: if there are no questions, or more than the limit allows.
    """
    questions = [question.strip() for question in request.questions if question.strip()]
    if not paths:
        raise AudioError("there are no files yet; drop some first")
    if not questions:
        raise QuestionError("there is no question yet; write one a line")
    if len(paths) * len(questions) > service.limits.max_answers:
        raise QuestionError(
            f"{len(paths)} files and {len(questions)} questions are {len(paths) * len(questions)} answers, the most is "
            f"{service.limits.max_answers}; drop fewer"
        )
    tracks = [
        LazyTrack(name, partial(_encode, service, path, name, request))
        for path, name in zip(paths, unique_names(paths), strict=True)
    ]
    answers = service.listener.iterate_many(
        tracks,
        questions,
        options=request.options,
        batch_size=_BATCH_ROWS,
        should_stop=lambda: not session.is_current(run),
    )
    rows: list[TableRow] = []
    if session.is_current(run):
        yield 0, []
    for answer in answers:
        rows.append(_table_row(answer))
        if len(rows) % len(questions) == 0:
            yield len(rows) // len(questions), list(rows)
    if len(rows) % len(questions):
        yield len(rows) // len(questions), list(rows)


def _encode(service: DemoService, path: str, name: str, request: BatchRequest) -> EncodedTrack:
    track = service.encode(path, window=request.window)
    if request.knn_weight is not None:
        track = service.listener.with_blend(track, request.knn_weight)
    return replace(track, name=name)


def _table_row(answer: Answer | Failure) -> TableRow:
    if isinstance(answer, Failure):
        return (
            without_surrogates(answer.audio),
            without_surrogates(answer.question),
            "",
            without_surrogates(str(answer.error)),
        )
    return without_surrogates(answer.audio), answer.question, answer.text, ""


def unique_names(paths: Sequence[str]) -> list[str]:
    """Names of files, numbered where several files have the same.

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


def save_all(rows: Sequence[TableRow]) -> list[str]:
    """Write rows in every format, into a folder that is deleted when the process ends; returns paths as `FORMATS`."""
    if not _FOLDERS:
        _FOLDERS.append(tempfile.TemporaryDirectory(prefix="mu-llama-demo-"))
    folder = Path(tempfile.mkdtemp(prefix="answers-", dir=_FOLDERS[0].name))
    return [str(save_rows(rows, folder, form)) for form in FORMATS]


_FOLDERS: list[tempfile.TemporaryDirectory[str]] = []


def save_rows(rows: Sequence[TableRow], folder: Path, form: str) -> Path:
    """Write rows as one file to download.

    Args:
        rows: from `answer_files`.
        folder: where.
        form: `csv`, `jsonl`, or `zip` of one text file for each track, named like it as captions are.
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


def _write_sidecars(rows: Sequence[TableRow], path: Path) -> None:
    """One text file for each track; a file with several answers holds the questions too."""
    texts: dict[str, list[tuple[str, str]]] = {}
    for name, question, answer, _ in rows:
        if answer:
            texts.setdefault(name, []).append((question, answer))
    stems = Counter(Path(name).stem for name in texts)
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, answered in texts.items():
            stem = Path(name).stem if stems[Path(name).stem] == 1 else name
            single = answered[0][1] + "\n"
            text = (
                single if len(answered) == 1 else "".join(f"{question}\n{answer}\n\n" for question, answer in answered)
            )
            archive.writestr(f"{stem}.txt", text)


def _not_a_formula(cell: str) -> str:
    """Keep spreadsheets from evaluating a cell as a formula."""
    return f"'{cell}" if cell.startswith(("=", "+", "-", "@", "\t", "\r")) else cell
