"""`mu-llama musicqa build`: write about every track of a corpus."""

from __future__ import annotations

import json
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from mu_llama.cli import options as opt
from mu_llama.errors import ConfigError, MuLlamaError

if TYPE_CHECKING:
    from mu_llama.musicqa.build import BuildOptions, Runner
    from mu_llama.musicqa.worker import Outcome
    from mu_llama.musicqa.writers.spec import WriterSpec


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
def build(
    source: Annotated[str, typer.Option(help="musiccaps, magnatagatune, mtg-jamendo or folder.")],
    root: Annotated[Path, typer.Option(help="Its label file, or the folder around labels and audio.")],
    out: Annotated[Path, typer.Option(help="Folder of the build.")],
    writer: WriterOptions,
    content: ContentOptions,
    ray: Annotated[
        str | None, typer.Option(help="Write on a Ray cluster: its address, auto, or local.", show_default=False)
    ] = None,
    num_workers: Annotated[int, typer.Option(min=1, help="With --ray: workers at the same time.")] = 2,
    retry_rejects: Annotated[bool, typer.Option("--retry-rejects", help="Take rejected tracks up again.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the report as one JSON object.")] = False,
) -> None:
    """Make questions, answers and captions from labels; started again, a build goes on.

    Leaves train.jsonl, validation.jsonl and test.jsonl for `mu-llama train`, items.jsonl for `musicqa export`,
    rejects.jsonl and skipped.jsonl with reasons, and run.json.
    """
    bar = _Bar()
    try:
        opt.quieten_libraries()
        from mu_llama.musicqa.build import build as run
        from mu_llama.musicqa.build_folder import BuildFolder

        spec, options = _spec(writer, content), _options(writer, content)
        folder = BuildFolder(out)
        identity = _identity(spec, source, root, content)
        report = run(
            folder,
            lambda: bar.listing(_tracks(source, root, content)),
            _runner(spec, ray, num_workers),
            options,
            identity=identity,
            on_outcome=bar.update,
            retry_rejects=retry_rejects,
        )
    except MuLlamaError as error:
        raise opt.fail(error) from None
    finally:
        bar.close()
    print(json.dumps(report) if as_json else _told(report, out))
    if report["rejected"] or report["skipped_rows"]:
        raise typer.Exit(opt.PARTLY_FAILED if report["accepted"] else opt.FAILED)


def _spec(writer: WriterOptions, content: ContentOptions) -> WriterSpec:
    from mu_llama.musicqa.reply import Wanted
    from mu_llama.musicqa.writers.spec import WriterSpec

    return WriterSpec(
        writer.writer, writer.model, writer.base_url, writer.key_variable, prompts=writer.prompts,
        num_at_once=writer.concurrency, num_retries=writer.retries, timeout_s=writer.timeout,
        temperature=writer.temperature, max_tokens=writer.max_tokens, one_by_one=writer.one_by_one,
        device=writer.device, seed=content.seed,
        wanted=Wanted(content.num_pairs, content.num_choices),
    )  # fmt: skip


def _options(writer: WriterOptions, content: ContentOptions) -> BuildOptions:
    from mu_llama.musicqa.build import BuildOptions
    from mu_llama.musicqa.reply import Wanted
    from mu_llama.musicqa.worker import Rules

    if content.missing_audio not in ("skip", "keep"):
        raise ConfigError(f"--missing-audio is {content.missing_audio!r}; expected skip or keep")
    if content.validation + content.test >= 1:
        raise ConfigError("--validation and --test leave nothing to train on; lower them")
    language = None if content.language == "any" or writer.writer == "template" else content.language
    rules = Rules(
        Wanted(content.num_pairs, content.num_choices), language, content.strict, content.attempts,
        _spec(writer, content).prompt, at_most=writer.writer == "template" or writer.one_by_one,
    )  # fmt: skip
    return BuildOptions(
        rules, content.validation, content.test, content.seed, content.missing_audio == "keep", content.limit,
        content.price_in, content.price_out,
    )  # fmt: skip


