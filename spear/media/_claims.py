"""Folders that belong to a living process, and go with it.

Each has a locked file in it. The kernel drops the lock with the process, however that ends, so that whoever comes next
can tell what nobody owns any more and remove it.
"""

from __future__ import annotations

import fcntl
import os
import secrets
import shutil
import time
from contextlib import suppress
from pathlib import Path
from typing import Final

_LOCK: Final = "lock"
_ABANDONED_S: Final = 3600.0


class Claim:
    """A new folder below `parent`, private to this user. Released by `release`, or by the end of the process."""

    def __init__(self, parent: Path, prefix: str = "") -> None:
        self.path = parent / f"{prefix}{secrets.token_hex(8)}"
        self.path.mkdir(mode=0o700)
        # Locked before it has its name: no sweeper meets one that is not locked yet.
        fresh = self.path / "lock.new"
        self._lock = os.open(fresh, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        os.rename(fresh, self.path / _LOCK)

    def release(self) -> None:
        """Remove the folder with everything in it."""
        shutil.rmtree(self.path, ignore_errors=True)
        if self._lock >= 0:
            os.close(self._lock)
            self._lock = -1


def sweep_claims(parent: Path, prefix: str = "") -> int:
    """Remove the folders of processes that have ended, and say how many. Leaves alone what belongs to other users or
    is no such folder."""
    removed = 0
    with suppress(OSError):
        for entry in list(os.scandir(parent)):
            if entry.name.startswith(prefix) and entry.is_dir(follow_symlinks=False):
                removed += _sweep(Path(entry.path))
    return removed


def _sweep(folder: Path) -> bool:
    try:
        about = os.lstat(folder)
        if about.st_uid != os.getuid():
            return False
        lock = os.open(folder / _LOCK, os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC)
    except FileNotFoundError:  # being made or removed; for as long as this only where somebody died at it
        old = time.time() - about.st_mtime > _ABANDONED_S
        if old:
            shutil.rmtree(folder, ignore_errors=True)
        return old
    except OSError:
        return False  # none of ours
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False  # somebody lives there
    else:
        shutil.rmtree(folder, ignore_errors=True)
        return True
    finally:
        os.close(lock)
