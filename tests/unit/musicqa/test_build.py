"""Whole builds through the command: endpoints that fail, kills, full disks, splits, Ray."""

from __future__ import annotations

import json
import os
import random
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from mu_llama.checkpoints.embedded import SMOLLM2, provide_llama
from mu_llama.devices import home_folder
from mu_llama.errors import ConfigError
from mu_llama.files import read_lines
from mu_llama.labels.grounding import labels_of
from mu_llama.labels.track import Track
from mu_llama.musicqa.build import BuildOptions, build_data_set, in_this_process
from mu_llama.musicqa.build_folder import BuildError, BuildFolder
from mu_llama.musicqa.items import read_items, split_of
from mu_llama.musicqa.reply import ReplySpec
from mu_llama.musicqa.sources import source_by_name
from mu_llama.musicqa.worker import Rules, reply_problems
from mu_llama.musicqa.writers.template import TemplateWriter
from mu_llama.training.config import DatasetEntry
from mu_llama.training.dataset import read_datasets
from tests.unit.musicqa import corpora
from tests.unit.musicqa.fake_endpoint import ODD, running

CHATML = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n{{ message['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
RESULTS = ("items.jsonl", "train.jsonl", "validation.jsonl", "test.jsonl")
COMMAND = [sys.executable, "-c", "from mu_llama.cli.main import app; app()", "musicqa"]


def run(*options: str, env: dict[str, str] | None = None) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*COMMAND, *options],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, **(env or {})},
        timeout=240,
    )


def building(root: Path, out: Path, *more: str) -> list[str]:
    return ["build", "--source", "musiccaps", "--root", str(root), "--out", str(out), "--json", *more]


def asking(url: str, *more: str) -> list[str]:
    return ["--writer", "endpoint", "--base-url", url, "--model", "fake", *more]


def results(out: Path) -> list[bytes]:
    return [(out / name).read_bytes() for name in RESULTS]


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return corpora.musiccaps(tmp_path_factory.mktemp("corpus"), 40)


def test_a_build_without_a_language_model(corpus: Path, tmp_path: Path) -> None:
    done = run(*building(corpus, tmp_path / "out", "--validation", "0.2", "--test", "0.2"))
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)
    assert (report["tracks"], report["accepted"], report["rejected"]) == (40, 40, 0)
    assert sum(report["splits"].values()) == 40
    assert min(report["splits"].values()) > 0
    (dataset,) = read_datasets([DatasetEntry(path=tmp_path / "out" / "train.jsonl")])
    assert len(dataset.examples) == report["splits"]["train"] * 12
    assert all(example.audio is not None and example.audio.is_file() for example in dataset.examples)
    stamps = {path: path.stat().st_mtime_ns for path in (tmp_path / "out").iterdir() if path.name[0] != "."}
    again = run(*building(corpus, tmp_path / "out", "--validation", "0.2", "--test", "0.2"))
    assert json.loads(again.stdout) == report
    assert {path: path.stat().st_mtime_ns for path in stamps} == stamps, "a finished build is left alone"
    other = run(*building(corpus, tmp_path / "out", "--seed", "3"))
    assert other.returncode == 2
    assert "seed: 0 before, 3 now" in other.stderr


def test_an_artist_is_in_one_split() -> None:
    groups = [f"artist {number}" for number in range(2000)]
    split = [split_of(group, validation=0.1, test=0.2, seed=0) for group in groups]
    assert split == [split_of(group, validation=0.1, test=0.2, seed=0) for group in groups]
    assert 150 < split.count("validation") < 250
    assert 340 < split.count("test") < 460
    assert split != [split_of(group, validation=0.1, test=0.2, seed=1) for group in groups]
    assert Track("a", artist="x").group == Track("b", artist="x").group


@pytest.mark.parametrize("formats", ["json_schema", "json_object,text", "text"])
def test_an_endpoint_of_any_kind_writes_the_same(formats: str, corpus: Path, tmp_path: Path) -> None:
    with running("--formats", formats) as url:
        done = run(*building(corpus, tmp_path / "out", *asking(url, "--price-in", "1", "--price-out", "2")))
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)
    assert report["accepted"] == 40
    assert (report["prompt_tokens"], report["completion_tokens"]) == (16000, 12000)
    assert report["cost"] == pytest.approx(0.04)
    assert "tracks/s" in done.stderr


