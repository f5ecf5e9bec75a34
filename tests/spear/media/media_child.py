"""Programs that tests of the media store run in processes of their own.

media_child.py killed FOLDER SEED TIMES    kill a writing process at a random moment, look at the store, and again
media_child.py full FOLDER                 fill a small disk, mounted there by whoever starts this
"""

from __future__ import annotations

import hashlib
import os
import random
import signal
import sys
import time
from contextlib import suppress
from pathlib import Path

import pytest

from spear.ir import CallerError, ErrorCode
from spear.media import FileStore, Writing
from spear.media._account import Quotas
from spear.media._names import id_of, uri_of

MIB = 1024 * 1024
QUOTAS = Quotas(object_bytes=64 * MIB, task_bytes=512 * MIB, task_objects=1024, bytes=4096 * MIB, objects=65_536)


def opened(folder: Path) -> FileStore:
    return FileStore(folder, QUOTAS, expire_s=3600.0)


def write_for_ever(folder: Path, seed: int, out: int) -> None:
    """Says each object once it is committed, and each deletion before it is begun."""
    draw = random.Random(seed)
    store = opened(folder)
    mine: list[str] = []
    while True:
        writing = store.create("text/plain", "a")
        content = hashlib.sha256(b"%d" % draw.randrange(40)).digest() * draw.choice((1, 100, 20_000))
        for start in range(0, len(content), 100_000):
            writing.append(content[start : start + 100_000])
        ref = writing.commit(durable=draw.random() < 0.2)
        os.write(out, f"+{ref.uri} {hashlib.sha256(content).hexdigest()}\n".encode())
        mine.append(ref.uri)
        if len(mine) > 5:
            gone = mine.pop(draw.randrange(len(mine)))
            os.write(out, f"-{gone}\n".encode())
            store.delete(id_of(gone) or "")


def killed(folder: Path, seed: int, times: int) -> None:
    draw = random.Random(seed)
    known: dict[str, str] = {}
    for _ in range(times):
        told, out = os.pipe()
        child = os.fork()
        if child == 0:
            os.close(told)
            write_for_ever(folder, draw.getrandbits(32), out)
        os.close(out)
        time.sleep(draw.random() * 0.04)
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        with os.fdopen(told, "rb") as lines:
            for line in lines.read().decode().splitlines():
                assert line[0] in "+-"
                uri, _, sha256 = line[1:].partition(" ")
                if line[0] == "+":
                    known[uri] = sha256
                else:
                    known.pop(uri)
        look(folder, known)
    sys.stdout.write(f"{times} kills, {len(known)} objects\n")


def look(folder: Path, known: dict[str, str]) -> None:
    store = opened(folder)
    for name in store.all_ids():  # no half one, be it known or not
        reading = store.open(uri_of(name), None)
        content = reading.read(reading.size)
        reading.close()
        assert hashlib.sha256(content).hexdigest() == known.get(uri_of(name), reading.record.sha256)
    missing = [uri for uri in known if id_of(uri) not in store.all_ids()]
    assert not missing, f"lost: {missing}"
    store.close()
    assert not list((folder / "writing").iterdir()), "left behind"
    shas = {store.record(name).sha256 for name in store.all_ids()}  # type: ignore[union-attr]
    assert {each.name for each in (folder / "blobs").iterdir()} == shas, "bytes that nobody has"


def append_for_ever(writing: Writing) -> None:
    while True:
        writing.append(os.urandom(MIB))


def full(folder: Path) -> None:
    store = opened(folder / "media")
    kept = store.create("text/plain", "a")
    kept.append(b"k" * MIB)
    first = kept.commit(durable=True)
    writing = store.create("text/plain", "a")
    with pytest.raises(CallerError, match="the disk of the media store is full") as raised:
        append_for_ever(writing)
    assert raised.value.code is ErrorCode.MEDIA_TOO_LARGE
    assert MIB <= writing.size == (writing._folder / "data").stat().st_size
    with suppress(CallerError):  # what is left of the disk may be enough for the others
        for _ in range(10_000):
            store.create("text/plain", "b")
    writing.discard()
    after = store.create("text/plain", "c")
    after.append(b"a" * MIB)
    for ref, content in ((first, b"k" * MIB), (after.commit(durable=True), b"a" * MIB)):
        reading = store.open(ref.uri, None)
        assert reading.read(2 * MIB) == content
    sys.stdout.write("healthy\n")


if __name__ == "__main__":
    if sys.argv[1] == "killed":
        killed(Path(sys.argv[2]), int(sys.argv[3]), int(sys.argv[4]))
    else:
        full(Path(sys.argv[2]))
