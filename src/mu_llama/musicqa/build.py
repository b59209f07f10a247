"""Build a data set: list the tracks, write about each, check, and put the result in order. Resumable at any moment."""

from __future__ import annotations

import asyncio
import dataclasses
import importlib.metadata
import importlib.resources
import json
import platform
import string
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any

from mu_llama import __version__
from mu_llama.errors import ConfigError
from mu_llama.files import to_line, write_whole
from mu_llama.labels.track import Track
from mu_llama.musicqa.build_folder import ITEMS_FILE, BuildError, BuildFolder
from mu_llama.musicqa.changes import Changes
from mu_llama.musicqa.items import SPLITS, DataSetItem, content_groups, read_items, split_of, training_rows, write_items
from mu_llama.musicqa.measuring import with_true_length
from mu_llama.musicqa.reply import Reply
from mu_llama.musicqa.report import build_report, printable
from mu_llama.musicqa.sources.corpus_files import BadTrack
from mu_llama.musicqa.worker import Outcome, Rules, write_track
from mu_llama.musicqa.writers.protocol import Writer

_PASSES = 3
_MAX_FAILURES_IN_A_ROW = 20
_PACKAGES = ("openai", "transformers", "llguidance", "py3langid", "ray")

OnOutcome = Callable[[Outcome, int, int], None]
"""Called with the outcome of a track, the number of tracks done, and the number of all."""
Runner = Callable[[Iterable[Track], Rules], Iterator[Outcome]]
"""Writes about tracks, in this process or on a cluster."""


@dataclass(frozen=True)
class BuildOptions:
    """Settings of a build."""

    rules: Rules = field(default_factory=Rules)
    """Checks that a reply must pass."""
    validation: float = 0.05
    """Share of the artists that is for validation."""
    test: float = 0.05
    """Share of the artists that is for tests."""
    seed: int = 0
    """Seed of the split."""
    keep_missing: bool = False
    """Write about tracks whose audio is missing, too."""
    limit: int | None = None
    """Maximum number of tracks; None takes all."""
    price_in: float | None = None
    """Cost of a million tokens read, for the report."""
    price_out: float | None = None
    """Cost of a million tokens written."""


def build_data_set(
    folder: BuildFolder,
    corpus: Callable[[], Iterable[Track | BadTrack]],
    runner: Runner,
    options: BuildOptions,
    *,
    identity: dict[str, Any],
    on_outcome: OnOutcome = lambda *_: None,
    retry_rejects: bool = False,
    refresh: bool = False,
    on_changes: Callable[[Changes], None] = lambda _: None,
) -> dict[str, Any]:
    """Build, or go on with a build that was stopped; a finished one is left as it is.

    The corpus is listed each time; audio that only moved is found at its new path.

    Args:
        folder: where everything is written.
        corpus: opens the stream of its tracks.
        runner: `in_this_process`, or on a cluster.
        options: what the data set is made of.
        identity: source and writer, for run.json; with other ones a build doesn't go on. `root` is where the corpus is.
        on_outcome: called for every track.
        retry_rejects: take rejected tracks up again.
        refresh: if the corpus changed since it was listed, write about what is new or changed and drop what is gone;
            replies about all else stay.
        on_changes: called with what changed, before it is written about.

    Returns:
        The report: counts, tokens, reasons of rejections.

    Raises:
        ConfigError: if the folder holds another build, or the corpus changed and `refresh` isn't set.
        SourceError: if the source can't be read, or has no track that can be used.
        BuildError: if tracks stay unwritten, or the disk is full; the same command goes on.
        Refused: if the writer will not work at all.
    """
    with folder.locked():
        folder.begin(_settings(identity, options), _versions())
        root = Path(identity["root"]) if "root" in identity else None
        if folder.has_tracks:
            _check_corpus(folder, _usable_tracks(corpus(), options), root=root, refresh=refresh, on_changes=on_changes)
        else:
            folder.list_tracks(_usable_tracks(corpus(), options), root=root)
        if retry_rejects:
            folder.forget_rejects()
        finished: dict[str, Any] | None = folder.run().get("report")
        if finished is not None:
            return finished if folder.is_whole else finish_build(folder, options)
        unwritten = _write_all(folder, runner, options.rules, on_outcome)
        if unwritten:
            raise BuildError(
                f"{unwritten[0]} tracks are not written yet ({unwritten[1]}); what is written stays: start the same "
                "command again"
            )
        return finish_build(folder, options)


def _check_corpus(
    folder: BuildFolder,
    corpus: Iterable[Track | BadTrack],
    *,
    root: Path | None,
    refresh: bool,
    on_changes: Callable[[Changes], None],
) -> None:
    """Compare the corpus with the list of it; take changes over, if asked to or if they cost no reply.

    Raises:
        ConfigError: if it changed and `refresh` isn't set.
    """
    changes = folder.changes(corpus)
    if changes is None:
        folder.note_root(root)
        return
    if changes and not refresh:
        folder.forget_new_list()
        raise ConfigError(
            f"{folder.path}: the corpus changed since this build listed it: {printable(str(changes))}; add --refresh "
            "to write about what is new or changed and drop what is gone, or choose another --out"
        )
    if changes:
        on_changes(changes)
    folder.take_changes(changes, root=root)


