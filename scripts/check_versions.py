"""Run the tests with the lowest and the newest dependencies that pyproject.toml allows.

    python scripts/check_versions.py [--work DIR] [--only lowest|newest] [PYTEST ARGUMENT ...]

Two environments are made with uv (https://docs.astral.sh/uv, itself installed beside them) and kept for the next run:

- `lowest`: the oldest supported Python, every direct dependency at its lower bound;
- `newest`: the newest Python found on this machine, every dependency at its newest release.

In each the whole default suite runs, or the pytest arguments that are given. The exit code is 1 if either fails.
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import subprocess
import sys
import venv
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
OLDEST_PYTHON = (3, 11)
EXTRAS = "dev,torch,train,musicqa,ray,facts,demo"
RESOLUTIONS = {"lowest": "lowest-direct", "newest": "highest"}
SHOWN = ("av", "gradio", "librosa", "numpy", "onnxruntime", "ray", "torch", "transformers", "typer")


def main() -> int:
    """Make both environments, run the tests in each, print one line for each."""
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument(
        "--work", type=Path, default=ROOT / "work" / "versions", help="where the environments are kept"
    )
    options.add_argument("--only", choices=RESOLUTIONS, help="one of the two environments")
    chosen, pytest_arguments = options.parse_known_args()
    pythons = installed_pythons()
    if OLDEST_PYTHON not in pythons:
        print(f"found no Python {dotted(OLDEST_PYTHON)}; found {', '.join(map(dotted, pythons)) or 'none'}")
        return 2
    versions = {"lowest": OLDEST_PYTHON, "newest": max(pythons)}
    failed = False
    for name in [chosen.only] if chosen.only else list(RESOLUTIONS):
        python = make_environment(chosen.work / name, name, pythons[versions[name]])
        done = subprocess.run([python, "-m", "pytest", "-p", "no:cacheprovider", *pytest_arguments], cwd=ROOT)
        outcome = "passed" if done.returncode == 0 else f"FAILED (pytest's exit code {done.returncode})"
        print(f"{name}: Python {dotted(versions[name])}, {installed_versions(python)}: {outcome}", flush=True)
        failed |= done.returncode != 0
    return int(failed)


def installed_pythons() -> dict[tuple[int, int], Path]:
    """Interpreters of supported versions on PATH, in PATH's siblings `~/.pyenv/versions/*/bin`, and this one."""
    folders = [Path(folder) for folder in os.get_exec_path()]
    folders += sorted(Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv")).glob("versions/*/bin"))
    found = {sys.version_info[:2]: Path(sys.executable)}
    for path in (path for folder in folders if folder.is_dir() for path in folder.glob("python3.*")):
        match = re.fullmatch(r"python3\.(\d+)", path.name)
        if match and runs(path):
            found.setdefault((3, int(match[1])), path)
    return {version: path for version, path in sorted(found.items()) if version >= OLDEST_PYTHON}


def runs(path: Path) -> bool:
    """Whether an interpreter starts; pyenv's shims of versions that aren't active don't."""
    return subprocess.run([path, "-c", "import venv"], capture_output=True).returncode == 0


def make_environment(folder: Path, name: str, python: Path) -> Path:
    """Make or update an environment with this package, editable, and everything its tests need."""
    uv = install_uv(folder.parent / "uv")
    environment = {**os.environ, "VIRTUAL_ENV": str(folder)}
    if not (folder / "bin" / "python").exists():
        subprocess.run([uv, "venv", "--quiet", "--seed", "--python", python, folder], check=True)
    subprocess.run(
        [uv, "pip", "install", "--upgrade", "--resolution", RESOLUTIONS[name], "--editable", f"{ROOT}[{EXTRAS}]"],
        check=True, env=environment, cwd=ROOT,
    )  # fmt: skip
    return folder / "bin" / "python"


def install_uv(folder: Path) -> Path:
    """Give uv: the one on PATH, else one in an environment of its own."""
    on_path = shutil.which("uv")
    if on_path:
        return Path(on_path)
    if not (folder / "bin" / "uv").exists():
        venv.create(folder, with_pip=True)
        subprocess.run([folder / "bin" / "pip", "install", "--quiet", "uv"], check=True)
    return folder / "bin" / "uv"


def installed_versions(python: Path) -> str:
    """The versions that matter most, as `av 14.0.0, ...`."""
    code = f"from importlib.metadata import version\nprint(', '.join(f'{{n}} {{version(n)}}' for n in {SHOWN!r}))"
    return subprocess.run([python, "-c", code], capture_output=True, text=True, check=True).stdout.strip()


def dotted(version: tuple[int, int]) -> str:
    """`(3, 11)` as `3.11`."""
    return ".".join(map(str, version))


if __name__ == "__main__":
    sys.exit(main())