def test_faults_change_nothing(corpus: Path, tmp_path: Path) -> None:
    with running() as url:
        assert run(*building(corpus, tmp_path / "clean", *asking(url, "--attempts", "8"))).returncode == 0
        base = url
    with running("--faults", "0.4", "--port", base.split(":")[2].split("/")[0]) as url:
        assert url == base
        done = run(
            *building(
                corpus, tmp_path / "faulty", *asking(url, "--timeout", "0.5", "--concurrency", "8", "--attempts", "8")
            )
        )
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["damaged_replies"] > 0
    assert results(tmp_path / "faulty") == results(tmp_path / "clean")


@pytest.mark.parametrize("odd", sorted(set(ODD) - {"html", "list"}))
def test_an_odd_reply_costs_one_track(odd: str, corpus: Path, tmp_path: Path) -> None:
    with running("--odd", odd) as url:
        done = run(*building(corpus, tmp_path / "out", *asking(url, "--attempts", "2")))
    assert done.returncode == 1, done.stderr
    assert "Traceback" not in done.stderr
    report = json.loads(done.stdout)
    assert (report["accepted"], report["rejected"]) == (39, 1)
    (row,) = read_lines(tmp_path / "out" / "rejects.jsonl")
    assert row["reasons"]


@pytest.mark.parametrize("odd", ["html", "null-content", "too-long", "list"])
def test_a_wrong_server_rejects_nothing(odd: str, corpus: Path, tmp_path: Path) -> None:
    with running("--odd", f"{odd}/all") as url:
        done = run(*building(corpus, tmp_path / "out", *asking(url, "--attempts", "2")))
        assert done.returncode == 2
        assert "Traceback" not in done.stderr
        assert not (tmp_path / "out" / "rejects.jsonl").exists()
        port = url.split(":")[2].split("/")[0]
    with running("--port", port):
        done = run(*building(corpus, tmp_path / "out", *asking(url, "--attempts", "2")))
    assert json.loads(done.stdout)["accepted"] == 40


def test_a_damaged_or_emptied_build_is_named_or_mended(corpus: Path, tmp_path: Path) -> None:
    run(*building(corpus, tmp_path / "out"))
    before = results(tmp_path / "out")
    for name in RESULTS:
        (tmp_path / "out" / name).unlink()
    assert run(*building(corpus, tmp_path / "out")).returncode == 0
    assert results(tmp_path / "out") == before
    refused = run(*building(corpus, tmp_path / "out", "--retry-rejects", "--seed", "5"))
    assert "other settings" in refused.stderr
    assert "report" in json.loads((tmp_path / "out" / "run.json").read_text()), "nothing was forgotten"
    lines = (tmp_path / "out" / "replies.jsonl").read_text().splitlines()
    lines[3] = "{broken"
    (tmp_path / "out" / "replies.jsonl").write_text("\n".join(lines) + "\n")
    (tmp_path / "out" / "items.jsonl").unlink()
    done = run(*building(corpus, tmp_path / "out"))
    assert done.returncode == 2
    assert "replies.jsonl, line 4: is damaged" in done.stderr


def test_unreadable_audio_is_skipped_by_name(tmp_path: Path) -> None:
    root = corpora.musiccaps(tmp_path / "corpus", 3)
    (root / "[video00001]-[30-40].wav").write_bytes(b"no sound")
    done = run(*building(root, tmp_path / "out"))
    assert done.returncode == 1
    (row,) = read_lines(tmp_path / "out" / "skipped.jsonl")
    assert "video00001" in row["where"]
    assert "[video00001]-[30-40].wav" in row["reason"]


