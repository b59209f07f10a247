"""Builds whose subject is the process: kills, a cluster, a real server."""

from __future__ import annotations

import json
import os
import random
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from mu_llama.cache_folder import home_folder
from mu_llama.checkpoints.embedded import SMOLLM2, provide_llama
from mu_llama.files import read_lines
from mu_llama.labels.grounding import labels_of
from mu_llama.musicqa.items import read_items
from mu_llama.musicqa.worker import reply_problems
from tests.unit.musicqa import corpora
from tests.unit.musicqa.commands import COMMAND, asking, building, results, run
from tests.unit.musicqa.fake_endpoint import Server, serving

CHATML = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n{{ message['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
LONGEST_WAIT_S = 300.0
MAX_NEW_REPLIES = 5


def kill_after_replies(line: list[str], out: Path, *, num_new: int) -> None:
    """Start a build and kill it as soon as it has written so many more replies; 0 kills it once it has its list."""
    num_before = len(list(read_lines(out / "replies.jsonl")))
    process = subprocess.Popen([*COMMAND, *line], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + LONGEST_WAIT_S
    while not (out / "tracks.jsonl").exists() or len(list(read_lines(out / "replies.jsonl"))) < num_before + num_new:
        assert process.poll() is None, "it ended by itself"
        assert time.monotonic() < deadline
        time.sleep(0.02)
    process.kill()
    assert process.wait() != 0, "it was to be killed before its end"
    rows = list(read_lines(out / "replies.jsonl"))
    assert len({row["id"] for row in rows}) == len(rows), "nothing is written twice"


def check_kills(tmp_path: Path, *, num_tracks: int, num_kills: int) -> None:
    """Kill a build at moments that its own progress decides, so that the machine's speed doesn't."""
    root = corpora.musiccaps(tmp_path / "corpus", num_tracks, audio=False)
    source = random.Random(1)
    kills = [source.randint(0, MAX_NEW_REPLIES) for _ in range(num_kills)]
    assert num_tracks > 2 * sum(kills) + 4 * num_kills, "too few tracks for so many kills"
    server = Server(latency_s=0.1, fault_rate=0.1)
    with serving(server) as url:
        more = asking(url, "--missing-audio", "keep", "--timeout", "1", "--attempts", "8")
        line = building(root, tmp_path / "killed", *more, "--concurrency", "2")
        for num_new in kills:
            kill_after_replies(line, tmp_path / "killed", num_new=num_new)
        assert not (tmp_path / "killed" / "items.jsonl").exists()
        assert len(list(read_lines(tmp_path / "killed" / "replies.jsonl"))) >= sum(kills) > 0
        done = run(*building(root, tmp_path / "killed", *more, "--concurrency", "64"))
        assert done.returncode == 0, done.stderr
        server.latency_s = server.fault_rate = 0.0
        assert run(*building(root, tmp_path / "whole", *more)).returncode == 0
    assert results(tmp_path / "killed") == results(tmp_path / "whole")


def test_kills_lose_and_repeat_nothing(tmp_path: Path) -> None:
    check_kills(tmp_path, num_tracks=60, num_kills=4)


@pytest.mark.slow
def test_two_hundred_kills(tmp_path: Path) -> None:
    check_kills(tmp_path, num_tracks=4000, num_kills=200)


def test_the_same_worker_on_ray(tmp_path: Path) -> None:
    """A local Ray of two workers gives the same data set, and goes on with what one process began."""
    corpus = corpora.musiccaps(tmp_path / "corpus", 12, audio=False)
    more = ("--missing-audio", "keep")
    assert run(*building(corpus, tmp_path / "here", *more)).returncode == 0
    line = building(corpus, tmp_path / "ray", *more, "--ray", "local", "--num-workers", "2")
    # In a process of its own, whose end stops the cluster.
    less = ("ENABLE_UV_RUN_RUNTIME_ENV", "enable_metrics_collection", "enable_worker_prestart", "USAGE_STATS_ENABLED")
    env = {**os.environ, **{f"RAY_{name}": "0" for name in less}}
    done = subprocess.run([*COMMAND, *line], capture_output=True, text=True, check=False, env=env, timeout=300)
    assert done.returncode == 0, done.stderr[-3000:]
    assert results(tmp_path / "ray") == results(tmp_path / "here")


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
