"""`make bench`: every bench_*.py in a process of its own, and the tables into benchmarks/RESULTS.md.

python -m benchmarks            all of them; exit status 1 if one misses its reach
python -m benchmarks actors     only bench_actors.py; RESULTS.md is left alone
"""

from __future__ import annotations

import json
import os
import platform
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

HERE = Path(__file__).parent
PACKAGES = ("trio", "wasmtime", "httpx", "httpcore2", "pydantic", "pykka")


def main() -> int:
    wanted = sys.argv[1:]
    scripts = [path for path in sorted(HERE.glob("bench_*.py")) if not wanted or path.stem[6:] in wanted]
    sections, missed = [], 0
    for script in scripts:
        print(f"{script.name} …", flush=True)
        run = subprocess.run([sys.executable, str(script), "--json"], stdout=subprocess.PIPE, text=True, check=False)
        if not run.stdout.strip():
            print(f"{script.name} failed (exit status {run.returncode})")
            missed += 1
            continue
        for line in run.stdout.splitlines():
            report = json.loads(line)
            missed += sum(row["verdict"] == "MISS" for row in report["rows"])
            sections.append(section(report, script.name))
            print(sections[-1])
    if not wanted:
        (HERE / "RESULTS.md").write_text(head() + "\n".join(sections))
    return 1 if missed else 0


def head() -> str:
    packages = ", ".join(f"{name} {version(name)}" for name in PACKAGES)
    return (
        "# Benchmark results\n\n"
        "Made by `make bench`. Each table comes from one run in which the two sides took turns; a ratio is the\n"
        "median of the ratios within the rounds. Ratios hold on other machines, absolute times do not. Smaller is\n"
        "better throughout.\n\n"
        f"CPython {platform.python_version()}, Linux {platform.machine()}, {os.cpu_count()} cores; {packages}.\n\n"
    )


def section(report: dict, script: str) -> str:
    lines = [
        f"## {report['title']}",
        "",
        f"`python benchmarks/{script}`",
        "",
        "| what | median | against | ratio | reach | |",
        "|---|---|---|---|---|---|",
    ]
    for row in report["rows"]:
        ratio = "" if row["ratio"] is None else f"{row['ratio']:.3f} ×"
        reach = "" if row["reach"] is None else f"≤ {row['reach']:g} ×"
        verdict = {"pass": "reached", "MISS": "**missed**", "": ""}[row["verdict"]]
        median, against = f"{row['value']:.2f} {row['unit']}", row["against"] or ""
        lines.append(f"| {row['what']} | {median} | {against} | {ratio} | {reach} | {verdict} |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    raise SystemExit(main())