def seconds_to_first_reply(line: list[str], out: Path) -> float:
    """How long this machine takes until a build has written something; it is killed then."""
    start = time.monotonic()
    process = subprocess.Popen([*COMMAND, *line], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    while not list(read_lines(out / "replies.jsonl")):
        assert process.poll() is None
        time.sleep(0.05)
    process.kill()
    process.wait()
    return time.monotonic() - start


def kill_until_done(line: list[str], out: Path, *, num_kills: int, longest_s: float, seed: int) -> int:
    """Start a build and kill it at random moments, so often; gives how often it was alive when killed."""
    source, killed = random.Random(seed), 0
    for _ in range(num_kills):
        process = subprocess.Popen([*COMMAND, *line], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        time.sleep(source.uniform(0.3, longest_s))
        killed += process.poll() is None
        process.send_signal(signal.SIGKILL)
        process.wait()
        rows = list(read_lines(out / "replies.jsonl"))
        assert len({row["id"] for row in rows}) == len(rows), "nothing is written twice"
    return killed


def check_kills(tmp_path: Path, *, num_tracks: int, num_kills: int, options: tuple[str, ...]) -> None:
    root = corpora.musiccaps(tmp_path / "corpus", num_tracks, audio=False)
    with running(*options) as url:
        more = asking(url, "--missing-audio", "keep", "--timeout", "1", "--attempts", "8")
        port = url.split(":")[2].split("/")[0]
        line = building(root, tmp_path / "killed", *more, "--concurrency", "2")
        start_s = seconds_to_first_reply(line, tmp_path / "killed")
        killed = kill_until_done(line, tmp_path / "killed", num_kills=num_kills, longest_s=start_s + 1.5, seed=1)
        assert killed > 0.9 * num_kills
        assert not (tmp_path / "killed" / "items.jsonl").exists(), "it was to be killed before its end"
        assert len(list(read_lines(tmp_path / "killed" / "replies.jsonl"))) > num_kills
        done = run(*building(root, tmp_path / "killed", *more, "--concurrency", "64"))
        assert done.returncode == 0, done.stderr
    with running("--port", port) as url:
        assert run(*building(root, tmp_path / "whole", *more)).returncode == 0
    assert results(tmp_path / "killed") == results(tmp_path / "whole")


def test_kills_lose_and_repeat_nothing(tmp_path: Path) -> None:
    check_kills(tmp_path, num_tracks=150, num_kills=6, options=("--faults", "0.1", "--latency", "0.1"))


@pytest.mark.slow
def test_two_hundred_kills(tmp_path: Path) -> None:
    check_kills(tmp_path, num_tracks=4000, num_kills=200, options=("--faults", "0.1", "--latency", "0.1"))


def test_replies_that_contradict_their_labels_are_rejected_with_the_reason(corpus: Path, tmp_path: Path) -> None:
    class Liar(TemplateWriter):
        async def write(self, track: Track, *, attempt: int) -> Any:
            written = await super().write(track, attempt=attempt)
            if track.id.endswith("1-30-40"):
                written.reply["heard"] = "A didgeridoo and a kazoo."
            return written

    folder = BuildFolder(tmp_path)
    found = source_by_name("musiccaps")
    report = build_data_set(
        folder,
        lambda: found(corpus),
        in_this_process(Liar(ReplySpec())),
        BuildOptions(Rules(num_attempts=3)),
        identity={},
    )
    assert (report["accepted"], report["rejected"]) == (36, 4)
    assert report["attempts"] == 36 + 4 * 3
    assert report["rejected_for"] == {"names what labels don't": 4}
    rejects = list(read_lines(tmp_path / "rejects.jsonl"))
    assert all("heard names didgeridoo" in row["reasons"][0] for row in rejects)
    folder.forget_rejects()
    truthful = in_this_process(TemplateWriter(ReplySpec()))
    report = build_data_set(folder, lambda: found(corpus), truthful, BuildOptions(Rules(num_attempts=3)), identity={})
    assert report["accepted"] == 40


def test_missing_audio_is_skipped_or_kept(tmp_path: Path) -> None:
    root = corpora.musiccaps(tmp_path / "corpus", 5)
    (root / "[video00003]-[30-40].wav").unlink()
    done = run(*building(root, tmp_path / "skip"))
    assert done.returncode == 1, "something was left out"
    assert json.loads(done.stdout)["skipped_rows"] == 1
    (row,) = read_lines(tmp_path / "skip" / "skipped.jsonl")
    assert "video00003" in row["where"]
    assert "audio is missing" in row["reason"]
    assert json.loads(run(*building(root, tmp_path / "keep", "--missing-audio", "keep")).stdout)["accepted"] == 5


def test_a_key_that_is_absent_or_wrong_is_named_and_never_shown(corpus: Path, tmp_path: Path) -> None:
    secret = "sk-verysecret-0123456789"
    done = run(*building(corpus, tmp_path / "a", *asking("https://api.example.com/v1", "--key-variable", "NO_KEY")))
    assert done.returncode == 2
    assert "NO_KEY is not set" in done.stderr
    with running("--key", "right") as url:
        address = url.replace("http://", f"http://me:{secret}@")
        done = run(*building(corpus, tmp_path / "b", *asking(address)), env={"OPENAI_API_KEY": secret})
    assert done.returncode == 2
    assert "says 401" in done.stderr
    assert "check the key in OPENAI_API_KEY" in done.stderr
    written = "".join(path.read_text() for path in (tmp_path / "b").rglob("*") if path.is_file())
    for place in (done.stdout, done.stderr, written):
        assert secret not in place
        assert "sk-abcdef" not in place
    assert "127.0.0.1" in written


def test_a_server_that_is_not_there(corpus: Path, tmp_path: Path) -> None:
    start = time.monotonic()
    done = run(*building(corpus, tmp_path / "out", *asking("http://127.0.0.1:9/v1", "--retries", "1")))
    assert done.returncode == 2
    assert "40 tracks are not written yet (http://127.0.0.1:9/v1 doesn't answer" in done.stderr
    assert len(done.stderr.strip().splitlines()) <= 2
    assert time.monotonic() - start < 30


def test_a_full_disk_names_itself_and_the_build_goes_on(
    corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def open_full(folder: BuildFolder, outcome: Any) -> None:
        if len(folder.done()) == 7:
            raise OSError(28, "No space left on device")
        keep(folder, outcome)

    keep = BuildFolder.keep
    found, writer = source_by_name("musiccaps"), TemplateWriter(ReplySpec())
    arguments = (lambda: found(corpus), in_this_process(writer), BuildOptions())
    with monkeypatch.context() as patched:
        patched.setattr(BuildFolder, "keep", open_full)
        with pytest.raises(BuildError, match=r"No space left.*start the same command again"):
            build_data_set(BuildFolder(tmp_path / "out"), *arguments, identity={})
    assert build_data_set(BuildFolder(tmp_path / "out"), *arguments, identity={})["accepted"] == 40
    build_data_set(BuildFolder(tmp_path / "whole"), *arguments, identity={})
    assert results(tmp_path / "out") == results(tmp_path / "whole")


def test_a_foreign_folder_and_a_second_build_are_refused(corpus: Path, tmp_path: Path) -> None:
    (tmp_path / "items.jsonl").write_text("precious")
    done = run(*building(corpus, tmp_path))
    assert done.returncode == 2
    assert "holds items.jsonl of no build" in done.stderr
    assert (tmp_path / "items.jsonl").read_text() == "precious"
    folder = BuildFolder(tmp_path / "busy")
    with folder.locked(), pytest.raises(ConfigError, match="another build is at work"), folder.locked():
        pass


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["--writer", "oracle"], "writer 'oracle' is unknown; expected one of: template, endpoint, local"),
        (["--writer", "endpoint", "--model", "x"], "needs --base-url"),
        (["--writer", "endpoint", "--model", "x", "--base-url", "ftp://a:b@c"], "has no http://host; got 'c'"),
        (["--missing-audio", "maybe"], "expected skip or keep"),
        (["--validation", "0.5", "--test", "0.5"], "leave nothing to train on"),
        (["--ray", "127.0.0.1:1"], "can't be reached"),
        (["--writer", "endpoint", "--base-url", "http://localhost:1", "--model", "x", "--prompts", "/nowhere"],
         "can't be read"),
    ],
)  # fmt: skip
def test_wrong_options_are_one_line(more: list[str], message: str, corpus: Path, tmp_path: Path) -> None:
    done = run(*building(corpus, tmp_path / "out", *more))
    assert done.returncode == 2
    assert message in done.stderr
    assert "Traceback" not in done.stderr


