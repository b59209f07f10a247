"""The card of a data set: README.md with sources, licences, counts, plots and settings."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from mu_llama.files import write_whole
from mu_llama.musicqa.items import SPLITS, DataSetItem
from mu_llama.musicqa.report import printable
from mu_llama.musicqa.statistics import ItemCounts, count_items, plot_bars, plot_histograms

_PLOTS_FOLDER = "plots"
_MAX_SHOWN = 15


def write_data_card(
    out: Path, items: Iterable[DataSetItem], run: Mapping[str, Any], *, split_files: str | None = None
) -> None:
    """Write README.md and plots/.

    Args:
        out: folder of the data set.
        items: all of it.
        run: what run.json of the build holds; empty for imported data.
        split_files: pattern of a split's files with the place `{split}`, to be named for the hub; None names none.
    """
    counts = count_items(items)
    tags = {category: names.most_common(_MAX_SHOWN) for category, names in counts.tracks.tags.items() if names}
    plot_bars(out / _PLOTS_FOLDER / "tags.png", tags, unit="tracks")
    plot_histograms(out / _PLOTS_FOLDER / "answers.png", counts.answer_words, unit="words in an answer")
    plot_bars(
        out / _PLOTS_FOLDER / "questions.png",
        {"questions by kind": counts.kinds.most_common(), "open questions begin": counts.first_words.most_common(12)},
        unit="questions",
    )
    write_whole(out / "README.md", [_head(counts, split_files), _body(counts, run)])


def _head(counts: ItemCounts, split_files: str | None) -> str:
    lines = ["---", "task_categories: [audio-text-to-text]", "language: [en]", "tags: [music, question-answering]"]
    if split_files is not None:
        lines += ["configs:", "- config_name: default", "  data_files:"]
        for split in SPLITS:
            if counts.splits[split]:
                lines += [f"  - split: {split}", f"    path: {split_files.format(split=split)}"]
    return "\n".join([*lines, "---", "", ""])


def _body(counts: ItemCounts, run: Mapping[str, Any]) -> str:
    tracks = counts.tracks
    settings, report = run.get("settings", {}), run.get("report", {})
    words = [length for lengths in counts.answer_words.values() for length in lengths]
    parts = [
        "# Questions and answers about music\n",
        _table(
            ("tracks", "hours", "artists", "questions", "words in an answer, mean"),
            [(tracks.num_tracks, f"{tracks.seconds / 3600:.1f}", len(tracks.groups), sum(counts.kinds.values()),
              f"{sum(words) / max(1, len(words)):.1f}")],
        ),
        "## Splits\n\nAll tracks of an artist are in one split.\n",
        _table(("split", "tracks"), [(split, counts.splits[split]) for split in SPLITS]),
        "## Sources and licences\n\nLabels and audio keep the licences of their sources; respect the strictest.\n",
        _table(("source", "tracks"), tracks.sources.most_common()),
        _table(("licence", "tracks"), tracks.licences.most_common(20)),
        "## Questions\n",
        _table(("kind", "questions"), counts.kinds.most_common()),
        f"![questions]({_PLOTS_FOLDER}/questions.png)\n\n![lengths of answers]({_PLOTS_FOLDER}/answers.png)\n",
        f"## Labels\n\n![labels]({_PLOTS_FOLDER}/tags.png)\n",
        "## How it was made\n",
    ]  # fmt: skip
    if settings:
        parts.append("Texts were made from labels alone; nobody listened. Each was checked against its labels, in "
                     "shape, language and length, and rejected where it failed.\n")  # fmt: skip
        report = {name: value for name, value in report.items() if not name.endswith("_first")}  # names of files
        shown = {**settings, "root": Path(str(settings.get("root", ""))).name}  # the folders around it are private
        parts.append(f"```json\n{json.dumps({'settings': shown, 'report': report}, indent=2)}\n```\n")
    else:
        parts.append("Imported from files of another pipeline.\n")
    return "\n".join(parts)


def _table(header: Sequence[str], rows: Iterable[Sequence[Any]]) -> str:
    lines = ["| " + " | ".join(header) + " |", "|" + "---|" * len(header)]
    lines += ["| " + " | ".join(printable(str(cell)).replace("|", "/") for cell in row) + " |" for row in rows]
    return "\n".join([*lines, ""])
