"""Training settings: the shipped files, overrides, and every problem in one error."""

from __future__ import annotations

import copy
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from mu_llama.errors import ConfigError
from mu_llama.training.config import (
    DataConfig,
    DatasetEntry,
    ModelSource,
    NewAdapter,
    OptimizerConfig,
    ScheduleConfig,
    TrainConfig,
)
from mu_llama.training.config_file import config_to_dict, load_config, parse_config
from mu_llama.training.config_types import Settings
from mu_llama.training.phases import PHASES, Phase

CONFIGS = Path(__file__).parents[3] / "configs"
SHIPPED = sorted(CONFIGS.glob("*.yaml"))
VALID: dict[str, Any] = {
    "name": "test",
    "phase": "joint",
    "model": {"base": "mini"},
    "data": {"train": [{"path": "a.jsonl"}]},
    "optimiser": {"lr": 1e-4},
    "schedule": {"steps": 10},
}


def problems_of(*overrides: str, raw: dict[str, Any] | None = None) -> list[str]:
    """The lines of the one error, without its headline."""
    with pytest.raises(ConfigError) as caught:
        parse_config(VALID if raw is None else raw, overrides)
    return str(caught.value).splitlines()[1:]


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: path.name)
def test_shipped_files_load_and_survive_their_record(path: Path) -> None:
    config = load_config(path)
    assert parse_config(config_to_dict(config)) == config
    assert config.phase in PHASES


def test_the_published_recipes_have_the_published_numbers() -> None:
    assert {path.stem for path in SHIPPED} >= {"pretrain", "finetune", "mini"}
    pretrain, finetune = (load_config(CONFIGS / f"{name}.yaml") for name in ("pretrain", "finetune"))
    assert (pretrain.schedule.epochs, pretrain.schedule.split_epoch, pretrain.schedule.warmup_epochs) == (150, 50, 5)
    assert (finetune.schedule.epochs, finetune.schedule.split_epoch, finetune.schedule.warmup_epochs) == (20, 1, 1)
    assert (pretrain.data.max_tokens, finetune.data.max_tokens) == (96, 512)
    for config, rate in ((pretrain, 1.5625e-6), (finetune, 1.25e-4)):
        base_lr = config.optimiser.base_lr
        assert base_lr is not None
        assert base_lr * config.batch.size * config.batch.accumulate / 256 == pytest.approx(rate)
        assert (config.optimiser.betas, config.optimiser.weight_decay) == ((0.9, 0.95), 0.05)
        assert config.optimiser.clip_norm is None
        assert (config.precision.dtype, config.data.window, config.batch.bucketed) == ("fp16", "published", False)
    assert pretrain.model.fresh is not None
    assert (pretrain.model.fresh.num_conditioned_layers, pretrain.model.fresh.template) == (20, "alpaca-published")


def test_overrides_are_yaml_at_dotted_keys() -> None:
    config = parse_config(
        VALID,
        [
            "optimiser.lr=3e-5",
            "optimiser.betas=[0.9, 0.999]",
            "data.train.0.share=2",
            "schedule.steps=null",
            "schedule.epochs=4",
            "run.trackers=[wandb]",
            "run.out=/tmp/x=y",
            "precision.compile=true",
        ],
    )
    assert config.optimiser == OptimizerConfig(lr=3e-5, betas=(0.9, 0.999))
    assert config.data.train == (DatasetEntry(path=Path("a.jsonl"), share=2.0),)
    assert config.schedule == ScheduleConfig(epochs=4)
    assert config.run.trackers == ("wandb",)
    assert config.run.out == Path("/tmp/x=y")
    assert config.precision.compile is True
    assert VALID["optimiser"] == {"lr": 1e-4}, "overrides must not change what was passed in"


def test_all_problems_come_at_once_with_their_nearest_names() -> None:
    lines = problems_of(
        "data.max_tokns=128",
        "optimizer.lr=1",
        "max_tokens=3",
        "phase=finetun",
        "batch.size=0",
        "run.save_every_steps=yes",
        "run.trackers=[wandb, wandbb]",
        "data.train.7.path=x",
        "schedule.epochs=3",
        "optimiser.betas=[0.9]",
        "precision.dtype=3",
        "nonsense",
    )
    expected = (
        "data.max_tokns: is unknown; did you mean data.max_tokens?",
        "optimizer: is unknown; did you mean optimiser?",
        "max_tokens: is unknown; did you mean data.max_tokens?",
        "phase: is 'finetun'; expected one of pretrain, finetune, joint, lora",
        "batch.size: is 0; expected at least 1",
        "run.save_every_steps: is True; expected a whole number",
        "run.trackers.1: is 'wandbb'; expected one of tensorboard",
        "data.train.7.path: there is no place for '7'",
        "schedule.epochs: is 3 and schedule.steps is 10; expected one of them",
        "optimiser.betas.1: is missing and has no default; give it",
        "precision.dtype: is 3; expected one of bf16, fp16, fp32",
        "nonsense: is no override; expected key=value",
    )
    for start in expected:
        assert sum(line.startswith(start) for line in lines) == 1, (start, lines)
    assert len(lines) == len(expected), lines


