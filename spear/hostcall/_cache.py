"""Compiled modules on disk. They are machine code that will be run, so the place is guarded:

the directory is private (0700, owned by this user, no symlink); every file carries an HMAC under a per-user key that
covers the code, the module's digest and the engine it is for; what does not check out is not used but compiled again.
The newest-used files stay, up to 512 MiB. Everything here blocks: call it in a thread.
"""

from __future__ import annotations

import contextlib
import hmac
import os
import secrets
import stat
from pathlib import Path
from typing import Final

from spear.hostcall._limits import MIB

CACHE_BYTES: Final = 512 * MIB
KEY_BYTES: Final = 32
MAC_BYTES: Final = 32
SUFFIX: Final = ".cwasm"
KEY_NAME: Final = "key"


def default_directory() -> Path:
    """Below the user's cache directory, as XDG_CACHE_HOME has it."""
    base = os.environ.get("XDG_CACHE_HOME", "")
    return (Path(base) if base.startswith("/") else Path.home() / ".cache") / "spear" / "modules"


class DiskCache:
    """`problem` says why the cache is not used, if it is not; then `load` finds nothing and `store` does nothing."""

    def __init__(self, directory: Path, engine_tag: str, max_bytes: int = CACHE_BYTES) -> None:
        self._directory = directory
        self._tag = engine_tag
        self._max_bytes = max_bytes
        self._key = b""
        self.problem: str | None = None
        try:
            self._prepare()
        except OSError as error:
            self.problem = f"{directory}: {error.strerror or error}"

    def _prepare(self) -> None:
        self._directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        status = self._directory.lstat()
        if not stat.S_ISDIR(status.st_mode):
            self.problem = f"{self._directory} is not a directory"
        elif status.st_uid != os.geteuid():
            self.problem = f"{self._directory} belongs to another user"
        elif stat.S_IMODE(status.st_mode) & 0o077:
            self.problem = f"{self._directory} is open to others; its mode must be 0700"
        else:
            self._key = self._read_key()

    def _read_key(self) -> bytes:
        path = self._directory / KEY_NAME
        with contextlib.suppress(FileExistsError):
            temporary = self._directory / f".{secrets.token_hex(8)}"
            try:
                self._write(temporary, secrets.token_bytes(KEY_BYTES))
                os.link(temporary, path)  # complete or not there, also when several processes start at once
            finally:
                temporary.unlink(missing_ok=True)
        key = self._read_own(path)
        if len(key) != KEY_BYTES:
            self.problem = f"{path} is damaged; delete it"
        return key

    def _read_own(self, path: Path) -> bytes:
        """The content of a regular file of ours that nobody else may write. Raises OSError."""
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
        with os.fdopen(descriptor, "rb") as file:
            status = os.fstat(file.fileno())
            if not stat.S_ISREG(status.st_mode) or status.st_uid != os.geteuid() or status.st_mode & 0o022:
                raise PermissionError(1, "not a private file of this user", str(path))
            return file.read()

    def _write(self, path: Path, content: bytes) -> None:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "wb") as file:
            file.write(content)

    def _path(self, digest: str) -> Path:
        return self._directory / f"{digest}-{self._tag}{SUFFIX}"

    def _mac(self, digest: str, code: bytes) -> bytes:
        mac = hmac.new(self._key, f"{digest}\0{self._tag}\0".encode(), "sha256")
        mac.update(code)
        return mac.digest()

    def load(self, digest: str) -> bytes | None:
        """The code stored under this digest, if it is there and authentic."""
        if self.problem is not None:
            return None
        path = self._path(digest)
        try:
            content = self._read_own(path)
        except OSError:
            return None
        mac, code = content[:MAC_BYTES], content[MAC_BYTES:]
        if not hmac.compare_digest(mac, self._mac(digest, code)):
            self.discard(digest)
            return None
        with contextlib.suppress(OSError):
            os.utime(path)  # used just now: the last to be pruned
        return code

    def store(self, digest: str, code: bytes) -> None:
        """Write, then prune. A full disk or a vanished directory only means that nothing is cached."""
        if self.problem is not None or len(code) + MAC_BYTES > self._max_bytes:
            return
        temporary = self._directory / f".{secrets.token_hex(8)}"
        try:
            self._write(temporary, self._mac(digest, code) + code)
            temporary.replace(self._path(digest))
            self._prune()
        except OSError:
            with contextlib.suppress(OSError):
                temporary.unlink()

    def discard(self, digest: str) -> None:
        with contextlib.suppress(OSError):
            self._path(digest).unlink()

    def _prune(self) -> None:
        files: list[tuple[float, int, Path]] = []
        for path in self._directory.glob(f"*{SUFFIX}"):
            with contextlib.suppress(OSError):  # another process may prune at the same time
                status = path.stat()
                files.append((status.st_mtime, status.st_size, path))
        total = sum(size for _, size, _ in files)
        for _, size, path in sorted(files):
            if total <= self._max_bytes:
                return
            with contextlib.suppress(OSError):
                path.unlink()
            total -= size
