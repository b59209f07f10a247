"""Whole builds through the command with an endpoint that fails in many ways."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from mu_llama.files import read_lines
from tests.unit.musicqa import corpora
from tests.unit.musicqa.commands import asking, building, results, run
from tests.unit.musicqa.fake_endpoint import ODD, Server, serving

NUM_TRACKS = 24
FEW = 8


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return corpora.musiccaps(tmp_path_factory.mktemp("corpus"), NUM_TRACKS)


@pytest.fixture(scope="module")
def endpoint() -> Iterator[tuple[Server, str]]:
    """One server for all tests, in a thread, and its address."""
    server = Server()
    with serving(server) as url:
        yield server, url


@pytest.fixture
def server(endpoint: tuple[Server, str], monkeypatch: pytest.MonkeyPatch) -> Server:
    """The server; what a test sets with `monkeypatch` is undone after it."""
    return endpoint[0]


@pytest.fixture
def url(endpoint: tuple[Server, str]) -> str:
    return endpoint[1]


@pytest.mark.parametrize("formats", ["json_schema", "json_object,text", "text"])
def test_an_endpoint_of_any_kind_writes_the_same(
    formats: str, server: Server, url: str, corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(server, "formats", formats.split(","))
    done = run(*building(corpus, tmp_path / "out", *asking(url, "--price-in", "1", "--price-out", "2")))
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)
    assert report["accepted"] == NUM_TRACKS
    assert (report["prompt_tokens"], report["completion_tokens"]) == (400 * NUM_TRACKS, 300 * NUM_TRACKS)
    assert report["cost"] == pytest.approx(NUM_TRACKS / 1000)
    assert "tracks/s" in done.stderr


def test_faults_change_nothing(
    server: Server, url: str, corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert run(*building(corpus, tmp_path / "clean", *asking(url, "--attempts", "8"))).returncode == 0
    monkeypatch.setattr(server, "fault_rate", 0.4)
    more = ["--timeout", "0.5", "--concurrency", "8", "--attempts", "8"]
    done = run(*building(corpus, tmp_path / "faulty", *asking(url, *more)))
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["damaged_replies"] > 0
    assert results(tmp_path / "faulty") == results(tmp_path / "clean")


@pytest.mark.parametrize("odd", sorted(set(ODD) - {"html", "list"}))
def test_an_odd_reply_costs_one_track(
    odd: str, server: Server, url: str, corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(server, "odd", odd)
    done = run(*building(corpus, tmp_path / "out", *asking(url, "--attempts", "2", "--limit", str(FEW))))
    assert done.returncode == 1, done.stderr
    report = json.loads(done.stdout)
    assert (report["accepted"], report["rejected"]) == (FEW - 1, 1)
    (row,) = read_lines(tmp_path / "out" / "rejects.jsonl")
    assert row["reasons"]


@pytest.mark.parametrize("odd", ["html", "null-content", "too-long", "list"])
def test_a_wrong_server_rejects_nothing(
    odd: str, server: Server, url: str, corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patched:
        patched.setattr(server, "odd", f"{odd}/all")
        done = run(*building(corpus, tmp_path / "out", *asking(url, "--attempts", "2")))
    assert done.returncode == 2
    assert not (tmp_path / "out" / "rejects.jsonl").exists()
    done = run(*building(corpus, tmp_path / "out", *asking(url, "--attempts", "2")))
    assert json.loads(done.stdout)["accepted"] == NUM_TRACKS


def test_a_key_that_is_absent_or_wrong_is_named_and_never_shown(
    server: Server, url: str, corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    secret = "sk-verysecret-0123456789"
    done = run(*building(corpus, tmp_path / "a", *asking("https://api.example.com/v1", "--key-variable", "NO_KEY")))
    assert done.returncode == 2
    assert "NO_KEY is not set" in done.stderr
    monkeypatch.setattr(server, "key", "right")
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
    assert f"{NUM_TRACKS} tracks are not written yet (http://127.0.0.1:9/v1 doesn't answer" in done.stderr
    assert len(done.stderr.strip().splitlines()) <= 2
    assert time.monotonic() - start < 30
