"""Folders that belong to a living process, and go with it.

Each has a locked file in it. The kernel drops the lock with the process, however that ends, so that whoever comes next
can tell what nobody owns any more and remove it. Folders are made and looked at under a lock of their parent, which is
held for microseconds.
"""

from __future__ import annotations

import fcntl
import os
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final

_LOCK: Final = "lock"
_DEAD: Final = "dead-"


class Claim:
    """A new folder below `parent`, private to this user. Released by `release`, or by the end of the process."""

    def __init__(self, parent: Path) -> None:
        self.path = parent / secrets.token_hex(8)
        with _locked(parent):
            self.path.mkdir(mode=0o700)
            self._lock = os.open(self.path / _LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)

    def release(self) -> None:
        """Remove the folder with everything in it."""
        shutil.rmtree(self.path, ignore_errors=True)
        if self._lock >= 0:
            os.close(self._lock)
            self._lock = -1


def sweep_claims(parent: Path) -> None:
    """Remove the folders of processes that have ended. Raises OSError where `parent` cannot be used."""
    with _locked(parent):
        names = [each.name for each in os.scandir(parent) if each.is_dir(follow_symlinks=False)]
        for name in names:
            if not name.startswith(_DEAD) and not _lives(parent / name):
                with suppress(FileNotFoundError):  # its owner is just removing it
                    os.rename(parent / name, parent / (_DEAD + name))
    for name in names:
        dead = name if name.startswith(_DEAD) else _DEAD + name
        shutil.rmtree(parent / dead, ignore_errors=True)


def private_folder(path: Path) -> bool:
    """Make `path`; whether it is there afterwards and nobody else's. Where others may write too, somebody may have been
    first."""
    with suppress(FileExistsError):
        path.mkdir(mode=0o700)
    about = os.lstat(path)
    return path.is_dir() and not path.is_symlink() and about.st_uid == os.getuid() and not about.st_mode & 0o077


def _lives(folder: Path) -> bool:
    try:
        lock = os.open(folder / _LOCK, os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC)
    except FileNotFoundError:
        return False  # killed while it was made or removed
    except OSError:
        return True  # none of ours
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return True
    finally:
        os.close(lock)
    return False


@contextmanager
def _locked(parent: Path) -> Iterator[None]:
    descriptor = os.open(parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)
