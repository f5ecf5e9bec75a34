"""What importing costs, as whole processes: Python's start and end included.

Spear is a wheel that was built with the stub alone (`SPEAR_BACKENDS=stub`), unpacked and compiled as pip does it;
`import trio, httpx, pydantic` comes from the environment that runs this. `import spear` loads names when they are
asked for; the second row is what a program pays that goes on to use it.
"""

from __future__ import annotations

import compileall
import os
import subprocess
import sys
import tempfile
import time
import zipfile
from pathlib import Path

from _measure import arguments, pin_to_one_core, report, rounds, row

ROOT = Path(__file__).parents[1]
BASE = "import trio, httpx, pydantic"
IMPORT = "import spear, of a wheel with the stub alone"
USE = "from spear import open_runtime, of the same"
PROGRAMS = {BASE: BASE, IMPORT: "import spear", USE: "from spear import open_runtime"}


def main() -> None:
    options = arguments(__doc__, default_rounds=31)
    with tempfile.TemporaryDirectory() as folder:
        site = _site(Path(folder))
        pin_to_one_core()
        cases = {name: lambda program=program: _seconds(program, site) for name, program in PROGRAMS.items()}
        rounds(cases, 1)  # files into the page cache
        figures = rounds(cases, options.rounds)
    rows = [
        row(figures, BASE, scale=1e3, unit="ms"),
        row(figures, IMPORT, BASE, 1.25, scale=1e3, unit="ms"),
        row(figures, USE, BASE, scale=1e3, unit="ms"),
    ]
    report("Import", rows, as_json=options.json)


def _site(folder: Path) -> Path:
    command = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(folder)]
    environment = {**os.environ, "SPEAR_BACKENDS": "stub"}
    subprocess.run(command, cwd=ROOT, env=environment, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    (path,) = folder.glob("*.whl")
    with zipfile.ZipFile(path) as wheel:
        wheel.extractall(folder / "site")
    compileall.compile_dir(folder / "site", quiet=2)
    return folder / "site"


def _seconds(program: str, site: Path) -> float:
    environment = {**os.environ, "PYTHONPATH": str(site)}
    began = time.perf_counter()
    subprocess.run([sys.executable, "-c", program], cwd=site, env=environment, check=True)
    return time.perf_counter() - began


if __name__ == "__main__":
    main()
