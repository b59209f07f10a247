"""The benchmarks of the engines: what is compared with what, and that tables hold what was measured."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import pytest

from benchmarks.ask import Installation, _compared
from benchmarks.decode import Plan, Worker, busy_core, measure, medians_of, ratios_of
from benchmarks.decode_worker import Sizes
from benchmarks.engine_page import PAGE, TABLES, with_figures
from benchmarks.measure import COMMAND, ROOT, Run, run_process
from benchmarks.precision import cosines
from benchmarks.run import NAMES

RUNS = {
    "quiet": {"2": {
        "torch": {"alone_per_s": [9.0, 30.0, 10.0], "first_token_ms": [400.0]},
        "onnx_int8": {
            "alone_per_s": [50.0, 60.0, 55.0], "first_token_ms": [100.0], "ragged_per_s": [90.0],
            "ragged_static_per_s": [30.0],
        },
    }},
    "busy": {"2": {"onnx_int8": {"alone_per_s": [44.0]}}},
}  # fmt: skip


def test_ragged_rows_are_short_and_long_in_mixed_order() -> None:
    lengths = Sizes().lengths()
    assert (min(lengths), max(lengths), len(lengths)) == (4, 128, 16)
    assert lengths != sorted(lengths)
    assert Sizes(num_rows=1, longest=8).lengths() == [4]


def test_an_engine_is_compared_by_medians_and_only_with_what_was_measured() -> None:
    medians = medians_of(RUNS)
    assert medians["quiet"]["2"]["torch"]["alone_per_s"] == 10
    assert ratios_of(medians) == {
        "alone, to torch": {"2": 5.5},
        "alone with one core busy, to quiet": {"2": 0.8},
        "16 ragged rows, to waiting for the longest": {"2": 3.0},
        "time of the first token, to torch": {"2": 0.25},
    }


@pytest.mark.parametrize(("max_s", "num_values"), [(60.0, 3), (0.0, 1)])
def test_what_takes_long_is_measured_once(max_s: float, num_values: int, monkeypatch: pytest.MonkeyPatch) -> None:
    class Counted(Worker):
        def __init__(self, engine: str, threads: int, **_: object) -> None:
            self.engine, self.threads, self.cases, self.count = engine, threads, ["alone", "ragged"], 0

        def wait_until_open(self) -> None:
            pass

        def measure(self, case: str, sizes: Sizes) -> dict[str, float]:
            self.count += 1
            return {f"{case}_per_s": float(self.count)}

        def close(self) -> None:
            pass

    monkeypatch.setattr("benchmarks.decode.Worker", Counted)
    runs = measure(Plan(["torch"], [1, 2], 3, is_busy=True, max_s=max_s), None)
    assert list(runs["quiet"]) == ["1", "2"]
    assert {name: len(values) for name, values in runs["quiet"]["2"]["torch"].items()} == {
        "alone_per_s": num_values, "ragged_per_s": num_values
    }  # fmt: skip
    assert set(runs["busy"]["1"]["torch"]) == {"alone_per_s"}
    assert runs["quiet"]["1"]["torch"]["alone_per_s"][0] == 3, "a round before doesn't count"


def test_an_engine_that_cannot_be_opened_says_why() -> None:
    worker = Worker("onnx_int3", 1, sizes=Sizes(), gguf=None)
    try:
        with pytest.raises(RuntimeError, match=r"(?s)onnx_int3 with 1 threads: .*expected int8 or int4"):
            worker.wait_until_open()
    finally:
        worker.close()


def test_a_busy_core_is_free_again() -> None:
    with busy_core(False) as spinning:
        assert spinning is None
    with busy_core(True) as spinning:
        assert spinning is not None
        assert spinning.poll() is None
    assert spinning.poll() is not None


def test_a_process_is_measured_without_the_one_that_starts_it() -> None:
    small = run_process([sys.executable, "-S", "-c", "print('x')"])
    large = run_process(
        [sys.executable, "-S", "-c", "import os; b'1' * 100_000_000; print(os.environ['WORD'])"], WORD="y"
    )
    assert (small.output, large.output) == ("x\n", "y\n")
    assert small.peak_mib < 50
    assert 95 < large.peak_mib < 150
    assert 0 < large.user_s <= large.cpu_s
    with pytest.raises(RuntimeError, match=r"(?s)failed: .*no such thing"):
        run_process([sys.executable, "-S", "-c", "raise SystemExit('no such thing')"])


def test_another_version_is_a_checkout_or_a_command(tmp_path: Path) -> None:
    checkout = Installation.at(ROOT, home=tmp_path)
    assert (checkout.command, checkout.environment["PYTHONPATH"]) == (COMMAND, str(ROOT / "src"))
    command = Installation.at(Path(sys.executable), home=tmp_path)
    assert (command.command, command.environment["MU_LLAMA_HOME"]) == (Path(sys.executable), str(tmp_path))
    assert "PYTHONPATH" not in command.environment
    with pytest.raises(SystemExit, match="holds no src/mu_llama"):
        Installation.at(tmp_path, home=tmp_path)


def test_cosines_find_the_worst_prompt_and_the_mean_position() -> None:
    same = np.array([[1, 0], [0, 2]], np.float32)
    turned = np.array([[1, 0], [2, 0]], np.float32)
    assert cosines([same, same], [same, turned]) == {"all_logits": 0.2, "last_token": 0.0, "mean_position": 0.75}


def test_the_page_holds_the_tables_of_the_results() -> None:
    page = PAGE.read_text(encoding="utf-8")
    assert with_figures(page) == page, "run python -m benchmarks.engine_page"
    assert all(f"<!-- figures: {name} -->" in page for name in TABLES)
    assert {"decode", "precision", "ask"} <= set(NAMES)


def test_tables_are_written_and_left_out(tmp_path: Path) -> None:
    place = "a\n\n<!-- figures: {} -->\nold\n<!-- end of figures -->\n\nb\n".format
    assert with_figures(place("decode"), tmp_path) == place("decode").replace("old\n", "")
    medians = medians_of(RUNS)
    engines = {"torch": "torch, bf16", "onnx_int8": "onnx, int8"}
    decode = {"engines": engines, "medians": medians, "ratios of onnx, int8": ratios_of(medians)}
    (tmp_path / "decode.json").write_text(json.dumps(decode))
    written = with_figures(place("decode"), tmp_path)
    assert "| one row, tokens/s | 2 | quiet | 10.0 | 55.0 |\n| one row, tokens/s | 2 | busy |  | 44.0 |" in written
    assert "16 rows, tokens/s" not in written
    assert with_figures(written, tmp_path) == written
    assert "| alone, to torch | 5.50 | >= 3 |" in with_figures(place("ratios"), tmp_path)

    runs = [
        Run(seconds, 1.0, 1.0, peak_mib, '{"answer": "A piano."}') for seconds, peak_mib in ((1.0, 300), (2.0, 310))
    ]
    compared = _compared(runs[:1], runs[1:])
    (tmp_path / "ask_versions.json").write_text(json.dumps({"warm": compared, "cold": compared}))
    written = with_figures(place("ask"), tmp_path)
    assert "| warm | wall time, s | 1.00 | 2.00 | 0.50 | <= 0.25 |" in written
    assert "| cold | peak memory, MiB | 300 | 310 | 0.97 |  |" in written

    cosine = {"all_logits": 0.99912, "last_token": 0.99933, "mean_position": 0.99951}
    equal = {"alone and in a batch": 1.0, "and torch fp32": 0.985}
    measured = {"onnx int8": {"to torch fp32": cosine, "equal answers": equal}}
    (tmp_path / "precision.json").write_text(json.dumps({"engines": measured}))
    written = with_figures(place("precision"), tmp_path)
    assert (
        "| onnx int8 to torch fp32 | 0.9991 | 0.9993 | 0.9995 | 98.5% |  |\n| onnx int8 |  |  |  |  | 100.0% |"
        in written
    )
