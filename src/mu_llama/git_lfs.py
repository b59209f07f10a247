"""Recognises Git LFS pointers: the small text files that stand where `git lfs pull` puts the real ones."""

from __future__ import annotations

from pathlib import Path

LFS_ADVICE = "is a Git LFS pointer, not the file itself; run `git lfs pull`"
"""What to say of a pointer, after the file's name."""

_HEAD_BYTES = 100
_POINTER_STARTS = (b"version https://git-lfs", b"version https://hawser")


def is_lfs_pointer(head: bytes) -> bool:
    r"""Say whether a file's first bytes are those of a Git LFS pointer.

    Args:
        head: the first 100 bytes or more of the file.

    Example:
        >>> is_lfs_pointer(b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a...")
        True
        >>> is_lfs_pointer(b"RIFF$...WAVEfmt ")
        False
    """
    return head.startswith(_POINTER_STARTS)


def is_lfs_pointer_file(path: Path) -> bool:
    """Say whether a file is a pointer; one that can't be read is left to its reader."""
    try:
        with path.open("rb") as file:
            return is_lfs_pointer(file.read(_HEAD_BYTES))
    except OSError:
        return False
