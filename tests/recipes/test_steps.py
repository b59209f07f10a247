"""The steps of `python -m recipes.mini.make`: their names, the modules that they run, and what they don't do again."""

from __future__ import annotations

import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

from recipes.mini import make


def test_steps_have_their_former_names_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ran: list[str] = []
    steps = {name: lambda settings, name=name: ran.append(name) for name in make.STEPS}
    monkeypatch.setattr(make, "STEPS", steps)
    monkeypatch.setattr(sys, "argv", ["make", "--work", str(tmp_path), "--only", "feel", "listen", "warm", "train"])
    make.main()
    assert ran == ["energy_valence", "features", "pretrain", "train"]


def test_steps_run_modules_that_exist(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    commands: list[list[str]] = []
    monkeypatch.setattr(make, "_run", lambda *command, **_: commands.append([str(part) for part in command]))
    monkeypatch.setattr(make, "_together", lambda *several: [make._run(*command) for command in several])
    settings = make.Settings(tmp_path, 0.02)
    for step in ("clips", "energy_valence", "features", "tracks", "pretrain", "questions", "score"):
        make.STEPS[step](settings)
    modules = {command[command.index("-m") + 1] for command in commands}
    assert len(modules) == 8
    assert all(find_spec(module) for module in modules), modules


def test_what_an_earlier_recipe_trained_is_not_trained_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(make, "_run", lambda *command, **_: pytest.fail(f"ran {command}"))
    for folder in ("warm", "run/model"):
        (tmp_path / folder).mkdir(parents=True)
    (tmp_path / "warm" / "config.json").write_text("{}")
    settings = make.Settings(tmp_path, 1.0)
    make.pretrain(settings)
    make.train(settings)
