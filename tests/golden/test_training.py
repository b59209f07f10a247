"""Rows, losses, gradients, parameter groups, rates, orders and a short run equal the reference's.

Gates of layers without an adapter have no gradient in the reference and don't exist here: they are left out.
"""

from __future__ import annotations

import json
import re
from functools import cache
from typing import Any

import pytest
import torch

from mu_llama.engine.torch.llama import MuLlama
from mu_llama.text.prompts import ALPACA_PUBLISHED, Turn
from mu_llama.training.collate import IGNORED, Batch, TokenizedRow, answer_loss, collate, tokenize
from mu_llama.training.optimizer import (
    BETAS,
    build_optimizer,
    parameter_groups,
    peak_lr,
    published_lr,
    set_lrs,
    update_time,
)
from mu_llama.training.phases import PHASES, plain_name, select_trainable
from mu_llama.training.sampler import micro_batches, plain_batches, sub_epoch_order
from mu_llama.training.trainable import build_trainable
from tests.factories.published import published_parts
from tests.golden.reference_names import reference_tensors
from tests.golden.test_model import FILES, LOGITS_ATOL, Models

NLL_ATOL = 1e-4
LOSS_ATOL = 5e-5
GRADIENT_ATOL = 2e-4
NORM_RTOL = 1e-3
RUN_LOSS_ATOL = 2e-4
FINAL_NORM_RTOL = 1e-5
RATE_ATOL = 1e-12
"""From the golden README's table of tolerances."""
FINAL_ATOL = 1e-5
"""Of single numbers after a run."""
TRAIN = r"train/(?P<case>\w+)/"


class Training:
    """Rows, batches and trainable models of one golden set."""

    def __init__(self, golden: Any) -> None:
        self.golden = golden
        self.models = Models(golden)
        self.shared = cache(self.build)
        self.items: list[dict[str, Any]] = self._read_items()

    def _read_items(self) -> list[dict[str, Any]]:
        return json.loads((self.golden.path / "musicqa" / "dataset.json").read_text(encoding="utf-8"))

    def build(self, name: str) -> MuLlama:
        """A model that its phase trains; `legacy` is one of the phase `pretrain`."""
        files = [self.golden.path / file for file in FILES[name]]
        parts = published_parts(files, llama=self.golden.path / "llama", encoder=self.golden.path / "mert")
        model = build_trainable(parts, phase=PHASES["pretrain" if name == "legacy" else name])
        return model.to(self.golden.device).train()

    def row(self, index: int, max_words: int) -> TokenizedRow:
        question, answer = (turn["value"] for turn in self.items[index]["conversation"][:2])
        turns = [Turn(question, answer)]
        return tokenize(turns, ALPACA_PUBLISHED, self.models.tokenizer, max_tokens=max_words)

    def features(self, index: int) -> torch.Tensor:
        """(L, D); a text-only item hears one second of zeros."""
        name = self.items[index].get("audio_name")
        audio = "silence1s" if name is None else re.fullmatch(r"audio_(\w+)\.wav", name)[1]
        return self.models.features(audio)[0].cpu().clone()  # out of inference mode

    def batch(self, items: list[int], max_words: int, *, padded: bool = False) -> Batch:
        rows, features = [self.row(item, max_words) for item in items], [self.features(item) for item in items]
        return collate(rows, features, num_tokens=max_words if padded else None).to(self.golden.device)

    def case(self, name: str) -> tuple[MuLlama, dict[str, Any]]:
        """The model and the description of a golden training step."""
        case = self.golden.json["train"][name]
        model = self.shared("legacy" if name.startswith("legacy") else case["phase"])
        model.zero_grad()
        return model, case


@pytest.fixture(scope="module")
def training(golden: Any) -> Training:
    return Training(golden)


def gradients(model: MuLlama) -> dict[str, torch.Tensor]:
    """Under the reference's names."""
    found = {plain_name(name): value.grad for name, value in model.named_parameters() if value.grad is not None}
    return reference_tensors(found, model.llama.config)


def conditioned_only(names: list[str], golden: Any) -> set[str]:
    """Leave out the gates of layers that no adapter reaches."""
    first = golden.config["llama"]["n_layers"] - golden.config["query_layer"]
    deaf = {f"llama.layers.{layer}.attention.gate" for layer in range(first)}
    return set(names) - deaf


def test_rows(golden: Any, training: Training) -> None:
    cases = [key for key in golden.json["dataset"] if key.startswith("max_words_")]
    assert cases
    for key in cases:
        max_words = int(key.removeprefix("max_words_"))
        for index, expected in enumerate(golden.json["dataset"][key]):
            row = training.row(index, max_words)
            batch = collate([row], [torch.zeros(1, 1)], num_tokens=max_words)
            assert batch.ids[0].tolist() == expected["input_ids"]
            assert batch.labels[0].masked_fill(batch.labels[0] == IGNORED, 0).tolist() == expected["labels"]
            assert batch.mask[0].tolist() == expected["mask"]
            assert row.num_target_tokens == sum(label != 0 for label in expected["labels"])