def test_the_same_worker_on_ray(corpus: Path, tmp_path: Path) -> None:
    """A local Ray of two workers gives the same data set, and goes on with what one process began."""
    assert run(*building(corpus, tmp_path / "here")).returncode == 0
    env = {"RAY_ENABLE_UV_RUN_RUNTIME_ENV": "0"}
    done = run(*building(corpus, tmp_path / "ray", "--ray", "local", "--num-workers", "2"), env=env)
    assert done.returncode == 0, done.stderr[-3000:]
    assert results(tmp_path / "ray") == results(tmp_path / "here")


def test_items_read_back(corpus: Path, tmp_path: Path) -> None:
    run(*building(corpus, tmp_path / "out"))
    items = list(read_items(tmp_path / "out" / "items.jsonl"))
    assert [type(item).from_dict(item.to_dict()) for item in items] == items
    kinds = {kind for item in items for kind, _, _ in item.pairs}
    assert kinds == {"fixed", "open", "caption", "choice"}
    for kind, question, answer in items[0].pairs:
        if kind == "choice":
            assert f"{answer}" in question
            assert question.count("(") == 4


@pytest.fixture
def smollm2_server(tmp_path: Path) -> Iterator[tuple[str, str]]:
    """`transformers serve` with the embedded language model: its address and the model's name."""
    folder = tmp_path / "smollm2"
    folder.mkdir()
    for path in provide_llama(SMOLLM2, home_folder()).iterdir():
        (folder / path.name).symlink_to(path)
    (folder / "tokenizer_config.json").write_text(
        json.dumps({"tokenizer_class": "PreTrainedTokenizerFast", "eos_token": "<|im_end|>", "chat_template": CHATML})
    )
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    line = [str(Path(sys.executable).parent / "transformers"), "serve", str(folder), "--host", "127.0.0.1"]
    process = subprocess.Popen(
        [*line, "--port", str(port), "--device", "cpu"], stderr=subprocess.DEVNULL,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    try:
        deadline = time.monotonic() + 120
        while time.monotonic() < deadline:
            try:
                socket.create_connection(("127.0.0.1", port), timeout=1).close()
                break
            except OSError:
                time.sleep(0.5)
        yield f"http://127.0.0.1:{port}/v1", str(folder)
    finally:
        process.kill()
        process.wait()


@pytest.mark.slow
def test_a_real_server_with_a_small_model(smollm2_server: tuple[str, str], tmp_path: Path) -> None:
    """Twenty tracks from labels to data; what the model says against the labels is rejected with the reason."""
    root = corpora.musiccaps(tmp_path / "corpus", 20)
    url, model = smollm2_server
    options = ["--model", model, "--one-by-one", "--num-pairs", "1", "--num-choices", "1", "--attempts", "1"]
    more = ["--max-tokens", "60", "--temperature", "0.3", "--concurrency", "1"]
    line = building(root, tmp_path / "out", "--writer", "endpoint", "--base-url", url, *options, *more)
    done = subprocess.run([*COMMAND, *line], capture_output=True, text=True, check=False, timeout=1500)
    assert done.returncode == 1, done.stderr
    report = json.loads(done.stdout)
    assert report["accepted"] + report["rejected"] == 20
    assert report["accepted"] >= 3
    assert report["completion_tokens"] > 20 * 6 * 5
    assert all(row["reasons"] for row in read_lines(tmp_path / "out" / "rejects.jsonl"))
    for item in read_items(tmp_path / "out" / "items.jsonl"):
        assert reply_problems(item.reply, labels_of(item.track), prompt="x") == []
