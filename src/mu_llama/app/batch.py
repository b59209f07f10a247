"""Many files, some questions: a table, and files to download."""

from __future__ import annotations

import csv
import io
import json
import zipfile
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from mu_llama.answers import Answer
from mu_llama.app.chat import Desk
from mu_llama.errors import AudioError, QuestionError
from mu_llama.generation import GenerationOptions

HEADINGS = ("file", "question", "answer", "error")
FORMATS = ("csv", "jsonl", "zip")
Row = tuple[str, str, str, str]
"""As `HEADINGS`: answer or error is empty."""


def answer_files(
    desk: Desk,
    paths: Sequence[str],
    questions: Sequence[str],
    *,
    options: GenerationOptions,
    stopped: Callable[[], bool] = lambda: False,
) -> Iterator[tuple[int, list[Row]]]:
    """Ask every question about every file.

    Yields:
        How many files are done, and all rows so far.

    Raises:
        AudioError: if there are no files.
        QuestionError: if there are no questions.
    """
    questions = [question.strip() for question in questions if question.strip()]
    if not paths:
        raise AudioError("there are no files yet; drop some first")
    if not questions:
        raise QuestionError("there is no question yet; write one a line")
    rows: list[Row] = []
    for done, path in enumerate(paths, start=1):
        rows += _about(desk, Path(path), questions, options)
        yield done, list(rows)
        if stopped():
            return


def _about(desk: Desk, path: Path, questions: Sequence[str], options: GenerationOptions) -> list[Row]:
    try:
        held = desk.take(path)
    except AudioError as error:
        return [(path.name, question, "", str(error)) for question in questions]
    try:
        results = desk.listener.ask_many([held.track], list(questions), options=options)
    finally:
        desk.drop(held.token)
    return [
        (path.name, result.question, result.text, "")
        if isinstance(result, Answer)
        else (path.name, result.question, "", str(result.error))
        for result in results
    ]


def write_rows(rows: Sequence[Row], folder: Path, form: str) -> Path:
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
        path.write_text(text.getvalue(), encoding="utf-8")
    elif form == "jsonl":
        lines = [json.dumps(dict(zip(HEADINGS, row, strict=True)), ensure_ascii=False) + "\n" for row in rows]
        path.write_text("".join(lines), encoding="utf-8")
    else:
        _write_sidecars(rows, path)
    return path


def _write_sidecars(rows: Sequence[Row], path: Path) -> None:
    """One text file for each track: its answers, a paragraph each."""
    texts: dict[str, list[str]] = {}
    for name, _, answer, _ in rows:
        if answer:
            texts.setdefault(name, []).append(answer)
    stems = Counter(Path(name).stem for name in texts)
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, answers in texts.items():
            stem = Path(name).stem
            archive.writestr(f"{stem if stems[stem] == 1 else name}.txt", "\n\n".join(answers) + "\n")


def _not_a_formula(cell: str) -> str:
    """Keep spreadsheets from running a cell as a formula."""
    return f"'{cell}" if cell.startswith(("=", "+", "-", "@", "\t")) else cell