def test_truncation_is_told(golden: Any, training: Training) -> None:
    whole = [training.row(index, 10_000) for index in range(len(training.items))]
    assert not any(row.truncated for row in whole)
    eos = golden.json["tokenizer"]["eos"]
    assert all(row.labels[-1] == row.ids[-1] == eos for row in whole)
    for key in golden.json["dataset"]:
        if key.startswith("max_words_"):
            max_words = int(key.removeprefix("max_words_"))
            told = [training.row(index, max_words).truncated for index in range(len(whole))]
            assert told == [len(row.ids) > max_words for row in whole]
            assert any(told)


@pytest.mark.golden_keys(TRAIN + "logits")
@torch.no_grad()
def test_logits_and_token_losses(golden: Any, training: Training, golden_key: re.Match[str]) -> None:
    model, case = training.case(golden_key["case"])
    batch = training.batch(case["items"], case["max_words"], padded=True)
    logits = model(batch.ids, conditioning=model.condition(batch.features))
    stem = golden_key[0].removesuffix("logits")
    expected = golden.expected
    positions = expected[stem + "logits_positions"]
    torch.testing.assert_close(
        logits[:, positions].cpu(), expected[stem + "logits"], atol=LOGITS_ATOL * golden.slack, rtol=0
    )
    targets = batch.labels[:, 1:]
    losses = torch.nn.functional.cross_entropy(
        logits[:, :-1].transpose(1, 2), targets, ignore_index=IGNORED, reduction="none"
    )
    torch.testing.assert_close(losses.cpu(), expected[stem + "token_nll"], atol=NLL_ATOL * golden.slack, rtol=0)


@pytest.mark.golden_keys(TRAIN + "logits")
@pytest.mark.parametrize("padded", [False, True])
def test_loss_and_gradient_norms(golden: Any, training: Training, golden_key: re.Match[str], padded: bool) -> None:
    model, case = training.case(golden_key["case"])
    batch = training.batch(case["items"], case["max_words"], padded=padded)
    loss = answer_loss(model, batch)
    assert int((batch.labels != IGNORED).sum()) == case["n_label_tokens"]
    assert loss.item() == pytest.approx(case["loss"], abs=LOSS_ATOL * golden.slack)
    loss.backward()
    norms = {name: value.norm().item() for name, value in gradients(model).items()}
    expected = {name: norm for name, norm in case["grad_norms"].items() if norm is not None}
    floor = NORM_RTOL * case["total_grad_norm"]
    assert norms == {name: pytest.approx(norm, rel=NORM_RTOL, abs=floor) for name, norm in expected.items()}
    total = torch.tensor(list(norms.values())).norm().item()
    assert total == pytest.approx(case["total_grad_norm"], rel=NORM_RTOL)


@pytest.mark.golden_keys(TRAIN + r"grad/(?P<name>.+)")
def test_gradients(golden: Any, training: Training, golden_key: re.Match[str]) -> None:
    model, case = training.case(golden_key["case"])
    answer_loss(model, training.batch(case["items"], case["max_words"])).backward()
    actual = gradients(model)[golden_key["name"]]
    torch.testing.assert_close(
        actual.cpu(), golden.expected[golden_key[0]], atol=GRADIENT_ATOL * golden.slack, rtol=1e-3
    )


TRAINABLE = {"pretrain": "pretrain", "finetune": "finetune", "pretrain_legacy_bridge": "legacy"}


@pytest.mark.parametrize("key", TRAINABLE)
def test_trainable_names_and_groups(golden: Any, training: Training, key: str) -> None:
    model, expected = training.build(TRAINABLE[key]), golden.json["trainable"][key]
    parameters = {plain_name(name): value for name, value in model.named_parameters() if value.requires_grad}
    named = reference_tensors(parameters, model.llama.config)
    assert named.keys() == conditioned_only(expected["names"], golden)
    num_left_out = (len(expected["names"]) - len(named)) * golden.config["llama"]["n_heads"]
    assert sum(value.numel() for value in named.values()) == expected["count"] - num_left_out
    assert len(select_trainable(model, PHASES[key.partition("_")[0]])) == len(parameters)
    assert list(BETAS) == expected["adamw"]["betas"]
    groups = parameter_groups(model, lr=1.0, weight_decay=0.05)
    assert len(groups) == len(expected["adamw"]["param_groups"])
    for group, wanted in zip(groups, expected["adamw"]["param_groups"], strict=True):
        assert group["weight_decay"] == wanted["weight_decay"]
        members = {id(value) for value in group["params"]}
        inside = {name: value for name, value in parameters.items() if id(value) in members}
        renamed = reference_tensors(inside, model.llama.config)
        assert renamed.keys() == conditioned_only(wanted["names"], golden)


