"""A 64 MiB object into the media store and out of it, beside a copy of a file that is synced to the disk.

In: from a file, in pieces, to where `commit` says that it is on the disk. Out: to a new file, which is synced. Both are
checksummed on the way. Memory: how far that takes a fresh process above what it has after a small object.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import trio

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from benchmarks._measure import Row, arguments, report, rounds, row
from spear.config import MediaConfig
from spear.media import MediaStore

MIB = 1024 * 1024
SIZE = 64 * MIB
PIECE = 2 * MIB


async def put(store: MediaStore, source: Path):
    async with store.write("application/octet-stream", task_id="bench") as writing:
        with source.open("rb", buffering=0) as file:
            while piece := file.read(PIECE):
                await writing.write(piece)
        return await writing.commit()


async def get(store: MediaStore, ref, target: Path) -> None:
    with target.open("wb", buffering=0) as file:
        async with store.read(ref, task_id="bench") as reading:
            while piece := await reading.read(PIECE):
                file.write(piece)
        os.fsync(file.fileno())


def copied(source: Path, target: Path) -> float:
    begin = time.perf_counter()
    shutil.copyfile(source, target)
    descriptor = os.open(target, os.O_RDONLY)
    os.fsync(descriptor)
    os.close(descriptor)
    took = time.perf_counter() - begin
    target.unlink()
    return took


def in_and_out(folder: Path, source: Path) -> tuple[float, float]:
    async def main() -> tuple[float, float]:
        store = MediaStore(MediaConfig(path=folder / "media"))
        try:
            await store.opened_files()
            begin = time.perf_counter()
            ref = await put(store, source)
            middle = time.perf_counter()
            await get(store, ref, folder / "out")
            end = time.perf_counter()
            await store.delete(ref)
            (folder / "out").unlink()
            return middle - begin, end - middle
        finally:
            store.close()

    return trio.run(main)


def extra_memory() -> float:
    """Bytes, in a fresh process."""
    command = [sys.executable, __file__, "--memory"]
    return float(subprocess.run(command, stdout=subprocess.PIPE, check=True, text=True).stdout)


def say_memory() -> None:
    """How far a large object takes the process above what it has after a small one."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "small").write_bytes(os.urandom(1000))
        with (folder / "large").open("wb") as file:
            for _ in range(SIZE // PIECE):
                file.write(os.urandom(PIECE))
        in_and_out(folder, folder / "small")
        Path("/proc/self/clear_refs").write_text("5", encoding="ascii")  # the peak begins anew
        before = status("VmRSS")
        in_and_out(folder, folder / "large")
        print(status("VmHWM") - before)


def status(key: str) -> int:
    lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(key + ":"))


def main() -> None:
    if sys.argv[1:2] == ["--memory"]:
        say_memory()
        return
    options = arguments(__doc__, 9)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        source = folder / "source"
        source.write_bytes(os.urandom(SIZE))

        def both() -> float:
            return sum(in_and_out(folder, source))

        def twice() -> float:
            return copied(source, folder / "copy") + copied(source, folder / "copy")

        figures = rounds(
            {
                "copyfile and fsync": lambda: copied(source, folder / "copy"),
                "into the store": lambda: in_and_out(folder, source)[0],
                "out of it": lambda: in_and_out(folder, source)[1],
                "in and out": both,
                "copyfile and fsync, twice": twice,
            },
            options.rounds,
        )
    ms = {"scale": 1e3, "unit": "ms"}
    rows = [
        row(figures, "copyfile and fsync", **ms),
        row(figures, "into the store", "copyfile and fsync", 2.0, **ms),
        row(figures, "out of it", "copyfile and fsync", 2.0, **ms),
        row(figures, "in and out", "copyfile and fsync, twice", 2.0, **ms),
    ]
    extra = extra_memory()
    rows.append(Row("extra memory, in and out", extra / MIB, "MiB", "8 MiB", extra / (8 * MIB), 1.0))
    report("Media store: an object of 64 MiB", rows, as_json=options.json)


if __name__ == "__main__":
    main()