def test_a_misspelt_key_is_not_reported_as_missing_too() -> None:
    raw = {name: value for name, value in VALID.items() if name != "schedule"} | {"shedule": {"steps": 10}}
    assert problems_of(raw=raw) == ["shedule: is unknown; did you mean schedule?"]
    assert problems_of("schedule.steps=null", "schedule.step=3") == [
        "schedule.step: is unknown; did you mean schedule.steps?"
    ]


@pytest.mark.parametrize(
    ("overrides", "start"),
    [
        (["schedule.steps=null"], "schedule.epochs: and schedule.steps are both missing"),
        (["schedule.warmup_steps=10"], "schedule.warmup_steps: is 10; expected less than schedule.steps"),
        (["schedule.warmup_epochs=1"], "schedule.warmup_epochs: is 1, but the length is not in epochs"),
        (["optimiser.base_lr=1e-3"], "optimiser.lr: is 0.0001 and optimiser.base_lr is 0.001"),
        (["optimiser.lr=null", "optimiser.adapter_lr=1e-3"], "optimiser.lora_lr: is missing"),
        (["phase=pretrain", "optimiser.lora_lr=1e-3"], "optimiser.lora_lr: is 0.001, but phase pretrain"),
        (["phase=finetune", "optimiser.adapter_lr=1e-3"], "optimiser.adapter_lr: is 0.001, but phase finetune"),
        (["phase=lora", "optimiser.adapter_lr=1e-3"], "optimiser.adapter_lr: is 0.001, but phase lora"),
        (["schedule.min_lr=1"], "schedule.min_lr: is 1; expected at most the peak rate"),
        (["model.base=null"], "model.base: and model.fresh are both missing"),
        (["model.base=null", "model.fresh={}"], "model.fresh: is an adapter between an encoder and a LLaMA"),
        (["model.encoder={kind: mertt}"], "model.encoder: has kind 'mertt'; expected one of mert, musicnn"),
        (["data.train=[]"], "data.train: is empty"),
        (["data.train=[{path: a, share: 1}, {path: b}]"], "data.train: has a share in 1 of 2 entries"),
        (["data.validation=[{path: a}]", "data.validation_fraction=0.1"], "data.validation: is given and"),
        (["run.early_stop_patience=2"], "run.early_stop_patience: is 2, but there is no validation data"),
        (["batch.max_tokens=100"], "batch.max_tokens: is 100; expected at least data.max_tokens"),
        (["data.validation_fraction=1.0"], "data.validation_fraction: is 1.0; expected below 1"),
        (["optimiser.lr=.nan"], "optimiser.lr: is nan; expected a finite number"),
        (["name=''"], "name: is ''; expected a text of a length of at least 1"),
    ],
)
def test_each_contradiction_is_one_line(overrides: list[str], start: str) -> None:
    lines = problems_of(*overrides)
    assert len(lines) == 1, lines
    assert lines[0].startswith(start)


def test_a_fresh_adapter_is_not_for_finetune_and_needs_a_known_template() -> None:
    whole = ["model={fresh: {template: alpacca}, llama: L, encoder: {kind: musicnn}}", "phase=finetune"]
    lines = problems_of(*whole)
    assert [line.partition(":")[0] for line in lines] == ["model.fresh", "model.fresh.template"]


def test_settings_made_in_python_are_checked_the_same_way() -> None:
    right = {"name": "x", "phase": "joint", "model": ModelSource(base="mini"), "optimiser": OptimizerConfig(lr=1e-4)}
    with pytest.raises(
        ConfigError, match=r"^TrainConfig has 2 problems:\ndata.train: is empty; .*\nschedule.steps: is 0;"
    ):
        TrainConfig(**right, data=DataConfig(), schedule={"steps": 0})
    with pytest.raises(ConfigError, match=r"^ScheduleConfig has 1 problem:\nsteps: is 0; expected at least 1"):
        ScheduleConfig(steps=0)
    unchecked = ScheduleConfig(steps=3).model_copy(update={"steps": 0, "epochs": 1})
    with pytest.raises(
        ConfigError, match=r"^TrainConfig has 2 problems:\ndata.train: is empty; .*\nschedule.steps: is 0;"
    ):
        TrainConfig(**right, data=DataConfig(), schedule=unchecked)
    config = TrainConfig(**right, data={"train": [DatasetEntry(path=Path("a"))]}, schedule=ScheduleConfig(steps=3))
    assert config.data.train == (DatasetEntry(path=Path("a")),)
    with pytest.raises(ValidationError, match="frozen"):
        config.name = "y"  # type: ignore[misc]


