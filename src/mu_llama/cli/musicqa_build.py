"""`mu-llama musicqa build`: write about every track of a corpus, with its progress on standard error."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from mu_llama.cli import options as opt
from mu_llama.cli.progress import plain_console
from mu_llama.errors import ConfigError, MuLlamaError
from mu_llama.musicqa.sources import SOURCES

if TYPE_CHECKING:
    from mu_llama.musicqa.build import BuildOptions, Runner
    from mu_llama.musicqa.build_folder import BuildFolder
    from mu_llama.musicqa.worker import Outcome
    from mu_llama.musicqa.writers.protocol import WriterSpec

_SHOWN_EVERY = 100


@dataclass(frozen=True)
class WriterOptions:
    """Who writes, and how."""

    writer: Annotated[
        str,
        typer.Option(help="template (no language model), endpoint (OpenAI-compatible server), local (transformers)."),
    ] = "template"
    model: Annotated[
        str | None,
        typer.Option(help="As the server calls it; for local a folder or hub id.", show_default="the embedded one"),
    ] = None
    base_url: Annotated[str | None, typer.Option(help="Server's address up to /v1.", show_default=False)] = None
    key_variable: Annotated[str, typer.Option(help="Environment variable with the server's key.")] = "OPENAI_API_KEY"
    prompts: Annotated[
        Path | None, typer.Option(help="Folder with your own system.txt and user.txt.", show_default=False)
    ] = None
    concurrency: Annotated[int, typer.Option(min=1, help="Most requests in flight.")] = 16
    retries: Annotated[int, typer.Option(min=0, help="How often a request is sent again after an error.")] = 8
    timeout: Annotated[float, typer.Option(min=0.1, help="Longest wait for a reply, in seconds.")] = 120.0
    temperature: Annotated[float, typer.Option(min=0, help="Of sampling.")] = 0.7
    max_tokens: Annotated[int, typer.Option(min=16, help="Longest reply.")] = 1600
    one_by_one: Annotated[
        bool,
        typer.Option(
            "--one-by-one", help="Ask only for the templates' sentences in other words, one by one: for small models."
        ),
    ] = False
    device: Annotated[str, typer.Option(help="For local: auto, cpu, cuda, mps.")] = "auto"


@dataclass(frozen=True)
class ContentOptions:
    """What is written, and what it must keep to."""

    num_pairs: Annotated[int, typer.Option(min=0, help="Open questions a track.")] = 5
    num_choices: Annotated[int, typer.Option(min=0, help="Four-choice questions a track.")] = 2
    language: Annotated[str, typer.Option(help="ISO code replies must be in; any takes all.")] = "en"
    strict: Annotated[bool, typer.Option("--strict", help="Refuse also what no label speaks of.")] = False
    attempts: Annotated[int, typer.Option(min=1, help="Replies asked for before a track is rejected.")] = 4
    validation: Annotated[float, typer.Option(min=0, max=0.5, help="Share of the artists for validation.")] = 0.05
    test: Annotated[float, typer.Option(min=0, max=0.5, help="Share of the artists for tests.")] = 0.05
    seed: Annotated[int, typer.Option(help="Of wordings, sampling and the split.")] = 0
    missing_audio: Annotated[str, typer.Option(help="Tracks without their audio file: skip or keep.")] = "skip"
    measure_facts: Annotated[
        bool, typer.Option("--measure-facts", help="Measure tempo and key of each track, and write about what is sure.")
    ] = False
    limit: Annotated[int | None, typer.Option(min=1, help="Only so many tracks.", show_default=False)] = None
    price_in: Annotated[
        float | None, typer.Option(min=0, help="Cost of a million tokens read.", show_default=False)
    ] = None
    price_out: Annotated[
        float | None, typer.Option(min=0, help="Cost of a million tokens written.", show_default=False)
    ] = None


@opt.records_expanded
def build_command(
    source: Annotated[str, typer.Option(help=f"{', '.join(SOURCES)}.")],
    root: Annotated[Path, typer.Option(help="Its label file, or the folder around labels and audio.")],
    out: Annotated[Path, typer.Option(help="Folder of the build.")],
    writer: WriterOptions,
    content: ContentOptions,
    ray: Annotated[
        str | None, typer.Option(help="Write on a Ray cluster: its address, auto, or local.", show_default=False)
    ] = None,
    num_workers: Annotated[int, typer.Option(min=1, help="With --ray: workers at the same time.")] = 2,
    retry_rejects: Annotated[bool, typer.Option("--retry-rejects", help="Take rejected tracks up again.")] = False,
    refresh: Annotated[
        bool,
        typer.Option("--refresh", help="Write about what changed in the corpus; all else stays."),
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the report as one JSON object.")] = False,
) -> None:
    """Make questions, answers and captions from labels; started again, a build goes on.

    Leaves train.jsonl, validation.jsonl and test.jsonl for `mu-llama train`, train.yaml to begin with, items.jsonl for
    `musicqa export`, rejects.jsonl, skipped.jsonl and dropped.jsonl with reasons, and run.json. A corpus that changed
    since is named, and taken over with --refresh.
    """
    bar = BuildProgress()
    try:
        if writer.writer == "local":  # the others need no transformers, which take seconds to import
            opt.quieten_libraries()
        from mu_llama.musicqa.build import build_data_set, write_training_config
        from mu_llama.musicqa.build_folder import BuildFolder
        from mu_llama.musicqa.report import printable, summary_lines

        _check_places(source, root, out)
        spec, options = _spec(writer, content), _options(writer, content)
        folder = BuildFolder(out)
        identity = _identity(spec, source, root, content)
        report = build_data_set(
            folder,
            lambda: _tracks(source, root, content, folder, bar),
            _runner(spec, ray, num_workers),
            options,
            identity=identity,
            on_outcome=bar.written,
            retry_rejects=retry_rejects,
            refresh=refresh,
            on_changes=lambda changes: print(f"the corpus changed: {printable(str(changes))}", file=sys.stderr),
        )
        write_training_config(out)
    except (MuLlamaError, OSError) as error:
        raise opt.fail(error) from None
    finally:
        bar.close()
    if as_json:
        print(json.dumps(report))
    else:
        print("\n".join(summary_lines(report, {"validation": content.validation, "test": content.test}, out)))
    if report["rejected"] or report["skipped_rows"]:
        raise typer.Exit(opt.PARTLY_FAILED if report["accepted"] else opt.FAILED)


def _check_places(source: str, root: Path, out: Path) -> None:
    """Check the source's name, its root and the folder of the build before anything is written.

    Raises:
        ConfigError: if the source is unknown, its root isn't there, or the build would go into the corpus itself.
    """
    from mu_llama.musicqa.build_folder import RUN_FILE
    from mu_llama.musicqa.sources import source_by_name
    from mu_llama.musicqa.sources.corpus_files import audio_root

    source_by_name(source)
    if not root.exists():
        raise ConfigError(f"--root {root}: there is no such folder or file; expected that of the corpus")
    if out.resolve() == audio_root(root).resolve() and not (out / RUN_FILE).is_file():
        raise ConfigError(f"--out {out}: is the corpus; choose another --out")


def _spec(writer: WriterOptions, content: ContentOptions) -> WriterSpec:
    from mu_llama.musicqa.reply import ReplySpec
    from mu_llama.musicqa.writers.protocol import WriterSpec

    return WriterSpec(
        writer.writer, writer.model, writer.base_url, writer.key_variable, prompts=writer.prompts,
        num_at_once=writer.concurrency, num_retries=writer.retries, timeout_s=writer.timeout,
        temperature=writer.temperature, max_tokens=writer.max_tokens, one_by_one=writer.one_by_one,
        device=writer.device, seed=content.seed,
        reply_spec=ReplySpec(content.num_pairs, content.num_choices),
    )  # fmt: skip


def _options(writer: WriterOptions, content: ContentOptions) -> BuildOptions:
    from mu_llama.musicqa.build import BuildOptions
    from mu_llama.musicqa.reply import ReplySpec
    from mu_llama.musicqa.worker import Rules

    if content.missing_audio not in ("skip", "keep"):
        raise ConfigError(f"--missing-audio is {content.missing_audio!r}; expected skip or keep")
    if content.validation + content.test >= 1:
        raise ConfigError("--validation and --test leave nothing to train on; lower them")
    language = None if content.language == "any" or writer.writer == "template" else content.language
    rules = Rules(
        ReplySpec(content.num_pairs, content.num_choices), language, content.strict, content.attempts,
        _spec(writer, content).prompt, at_most=writer.writer == "template" or writer.one_by_one,
    )  # fmt: skip
    return BuildOptions(
        rules, content.validation, content.test, content.seed, content.missing_audio == "keep", content.limit,
        content.price_in, content.price_out,
    )  # fmt: skip


def _identity(spec: WriterSpec, source: str, root: Path, content: ContentOptions) -> dict[str, Any]:
    """What decides the words, for run.json: no secrets, and nothing that only decides how fast it goes."""
    from mu_llama.musicqa.writers.endpoint import without_credentials
    from mu_llama.musicqa.writers.protocol import LOCAL_MODEL, load_prompts

    named = {
        "source": source,
        "root": str(root.absolute()),
        "writer": spec.kind,
        "measure_facts": content.measure_facts,
    }
    if spec.kind == "template":
        return named
    address = {"base_url": without_credentials(spec.base_url)} if spec.base_url else {}
    sampling = {
        "one_by_one": spec.one_by_one,
        "model": spec.model or LOCAL_MODEL,
        "temperature": spec.temperature,
        "max_tokens": spec.max_tokens,
    }
    return {**named, **address, **sampling, "prompts_sha256": load_prompts(spec.prompts).sha256}


def _tracks(source: str, root: Path, content: ContentOptions, folder: BuildFolder, bar: BuildProgress) -> Any:
    from mu_llama.musicqa.sources import source_by_name

    corpus = bar.listing(source_by_name(source)(root))
    if not content.measure_facts:
        return corpus
    from mu_llama.labels.track import Track
    from mu_llama.musicqa.build_folder import FACTS_FILE
    from mu_llama.musicqa.measuring import FactsFile, with_facts

    listed = list(corpus)
    num_audio = sum(isinstance(row, Track) and row.audio is not None for row in listed)
    facts = FactsFile(folder.path / FACTS_FILE)
    measured = with_facts(listed, facts_of=facts.of, on_measured=bar.measured)
    return bar.measuring(measured, min(num_audio, content.limit or num_audio))


def _runner(spec: WriterSpec, ray: str | None, num_workers: int) -> Runner:
    from mu_llama.cache_folder import home_folder
    from mu_llama.musicqa.build import in_this_process
    from mu_llama.musicqa.writers import make_writer

    if ray is None:
        return in_this_process(make_writer(spec, home=home_folder()))
    from mu_llama.musicqa.on_ray import on_ray

    return on_ray(ray, spec, home=home_folder(), num_workers=num_workers)


class BuildProgress:
    """Progress on standard error, with counts, rate and time left where the number of tracks is known."""

    def __init__(self) -> None:
        self._bar: Any = None
        self._task: Any = None
        self._phase = ""
        self._rejected = self._tokens = 0
        self._begun = (0.0, 0)

    def listing(self, corpus: Iterable[Any]) -> Iterator[Any]:
        """Count tracks while they are listed, which takes long where audio is opened."""
        begun = time.monotonic()
        with plain_console().status("listing tracks") as status:
            for number, track in enumerate(corpus, start=1):
                if number % _SHOWN_EVERY == 0:
                    rate = number / max(1e-3, time.monotonic() - begun)
                    status.update(f"listing tracks: {number}  {rate:.0f} tracks/s")
                yield track

    def measuring(self, corpus: Iterable[Any], total: int) -> Iterator[Any]:
        """Draw a bar while tracks are measured, until the iteration ends."""
        self._start("measuring", total, 0)
        try:
            yield from corpus
        finally:
            self.close()

    def measured(self, done: int) -> None:
        """Count a measured track."""
        if self._phase == "measuring":
            self._advance(done, "measuring")

    def written(self, outcome: Outcome, done: int, total: int) -> None:
        """Count a track that was written about."""
        if self._bar is None or self._phase != "writing":
            self.close()
            self._start("writing", total, max(0, done - 1))
        self._rejected += bool(outcome.reasons)
        self._tokens += outcome.completion_tokens
        self._advance(
            done, f"writing  {self._rejected} rejected" + (f"  {self._tokens} tokens" if self._tokens else "")
        )

    def _advance(self, done: int, description: str) -> None:
        seconds = max(1e-3, time.monotonic() - self._begun[0])
        rate = f"{(done - self._begun[1]) / seconds:.1f} tracks/s"
        self._bar.update(self._task, completed=done, description=description, rate=rate)

    def _start(self, phase: str, total: int, done: int) -> None:
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

        columns = (
            TextColumn("{task.description}", markup=False),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[rate]}", markup=False),
        )
        self._bar = Progress(*columns, TimeRemainingColumn(), console=plain_console())
        self._bar.start()
        self._task = self._bar.add_task(phase, total=total, completed=done, rate="")
        self._phase, self._begun = phase, (time.monotonic(), done)

    def close(self) -> None:
        """Leave the terminal as it was."""
        if self._bar is not None:
            self._bar.stop()
            self._bar, self._phase = None, ""
