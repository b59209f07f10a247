"""File names in other Unicode forms, and equal ones in different folders."""

from __future__ import annotations

from pathlib import Path

import pytest

from mu_llama.audio.file_names import distinct_names, find_file

_NFC, _NFD = "caf\u00e9", "cafe\u0301"


@pytest.mark.parametrize(("written", "on_disk"), [(_NFC, _NFD), (_NFD, _NFC)])
def test_files_are_found_in_any_form(
    written: str, on_disk: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / on_disk / "x" / f"{on_disk}.wav"
    path.parent.mkdir(parents=True)
    path.touch()
    listings: dict[Path, dict[str, str]] = {}
    assert find_file(tmp_path / written / "x" / f"{written}.wav", listings) == path
    assert set(listings) == {tmp_path, path.parent}
    assert find_file(tmp_path / written / "x" / "none.wav", listings) is None
    assert find_file(tmp_path / "none.wav") is None
    monkeypatch.chdir(tmp_path)
    assert find_file(Path(written, "x", f"{written}.wav")) == path.relative_to(tmp_path)


def test_the_very_name_comes_first(tmp_path: Path) -> None:
    for name in (_NFC, _NFD):
        (tmp_path / name).touch()
    assert [find_file(tmp_path / name) for name in (_NFC, _NFD)] == [tmp_path / _NFC, tmp_path / _NFD]


def test_equal_names_are_told_apart_by_their_folders() -> None:
    paths = [Path("a/x/13.flac"), Path("b/x/13.flac"), Path("b/y/13.flac"), Path("b/y/14.flac"), Path("13.flac")]
    assert list(distinct_names([*paths, paths[0]]).values()) == [
        "a/x/13.flac", "b/x/13.flac", "y/13.flac", "14.flac", "13.flac",
    ]  # fmt: skip
    assert distinct_names([Path("/m/a.wav"), Path("m/a.wav")]) == {
        Path("/m/a.wav"): "/m/a.wav", Path("m/a.wav"): "m/a.wav",
    }  # fmt: skip