def test_learning_rates(golden: Any) -> None:
    assert golden.json["lr_schedule"]
    for case in golden.json["lr_schedule"].values():
        if "blr" in case:
            assert peak_lr(case["blr"], effective_batch=case["eff_batch"]) == pytest.approx(case["lr"], abs=RATE_ATOL)
        optimizer = torch.optim.AdamW(
            [
                {"params": [torch.nn.Parameter(torch.zeros(1))], "lr": lr, "peak": lr}
                for lr in (case["lr"], case["lr"] / 2)
            ]
        )
        for value in case["values"]:
            rate = published_lr(
                value["epoch"],
                peak=case["lr"],
                minimum=case["min_lr"],
                warmup=case["warmup_epochs"],
                total=case["epochs"],
            )
            assert rate == pytest.approx(value["lr"], rel=1e-12, abs=RATE_ATOL)
            set_lrs(optimizer, rate / case["lr"])
            half = optimizer.param_groups[1]["lr"]
            assert half == pytest.approx(value["lr_group_with_lr_scale_0_5"], rel=1e-9, abs=RATE_ATOL)


def test_sub_epoch_order(golden: Any) -> None:
    assert golden.json["sub_epoch_sampler"]
    for case in golden.json["sub_epoch_sampler"]:
        order = sub_epoch_order(
            case["len"],
            epoch=case["epoch"],
            seed=case["seed"],
            split_epoch=case["split_epoch"],
            shuffle=case["shuffle"],
        )
        world = case["num_replicas"]
        actual = order[: len(order) // world * world][case["rank"] :: world]
        assert actual == case["indices"]
        assert len(actual) == case["num_samples"]


@pytest.mark.parametrize("phase", ["pretrain", "finetune"])
def test_a_short_run(golden: Any, training: Training, phase: str) -> None:
    expected = golden.json["train_run"][phase]
    args, model = expected["args"], training.build(phase)
    optimizer = build_optimizer(model, lr=args["lr"], weight_decay=args["weight_decay"])
    batches = plain_batches(expected["order"], batch_size=args["batch_size"])
    losses, rates, norms = [], [], []
    per_update = args["accum_iter"]
    for batch in micro_batches(lambda _: batches, num_epochs=len(args["epochs_run"])):
        if batch.index % per_update == 0:
            time = update_time(batch.epoch, batch.index, num_in_epoch=batch.num_in_epoch, per_update=per_update)
            rate = published_lr(
                time, peak=args["lr"], minimum=args["min_lr"], warmup=args["warmup_epochs"], total=args["epochs"]
            )
            set_lrs(optimizer, rate / args["lr"])
            optimizer.zero_grad()  # what an epoch's last micro-batches left is dropped
        loss = answer_loss(model, training.batch(list(batch.rows), args["max_words"]))
        (loss / per_update).backward()
        losses.append(loss.item())
        rates.append(optimizer.param_groups[0]["lr"])
        norms.append(None)
        if (batch.index + 1) % per_update == 0:
            found = [value.grad for value in model.parameters() if value.grad is not None]
            norms[-1] = torch.nn.utils.get_total_norm(found).item()
            optimizer.step()
    assert losses == pytest.approx(expected["losses"], abs=RUN_LOSS_ATOL * golden.slack)
    assert rates == pytest.approx(expected["lr"], abs=RATE_ATOL, rel=1e-12)
    wanted = [norm if norm is None else pytest.approx(norm, rel=NORM_RTOL) for norm in expected["grad_norm_at_update"]]
    assert norms == wanted
    compare_final(golden, model, phase)


def compare_final(golden: Any, model: MuLlama, phase: str) -> None:
    trained = {plain_name(name): value.detach() for name, value in model.named_parameters() if value.requires_grad}
    final = reference_tensors(trained, model.llama.config)
    norms = golden.json["train_run"][phase]["final_norms"]
    assert final.keys() == conditioned_only(list(norms), golden)
    actual = {name: value.norm().item() for name, value in final.items()}
    assert actual == {name: pytest.approx(norms[name], rel=FINAL_NORM_RTOL * golden.trained_slack) for name in final}
    compared = 0
    for match in golden.matches(rf"train_run/{phase}/final/(?P<name>.+)"):
        torch.testing.assert_close(
            final[match["name"]].cpu(), golden.expected[match[0]], atol=FINAL_ATOL * golden.trained_slack, rtol=1e-4
        )
        compared += 1
    assert compared