def in_this_process(writer: Writer) -> Runner:
    """Write in this process, as many tracks concurrently as the writer takes."""

    def run(tracks: Iterable[Track], rules: Rules) -> Iterator[Outcome]:
        loop = asyncio.new_event_loop()
        pending: set[asyncio.Task[Outcome]] = set()
        source = iter(tracks)
        try:
            while True:
                for track in islice(source, writer.num_at_once - len(pending)):
                    pending.add(loop.create_task(write_track(writer, track, rules)))
                if not pending:
                    return
                wait = asyncio.wait(pending, return_when=asyncio.FIRST_COMPLETED)
                done, pending = loop.run_until_complete(wait)
                failed = [task for task in done if task.exception() is not None]
                for task in done:
                    if task not in failed:
                        yield task.result()
                if failed:
                    raise failed[0].exception() or AssertionError
        finally:
            for task in pending:
                task.cancel()
            if pending:
                loop.run_until_complete(asyncio.wait(pending))
            loop.close()

    return run


def _write_all(folder: BuildFolder, runner: Runner, rules: Rules, on_outcome: OnOutcome) -> tuple[int, str] | None:
    """Write about every track without an outcome; gives the number that stays unwritten and why, or None."""
    done = folder.done()
    total = sum(1 for _ in folder.tracks())
    reason = "the writer gave nothing"
    answered = bool(done)
    for _ in range(_PASSES):
        before, failures_in_a_row = len(done), 0
        # Unreadable replies before any readable one mean a wrong server: they are recorded only after a good one.
        unreadable: list[Outcome] = []
        for outcome in runner((track for track in folder.tracks() if track.id not in done), rules):
            is_failure = outcome.failed is not None or (outcome.is_unreadable and not answered)
            failures_in_a_row = failures_in_a_row + 1 if is_failure else 0
            if is_failure:
                reason = outcome.failed or f"no reply could be read: {outcome.reasons[0]}"
                unreadable += [] if outcome.failed else [outcome]
            else:
                answered = True
                for result in (*unreadable, outcome):
                    folder.keep(result)
                    done.add(result.id)
                unreadable.clear()
            on_outcome(outcome, len(done), total)
            if failures_in_a_row >= _MAX_FAILURES_IN_A_ROW:
                break
        if len(done) == total or len(done) == before:
            break
    return (total - len(done), reason) if len(done) < total else None


def finish_build(folder: BuildFolder, options: BuildOptions) -> dict[str, Any]:
    """Put replies in order, split them by artist and audio, write the rows for training and the report."""
    groups = content_groups(folder.tracks())

    def items() -> Iterator[DataSetItem]:
        for listed, row in folder.replies_in_order():
            track = groups.joined(listed)
            split = split_of(track.group, validation=options.validation, test=options.test, seed=options.seed)
            yield DataSetItem(track, Reply.from_dict(row["reply"]), split)

    path = folder.path / ITEMS_FILE
    write_items(path, items())
    for split in SPLITS:
        rows = (
            row for item in read_items(path) if item.split == split for row in training_rows(item, folder=folder.path)
        )
        write_whole(folder.path / f"{split}.jsonl", map(to_line, rows))
    folder.write_dropped()
    report = build_report(folder, options, num_same_audio=groups.num_same_audio)
    folder.finish(report)
    return report


def _usable_tracks(corpus: Iterable[Track | BadTrack], options: BuildOptions) -> Iterator[Track | BadTrack]:
    count = 0
    for row in corpus:
        if isinstance(row, Track) and row.audio is None and not options.keep_missing:
            yield BadTrack(row.id, "its audio is missing; --missing-audio keep writes about it all the same")
            continue
        if isinstance(row, Track):
            row = with_true_length(row)
        yield row
        count += isinstance(row, Track)
        if count == options.limit:
            return  # before another track is looked for, and maybe measured


def _settings(identity: dict[str, Any], options: BuildOptions) -> dict[str, Any]:
    rules = dataclasses.asdict(options.rules)
    rules.pop("prompt")  # its hash is in the writer's identity
    rules = {"wanted": rules.pop("reply_spec"), **rules}  # compat: its name in run.json
    others = dataclasses.asdict(dataclasses.replace(options, rules=Rules()))
    others = {name: value for name, value in others.items() if name not in ("rules", "price_in", "price_out")}
    return {**identity, **rules, **others}


def _versions() -> dict[str, str]:
    versions = {"mu-llama": __version__, "python": platform.python_version()}
    for name in _PACKAGES:
        try:
            versions[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return versions


_TRAINING_CONFIG_FILE = "train.yaml"


def write_training_config(folder: Path) -> None:
    """Write settings for training on a build into its folder, sized for a laptop; an existing file stays.

    Training takes paths in settings from the working directory on, so they are absolute here.

    Raises:
        OSError: if the disk is full or the folder can't be written.
    """
    if (folder / _TRAINING_CONFIG_FILE).exists():
        return
    text = importlib.resources.files("mu_llama.musicqa").joinpath("train.yaml").read_text(encoding="utf-8")
    real = folder.resolve()
    paths = {"train": real / "train.jsonl", "out": real.with_name(real.name + "-run")}
    quoted = {name: json.dumps(str(path)) for name, path in paths.items()}
    write_whole(folder / _TRAINING_CONFIG_FILE, [string.Template(text).substitute(quoted)])
