"""A trainer over random rows, as a run of `mu-llama train` makes it, for `benchmarks.gpu_check`."""

from __future__ import annotations

import tempfile
from pathlib import Path

import torch

from mu_llama.checkpoints.spec import ModelSpec
from mu_llama.text.prompts import Turn
from mu_llama.training.collate import IGNORED, TokenizedExamples, TokenizedRow
from mu_llama.training.config import TrainConfig
from mu_llama.training.config_file import parse_config
from mu_llama.training.distributed import make_accelerator
from mu_llama.training.example import Example
from mu_llama.training.features import FeatureTable
from mu_llama.training.loop import Trainer
from mu_llama.training.phases import phase_by_name
from mu_llama.training.run_folder import RunFolder
from mu_llama.training.setup import TrainingData
from mu_llama.training.trainable import build_trainable


def make_trainer(spec: ModelSpec, device: torch.device, *, compiled: bool, num_rows: int, num_tokens: int) -> Trainer:
    """Make a trainer of adapter and LoRA (phase `joint`) in bf16, whose rows are all of one length.

    Args:
        spec: the model.
        device: where the weights are made; the trainer's is accelerate's choice, which must be the same.
        compiled: with torch.compile.
        num_rows: of an update.
        num_tokens: of a row; the second half is learned.
    """
    folder = RunFolder(Path(tempfile.mkdtemp(prefix="mu-llama-gpu-check-")))
    config = _config(folder.path, compiled=compiled, num_rows=num_rows)
    accelerator = make_accelerator(config, folder)
    assert accelerator.device.type == device.type, f"accelerate chose {accelerator.device}"
    model = build_trainable(spec, phase=phase_by_name(config.phase), dtype=torch.bfloat16)
    sizes, vocabulary = spec.adapter_config, int(spec.llama.config.vocab_size)
    source = torch.Generator().manual_seed(0)
    table = FeatureTable(
        torch.randn(1, sizes.num_encoder_layers, sizes.encoder_width, generator=source), rows={None: 0}
    )
    half = num_tokens // 2
    rows, examples = [], []
    for number in range(4 * num_rows):
        ids = torch.randint(1, vocabulary, (num_tokens,), generator=source).tolist()
        rows.append(TokenizedRow(ids, [IGNORED] * half + ids[half:], num_tokens - half, truncated=False))
        examples.append(Example(str(number), (Turn("a question", "an answer"),)))
    tokenized = TokenizedExamples(tuple(rows), tuple(examples), num_truncated=0, num_empty=0)
    data = TrainingData(datasets=(), validation=(), features=table, hashes={})
    return Trainer(config, model, data=data, tokenized=tokenized, accelerator=accelerator, folder=folder)


def _config(folder: Path, *, compiled: bool, num_rows: int) -> TrainConfig:
    """Settings of a run; its data and model aren't read from files."""
    return parse_config(
        {
            "name": "gpu-check",
            "phase": "joint",
            "model": {"base": "random"},
            "data": {"train": [{"path": str(folder / "none.jsonl")}]},
            "optimiser": {"lr": 1e-4},
            "schedule": {"steps": 1000},
            "batch": {"size": num_rows},
            "precision": {"compile": compiled},
            "run": {"out": str(folder)},
        }
    )