def _identity(spec: WriterSpec, source: str, root: Path, content: ContentOptions) -> dict[str, Any]:
    """What decides the words, for run.json: no secrets, and nothing that only decides how fast it goes."""
    from mu_llama.musicqa.prompting import load_prompts
    from mu_llama.musicqa.writers.endpoint import without_credentials
    from mu_llama.musicqa.writers.spec import LOCAL_MODEL

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


def _tracks(source: str, root: Path, content: ContentOptions) -> Any:
    from mu_llama.musicqa.sources import source_by_name

    found = source_by_name(source)(root)
    if not content.measure_facts:
        return found
    from mu_llama.musicqa.measuring import with_facts

    return with_facts(found)


def _runner(spec: WriterSpec, ray: str | None, num_workers: int) -> Runner:
    from mu_llama.musicqa.build import in_this_process
    from mu_llama.musicqa.writers.spec import make_writer
    from mu_llama.runtime import home_folder

    if ray is None:
        return in_this_process(make_writer(spec, home=home_folder()))
    from mu_llama.musicqa.on_ray import on_ray

    return on_ray(ray, spec, home=home_folder(), num_workers=num_workers)


def _told(report: dict[str, Any], out: Path) -> str:
    splits = ", ".join(f"{count} {name}" for name, count in report["splits"].items())
    lines = [
        f"{report['accepted']} of {report['tracks']} tracks written ({splits}), {report['questions']} questions",
        f"{report['rejected']} rejected, {report['skipped_rows']} skipped, {report['damaged_replies']} replies damaged",
    ]
    if report["completion_tokens"]:
        cost = f", cost {report['cost']}" if "cost" in report else ""
        lines.append(f"{report['prompt_tokens']} tokens read, {report['completion_tokens']} written{cost}")
    lines += [f"  {count} x rejected: {reason}" for reason, count in report["rejected_for"].items()]
    lines += [
        f"train on it: mu-llama train --config configs/mini.yaml --set data.train='[{{path: {out}/train.jsonl}}]'",
        f"pass it on:  mu-llama musicqa export {out} --to huggingface --out FOLDER",
    ]
    return "\n".join(lines)


class _Bar:
    """A progress bar with counts, rate and time left."""

    def __init__(self) -> None:
        self._bar: Any = None
        self._task: Any = None
        self._rejected = self._tokens = 0
        self._begun = (0.0, 0)

    def update(self, outcome: Outcome, done: int, total: int) -> None:
        """Count a track."""
        if self._bar is None:
            self._start(total, done)
        self._rejected += bool(outcome.reasons)
        self._tokens += outcome.completion_tokens
        told = f"writing  {self._rejected} rejected" + (f"  {self._tokens} tokens" if self._tokens else "")
        seconds = max(1e-3, time.monotonic() - self._begun[0])
        rate = f"{(done - self._begun[1]) / seconds:.1f} tracks/s"
        self._bar.update(self._task, completed=done, description=told, rate=rate)

    def listing(self, found: Iterable[Any]) -> Iterator[Any]:
        """Count tracks while they are looked for, which takes long where audio is opened."""
        from rich.console import Console

        with Console(stderr=True).status("listing tracks") as status:
            for number, track in enumerate(found, start=1):
                if number % _SHOWN_EVERY == 0:
                    status.update(f"listing tracks: {number}")
                yield track

    def _start(self, total: int, done: int) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

        columns = (
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[rate]}"),
        )
        self._bar = Progress(*columns, TimeRemainingColumn(), console=Console(stderr=True))
        self._bar.start()
        self._task = self._bar.add_task("writing", total=total, completed=max(0, done - 1), rate="")
        self._begun = (time.monotonic(), max(0, done - 1))

    def close(self) -> None:
        """Leave the terminal as it was."""
        if self._bar is not None:
            self._bar.stop()
            self._bar = None
