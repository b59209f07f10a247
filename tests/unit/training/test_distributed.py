"""Two processes train what one does with twice the accumulation, with DDP and with weights spread by FSDP."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from tests.unit.training.runs import as_yaml, environment, losses, run, same_weights, settings

NUM_UPDATES = 4
"""With a checkpoint in the middle to go on from."""


@dataclass(frozen=True)
class Pair:
    """Folders of a run by one process and by two."""

    one: Path
    two: Path


@pytest.fixture(scope="module", params=[pytest.param("NO_WRAP", marks=pytest.mark.slow), "TRANSFORMER_BASED_WRAP"])
def pairs(
    request: pytest.FixtureRequest, data: Path, home: Path, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, Pair]:
    """Runs by one process, and by two processes that are launched once; all of a phase that the other isn't."""
    folder = tmp_path_factory.mktemp(request.param)
    folders, configs = {}, []
    for name, phase, sample_every_steps in (("ddp", "finetune", None), ("fsdp", "joint", 2)):
        pair = folders[name] = Pair(folder / f"{name}-1", folder / f"{name}-2")
        run(data, pair.one, home, f"schedule.steps={NUM_UPDATES}", "batch.accumulate=4", phase=phase)
        content = settings(data, pair.two, phase=phase)
        content["schedule"]["steps"] = NUM_UPDATES
        content["run"]["sample_every_steps"] = sample_every_steps
        configs.append(str(as_yaml(folder / f"{name}.yaml", content)))
    # accelerate's launcher starts several CPU processes only through MPI; torch's starts them with gloo.
    line = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2"]
    line += ["-m", "tests.unit.training.two_processes", *configs, str(home)]
    root = str(Path(__file__).parents[3])
    variables = environment(home) | {
        "ACCELERATE_USE_CPU": "true", "FSDP_VERSION": "2", "FSDP_AUTO_WRAP_POLICY": request.param,
        "FSDP_TRANSFORMER_CLS_TO_WRAP": "LlamaDecoderLayer",
    }  # fmt: skip
    variables["PYTHONPATH"] = ":".join(filter(None, (root, variables.get("PYTHONPATH"))))
    done = subprocess.run(line, env=variables, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    return folders


@pytest.mark.parametrize("kind", ["ddp", "fsdp"])
def test_two_processes_equal_one_with_twice_the_accumulation(kind: str, pairs: dict[str, Pair]) -> None:
    """FSDP's run was stopped and went on."""
    pair = pairs[kind]
    assert json.loads((pair.two / "run.json").read_text())["counts"]["processes"] == 2
    np.testing.assert_allclose(losses(pair.two), losses(pair.one), atol=1e-5)
    assert len(losses(pair.two)) == NUM_UPDATES
    assert same_weights(pair.one, pair.two, atol=1e-4)


def test_sharded_weights_give_sample_answers(pairs: dict[str, Pair]) -> None:
    samples = [json.loads(line) for line in (pairs["fsdp"].two / "samples.jsonl").read_text().splitlines()]
    assert [row["update"] for row in samples] == [2, 2, 4, 4]
