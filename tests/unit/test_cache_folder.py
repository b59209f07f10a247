"""The cache folder, and what stands in for it where it can't be written."""

from __future__ import annotations

import errno
import logging
import os
import stat
import tempfile
from pathlib import Path

import pytest

from mu_llama import cache_folder
from mu_llama.audio.facts import libraries
from mu_llama.checkpoints import embedded
from mu_llama.encoders.cache import FeatureCache
from mu_llama.errors import ConfigError


@pytest.fixture(autouse=True)
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A machine whose temporary folder is empty, and a process that has reported nothing yet."""
    temporary = tmp_path / "temporary"
    temporary.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(temporary))
    cache_folder.temporary_home.cache_clear()
    cache_folder.report_unwritable.cache_clear()
    yield temporary
    cache_folder.temporary_home.cache_clear()
    cache_folder.report_unwritable.cache_clear()


@pytest.fixture
def unwritable(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A cache folder that may not be made; as root too, which no permissions hold back."""
    home, mkdir = tmp_path / "denied" / "home", Path.mkdir

    def denying(self: Path, *arguments: object, **options: object) -> None:
        if self.is_relative_to(tmp_path / "denied"):
            raise PermissionError(errno.EACCES, "Permission denied")
        mkdir(self, *arguments, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(Path, "mkdir", denying)
    monkeypatch.setenv(cache_folder.HOME_VARIABLE, str(home))
    return home


def test_a_cache_folder_that_can_be_written_is_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(cache_folder.HOME_VARIABLE, str(tmp_path / "home"))
    assert cache_folder.writable_home() == tmp_path / "home"
    assert list((tmp_path / "home").iterdir()) == []


def test_another_folder_stands_in_and_that_is_reported_once(
    unwritable: Path, machine: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folder = cache_folder.writable_home()
    assert folder == cache_folder.writable_home()
    assert folder.parent == machine
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert [record.levelno for record in caplog.records] == [logging.WARNING]
    assert str(unwritable) in caplog.text
    assert cache_folder.HOME_VARIABLE in caplog.text


def test_a_later_process_finds_the_same_folder(unwritable: Path) -> None:
    first = cache_folder.writable_home()
    cache_folder.temporary_home.cache_clear()
    assert cache_folder.writable_home() == first


@pytest.mark.parametrize("trap", ["open to others", "a link"])
def test_a_folder_that_others_may_have_made_is_not_trusted(trap: str, machine: Path, tmp_path: Path) -> None:
    expected = machine / f"mu-llama-{os.getuid()}"
    if trap == "a link":
        (tmp_path / "elsewhere").mkdir(mode=0o700)
        expected.symlink_to(tmp_path / "elsewhere")
    else:
        expected.mkdir()
        expected.chmod(0o777)
    folder = cache_folder.temporary_home()
    assert folder != expected
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700


def test_a_user_without_a_home_has_a_folder(
    machine: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv(cache_folder.HOME_VARIABLE, "~nobody-of-that-name/cache")
    assert cache_folder.home_folder().parent == machine
    assert "no home folder" in caplog.text


def test_without_any_folder_the_error_says_what_to_set(unwritable: Path, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "denied" / "temporary"))
    with pytest.raises(ConfigError, match=cache_folder.HOME_VARIABLE):
        cache_folder.writable_home()


def test_numba_keeps_its_code_where_it_can(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(cache_folder.HOME_VARIABLE, str(tmp_path / "home"))
    monkeypatch.delenv("NUMBA_CACHE_DIR", raising=False)
    monkeypatch.delitem(libraries.sys.modules, "numba", raising=False)
    monkeypatch.setattr(libraries, "_is_writable_tree", lambda _: True)
    libraries._choose_numba_cache()
    assert "NUMBA_CACHE_DIR" not in os.environ
    monkeypatch.setattr(libraries, "_is_writable_tree", lambda _: False)
    libraries._choose_numba_cache()
    assert os.environ["NUMBA_CACHE_DIR"] == str(tmp_path / "home" / "numba")
    monkeypatch.setenv("NUMBA_CACHE_DIR", "/chosen")
    libraries._choose_numba_cache()
    assert os.environ["NUMBA_CACHE_DIR"] == "/chosen"


def test_a_model_that_cannot_be_kept_is_made_in_the_temporary_folder(
    unwritable: Path, machine: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def convert(gguf_path: Path, folder: Path) -> None:
        folder.mkdir()
        (folder / "config.json").write_text("{}")

    monkeypatch.setattr(embedded, "_installed_file", lambda _: tmp_path / "model.gguf")
    monkeypatch.setattr(embedded, "_verify", lambda *_: None)
    monkeypatch.setattr(embedded, "_convert", convert)
    said: list[str] = []
    for _ in range(2):
        folder = embedded.provide_llama(embedded.SMOLLM2, cache_folder.home_folder(), report=said.append)
        assert folder.is_relative_to(machine)
    assert len(said) == 1, "the second time it is there"


def test_a_model_in_a_cache_folder_that_is_only_read_is_used(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    folder = embedded.converted_folder(embedded.SMOLLM2, tmp_path / "home")
    folder.mkdir(parents=True)
    (folder / "config.json").write_text("{}")
    assert embedded.provide_llama(embedded.SMOLLM2, tmp_path / "home") == folder
    assert caplog.text == ""


def test_features_and_models_report_an_unwritable_cache_folder_together(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv(cache_folder.HOME_VARIABLE, str(tmp_path / "home"))
    cache = FeatureCache(tmp_path / "home" / "features")
    error = OSError(errno.EACCES, "Permission denied")
    cache._warn_once(error)
    FeatureCache(tmp_path / "home" / "features")._warn_once(error)
    cache_folder.report_unwritable(tmp_path / "home", "Permission denied")
    assert len(caplog.records) == 1
