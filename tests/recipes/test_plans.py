"""What recipes/mini plans: training clips in two soundfonts, the others once."""

from __future__ import annotations

from pathlib import Path

from recipes.mini.extract_features import is_changed
from recipes.mini.plans import AGAIN, PATCHED, TEST_FONT, Plan, Split, font_of, read_plans, write_plans


def _plan(number: int, group: str, split: Split) -> Plan:
    name = f"{group}-{split}-{number}"
    return Plan(name, group, f"work {number}", split, "a.mid", "GPL-2", font_of(name, split))


def test_training_clips_of_bands_are_played_again_by_others(tmp_path: Path) -> None:
    splits: tuple[Split, ...] = ("train", "val", "test")
    write_plans(tmp_path, "A", [_plan(number, "A", split) for number, split in enumerate(splits)])
    plans = {plan.id: plan for plan in read_plans(tmp_path, "A")}
    assert set(plans) == {"A-train-0", f"A-train-0{AGAIN}", f"A-train-0{PATCHED}", "A-val-1", "A-test-2"}
    own = [plans[name] for name in ("A-train-0", f"A-train-0{AGAIN}", f"A-train-0{PATCHED}")]
    assert len({(plan.work, plan.source, plan.split) for plan in own}) == 1
    assert len({plan.soundfont for plan in own}) == 3
    assert TEST_FONT not in {*(plan.soundfont for plan in own), plans["A-val-1"].soundfont}
    assert plans["A-test-2"].soundfont == TEST_FONT


def test_sung_tunes_are_not_played_again(tmp_path: Path) -> None:
    write_plans(tmp_path, "E", [_plan(0, "E", "train")])
    assert [plan.id for plan in read_plans(tmp_path, "E")] == ["E-train-0"]


def test_only_clips_played_for_the_first_time_are_changed() -> None:
    clips = [{"id": f"A-train-{number}", "split": "train"} for number in range(40)]
    assert 0 < sum(map(is_changed, clips)) < len(clips)
    assert not any(is_changed({**clip, "id": f"{clip['id']}{end}"}) for clip in clips for end in (AGAIN, PATCHED))
