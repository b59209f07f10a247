"""Sessions and execution providers."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from mu_llama.engine.onnx.engine import OnnxEngine
from mu_llama.engine.onnx.session import PROVIDERS, open_session
from mu_llama.errors import CheckpointError, ConfigError
from tests.unit.engine.onnx.tiny import Sizes, engine_of, random_llama


@pytest.mark.parametrize("provider", [name for name in PROVIDERS if name != "cpu"])
def test_a_provider_that_is_not_installed_is_refused(
    tmp_path: Path, provider: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("onnxruntime.get_available_providers", lambda: ["CPUExecutionProvider"])
    with pytest.raises(ConfigError, match=f"no provider '{provider}', only cpu; it needs onnxruntime"):
        open_session(tmp_path, provider=provider)


def test_an_unknown_provider_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="provider is 'abacus'; expected cpu, cuda"):
        open_session(tmp_path, provider="abacus")


def test_a_damaged_graph_is_named(tmp_path: Path) -> None:
    engine_of(tmp_path, random_llama(Sizes()), Sizes())
    model = tmp_path / "model.onnx"
    model.write_bytes(model.read_bytes()[:200])
    with pytest.raises(
        CheckpointError, match=r"model\.onnx: onnxruntime can't load it .*build the graph again"
    ) as caught:
        OnnxEngine(tmp_path)
    assert "\n" not in str(caught.value)
    (tmp_path / "weights.bin").unlink()
    with pytest.raises(CheckpointError, match=r"weights\.bin: can't be read"):
        OnnxEngine(tmp_path)


def test_a_built_graph_needs_neither_onnx_nor_torch(tmp_path: Path) -> None:
    engine_of(tmp_path, random_llama(Sizes()), Sizes(), precision="int8")
    code = (
        "import sys; from pathlib import Path; from mu_llama.engine.onnx.engine import OnnxEngine; "
        "from mu_llama.engine.onnx.store import provide_graph; "
        "import mu_llama.engine.onnx.conditioning; "
        f"print(OnnxEngine(Path({str(tmp_path)!r})).logits([1, 2]).shape); "
        "print(*sorted({'torch', 'transformers', 'onnx'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split("\n") == ["(2, 67)", "", ""]