def paths_of(value: object, prefix: str = "") -> list[str]:
    """Dotted names of everything in nested plain values."""
    inside = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [path for name, item in inside for path in (f"{prefix}{name}", *paths_of(item, f"{prefix}{name}."))]


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: path.name)
@pytest.mark.parametrize("wrong", ["!!set {a}", "yes"])
def test_a_wrong_value_is_one_problem_whatever_depends_on_it(path: Path, wrong: str) -> None:
    raw = config_to_dict(load_config(path))
    for name in paths_of(raw):
        if name.startswith("model.encoder.") or (wrong == "yes" and isinstance(value_at(raw, name), bool)):
            continue
        lines = problems_of(f"{name}={wrong}", raw=raw)
        assert len(lines) == 1, (name, lines)
        assert lines[0].startswith(name), (name, lines)


def value_at(raw: Any, path: str) -> Any:
    for name in path.split("."):
        raw = raw[int(name) if isinstance(raw, list) else name]
    return raw


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: path.name)
def test_a_misspelt_name_is_one_problem_whatever_depends_on_it(path: Path) -> None:
    plain = load_config(path).model_dump(mode="json", exclude_defaults=True)
    for name in paths_of(plain):
        if isinstance(value_at(plain, name.rpartition(".")[0]) if "." in name else plain, list):
            continue
        if name.startswith("model.encoder."):
            continue
        raw = copy.deepcopy(plain)
        parent = value_at(raw, name.rpartition(".")[0]) if "." in name else raw
        last = name.rpartition(".")[2]
        parent[last + "x"] = parent.pop(last)
        assert problems_of(raw=raw) == [f"{name}x: is unknown; did you mean {name}?"]


def test_contradictions_are_reported_beside_wrong_values_of_the_same_section() -> None:
    lines = problems_of(
        "phase=lora",
        "optimiser.adapter_lr=1e-3",
        "optimiser.base_lr=1",
        "optimiser.weight_decay=-1",
        "data.train=[{path: a, share: 1}, {path: b}]",
        "data.window=ful",
        "data.augment=[noise]",
        "model={fresh: {num_blocks: 0}}",
    )
    assert [line.partition(":")[0] for line in lines] == [
        "data.augment",
        "data.train",
        "data.window",
        "model.fresh",
        "model.fresh",
        "model.fresh.num_blocks",
        "optimiser.adapter_lr",
        "optimiser.lr",
        "optimiser.weight_decay",
    ]
    for broken in ({1: 2}, {True: 2}, {"run": {2: 1}}):
        first, second = problems_of("schedule.epochs=1", raw=VALID | broken)
        assert "expected names that are texts" in first
        assert second.startswith("schedule.epochs: is 1 and schedule.steps is 10;")
    assert problems_of("name=null", "schedule.epochs=1")[0].startswith("name: is null; expected a text")


