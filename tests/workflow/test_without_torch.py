"""The commands of a plain install, in processes that have neither torch nor what it brings."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
CLIP = ROOT / "examples" / "audio" / "midnight-dance-cello.ogg"
SET_A = ROOT / "tests" / "golden" / "set_a"
HIDE = "import sys; sys.modules.update(dict.fromkeys(['torch', 'transformers', 'accelerate', 'peft', 'bitsandbytes']))"
"""A module that is None can't be imported or found, as if it weren't installed."""


@pytest.fixture(scope="module")
def environment(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    folder = tmp_path_factory.mktemp("site")
    (folder / "sitecustomize.py").write_text(HIDE)
    paths = [str(folder), *filter(None, [os.environ.get("PYTHONPATH")])]
    return {**os.environ, "PYTHONPATH": os.pathsep.join(paths)}


def run(environment: dict[str, str], *words: object, **more: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", "from mu_llama.cli.main import app; app()", *map(str, words)]
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=False, **more)  # type: ignore[call-overload,no-any-return]


def test_ask(environment: dict[str, str]) -> None:
    done = run(environment, "ask", CLIP, "-q", "Is there singing?", "--json")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["finish_reason"] == "stop"


def test_chat(environment: dict[str, str]) -> None:
    done = run(environment, "chat", CLIP, input="Is there singing?\nAnd drums?\n")
    assert done.returncode == 0, done.stderr
    assert len(done.stdout.split("\n")) > 2


def test_facts_import_no_torch() -> None:
    """Where it is installed: scipy takes a hidden one for an array library."""
    code = (
        "import atexit, sys; atexit.register(lambda: print('torch' in sys.modules, file=sys.stderr))\n"
        "from mu_llama.cli.main import app; app()"
    )
    command = [sys.executable, "-c", code, "facts", str(CLIP), "--json"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert json.loads(done.stdout)["duration_s"] > 1
    assert done.stderr == "False\n"


def test_info(environment: dict[str, str]) -> None:
    done = run(environment, "info", "--json")
    facts = json.loads(done.stdout)
    assert facts["devices"] == "cpu"
    assert facts["engine"].startswith("onnx on ")


def test_demo(environment: dict[str, str]) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-c", "from mu_llama.cli.main import app; app()", "demo", "--port", str(port)]
    server = subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    try:
        for _ in range(300):
            assert server.poll() is None, server.stdout and server.stdout.read()
            try:
                with urllib.request.urlopen(f"http://127.0.0.1:{port}/", timeout=5) as page:
                    assert page.status == 200
                    return
            except OSError:
                time.sleep(0.2)
        pytest.fail("the demo didn't answer within a minute")
    finally:
        server.terminate()
        server.wait()


@pytest.mark.parametrize(
    ("words", "extra"),
    [
        (("ask", CLIP, "-q", "?", "--engine", "torch"), "torch"),
        (("ask", CLIP, "-q", "?", "--dtype", "bf16"), "torch"),
        (("ask", CLIP, "-q", "?", "--model", SET_A / "checkpoint_finetune.pth", "--llama", SET_A / "llama"), "torch"),
        (("train", "--config", ROOT / "configs" / "finetune.yaml"), "train"),
    ],
)
def test_what_needs_torch_says_in_one_line_which_extra(
    environment: dict[str, str], words: tuple[object, ...], extra: str
) -> None:
    done = run(environment, *words)
    assert done.returncode == 2
    assert f"pip install 'mu-llama[{extra}]'" in done.stderr
    assert len(done.stderr.strip().split("\n")) == 1