@pytest.mark.parametrize(
    ("override", "line"),
    [
        ("schedule.steps='10'", "schedule.steps: is '10'; expected a whole number"),
        ("schedule.steps=10.0", "schedule.steps: is 10.0; expected a whole number"),
        ("batch.size=true", "batch.size: is True; expected a whole number"),
        ("optimiser.lr=true", "optimiser.lr: is True; expected a finite number"),
        ("optimiser.lr='1e-4'", "optimiser.lr: is '1e-4'; expected a finite number"),
        ("optimiser.lr=.inf", "optimiser.lr: is inf; expected a finite number"),
        ("optimiser.betas=[0.9, 1]", "optimiser.betas.1: is 1; expected below 1"),
        ("optimiser.betas=[0.9, 0.9, 0.9]", "optimiser.betas: is [0.9, 0.9, 0.9]; expected a list of at most 2"),
        ("batch.bucketed=1", "batch.bucketed: is 1; expected true or false"),
        ("name=2024-01-01", "name: is datetime.date(2024, 1, 1); expected a text (in quotes if YAML reads it as"),
        ("run.out=3", "run.out: is 3; expected a path"),
        ("run.out=''", "run.out: is ''; expected a path"),
        ("run.out=~no-such-user-here/x", "run.out: is '~no-such-user-here/x'; expected a path, but its user"),
        ("run.trackers=wandb", "run.trackers: is 'wandb'; expected a list"),
        ("run.trackers=!!set {wandb}", "run.trackers: is {'wandb'}; expected a list"),
        ("run.seed=-1", "run.seed: is -1; expected at least 0"),
        ("run=3", "run: is 3; expected a mapping of names to values"),
        ("model.encoder=musicnn", "model.encoder: is 'musicnn'; expected a mapping of names to values"),
        ("data.train=[a.jsonl]", "data.train.0: is 'a.jsonl'; expected a mapping of names to values"),
        ("data.train=[{format: jsonl}]", "data.train.0.path: is missing and has no default; give it, such as"),
        ("data.train.0.formt=x", "data.train.0.formt: is unknown; did you mean data.train.0.format?"),
        ("data.train.0.pth=x", "data.train.0.pth: is unknown; did you mean data.train.0.path?"),
        ("zzzz=1", "zzzz: is unknown; expected one of name, phase, model,"),
        ("name=2024-13-45", "name: the value '2024-13-45' is not YAML (month must be in 1..12"),
        ("name=[", "name: the value '[' is not YAML"),
    ],
)  # fmt: skip
def test_each_wrong_value_says_what_came_and_what_was_expected(override: str, line: str) -> None:
    (problem,) = problems_of(override)
    assert problem.startswith(line), problem


def test_missing_settings_are_named_with_an_example() -> None:
    assert [line.partition(";")[0] for line in problems_of(raw={})] == [
        "data.train: is empty",
        "model.base: and model.fresh are both missing",
        "name: is missing and has no default",
        "phase: is missing and has no default",
        "schedule.epochs: and schedule.steps are both missing",
    ]


def test_a_new_phase_is_a_row_of_the_table_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(PHASES, "gates", Phase("gates", ("conditioner.gate",)))
    assert parse_config(VALID, ["phase=gates"]).phase == "gates"
    assert problems_of("phase=gates", "optimiser.lora_lr=1") == [
        "optimiser.lora_lr: is 1, but phase gates trains nothing inside the LLaMA; leave it out"
    ]
    assert problems_of("phase=gate")[0].endswith("expected one of pretrain, finetune, joint, lora, gates")


def test_every_setting_says_what_it_does() -> None:
    sections = [TrainConfig, *(type(section) for _, section in parse_config(VALID) if isinstance(section, Settings))]
    for section in (*sections, NewAdapter, DatasetEntry):
        for name, field in section.model_fields.items():
            assert field.description, f"{section.__name__}.{name}"


def test_the_record_holds_plain_values() -> None:
    config = parse_config(
        VALID, ["model={base: b, encoder: {kind: mert, path: p}}", "run.out=/o", "run.trackers=[aim]"]
    )
    plain = config_to_dict(config)
    assert json.loads(json.dumps(plain)) == plain
    assert (plain["run"]["out"], plain["run"]["trackers"], plain["model"]["encoder"]["path"]) == ("/o", ["aim"], "p")
    assert parse_config(plain) == config


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("name: [", "is not YAML"),
        ("name: a\nname: b", "the key 'name' is given twice"),
        ("- 1", "expected a mapping of names to values"),
        ("", "expected a mapping of names to values"),
        ("name: !!python/object/apply:os.getcwd []", "is not YAML"),
        ("name: 2024-13-45", "is not YAML"),
        (f"name: {'[' * 700}{']' * 700}", "is not YAML .too many brackets"),
        ("model: &a {base: x, encoder: {kind: mert, more: *a}}", "an anchor that contains itself"),
        ("1: 2", "1: "),
    ],
)
def test_files_that_are_no_settings_are_named(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "bad.yaml"
    path.write_text(text)
    with pytest.raises(ConfigError, match=message) as caught:
        load_config(path)
    assert str(path) in str(caught.value)
    with pytest.raises(ConfigError, match="can't be read"):
        load_config(tmp_path / "none.yaml")


def test_without_pydantic_the_error_says_what_to_install() -> None:
    code = (
        "import sys\nsys.modules['pydantic'] = None\nfrom mu_llama.errors import ConfigError\n"
        "try:\n    import mu_llama.training.config_file\nexcept ConfigError as error:\n    print(error)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "training settings need pydantic; run: pip install 'mu-llama[train]'"


def test_reading_settings_loads_no_torch() -> None:
    code = "import mu_llama.training.config_file, mu_llama.training.dataset, sys; print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"
