"""The committed modules: rebuild them, or check that they are what their sources say.

    python -m spear.guests.rebuild [--check] [DIRECTORY]

Without --check, every NAME.c of the directory (the sample guests' by default) is compiled by the preferred compiler and
BUILD.json is written. With --check nothing is changed: sources, header and modules must be those of the record; each
usable compiler must make modules with the same imports and exports; and the recorded compiler, where it is among them,
the same bytes. (What the modules do is compared by the tests, which have a host to run them.)
"""

from __future__ import annotations

import hashlib
import json
import tempfile
from pathlib import Path
from typing import Any

import click

from ._build import Compiler, build, find_compiler, find_compilers

_HERE = Path(__file__).parent
_RECORD = "BUILD.json"


def digest(file: Path) -> str:
    return hashlib.sha256(file.read_bytes()).hexdigest()


def surface(module: Path) -> dict[str, list[str]]:
    """Imports and exports with their types, as sorted lines."""
    from wasmtime import Engine, FuncType, GlobalType, MemoryType, Module, TableType

    def kind(type_: Any) -> str:
        if isinstance(type_, FuncType):
            return f"({' '.join(map(str, type_.params))}) -> ({' '.join(map(str, type_.results))})"
        # Sizes of memory and table depend on the compiler; that they are there does not.
        names = {MemoryType: "memory", TableType: "table", GlobalType: "global"}
        return names.get(type(type_), "unknown")

    loaded = Module.from_file(Engine(), str(module))
    return {
        "imports": sorted(f"{one.module}.{one.name} {kind(one.type)}" for one in loaded.imports),
        "exports": sorted(f"{one.name} {kind(one.type)}" for one in loaded.exports),
    }


def sources(directory: Path) -> list[Path]:
    return sorted(directory.glob("*.c"))


def rebuild(directory: Path) -> dict[str, Any]:
    """Compiles every source and writes the record, which it returns."""
    compiler = find_compiler()
    guests = {}
    for source in sources(directory):
        module = build(source, compiler=compiler)
        guests[source.stem] = {"source": digest(source), "module": digest(module), "bytes": module.stat().st_size}
    record = {
        "compiler": compiler.identity,
        "flags": list(compiler.flags),
        "header": digest(_HERE / "spear.h"),
        "guests": guests,
    }
    (directory / _RECORD).write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")
    return record


def check_record(directory: Path) -> list[str]:
    """What in the directory is not as recorded; needs no compiler."""
    record = json.loads((directory / _RECORD).read_text(encoding="utf-8"))
    problems = []
    if record["header"] != digest(_HERE / "spear.h"):
        problems.append("spear.h is not the one that the modules were built with")
    present = {source.stem for source in sources(directory)}
    problems += [f"{name}: in {_RECORD}, but {name}.c is gone" for name in sorted(set(record["guests"]) - present)]
    for name in sorted(present):
        recorded = record["guests"].get(name)
        if recorded is None:
            problems.append(f"{name}: not in {_RECORD}")
            continue
        for role, suffix in (("source", ".c"), ("module", ".wasm")):
            file = directory / f"{name}{suffix}"
            if not file.is_file() or digest(file) != recorded[role]:
                problems.append(f"{file.name} is not the recorded one")
    return problems


def check_compiler(directory: Path, compiler: Compiler) -> list[str]:
    """Compiles everything anew and compares with the committed modules."""
    record = json.loads((directory / _RECORD).read_text(encoding="utf-8"))
    same_bytes = (compiler.identity, list(compiler.flags)) == (record["compiler"], record["flags"])
    problems = []
    with tempfile.TemporaryDirectory(prefix="spear-guests-") as scratch:
        for source in sources(directory):
            committed = source.with_suffix(".wasm")
            made = build(source, Path(scratch, committed.name), compiler=compiler)
            problems += _compare(source.stem, surface(committed), surface(made))
            if same_bytes and digest(made) != digest(committed):
                problems.append(f"{source.stem}: other bytes than the committed module")
    return problems


def _compare(name: str, committed: dict[str, list[str]], made: dict[str, list[str]]) -> list[str]:
    # Which calls of WASI a libc makes for printf is its own affair; what a guest wants of Spear is not.
    def ours(lines: list[str]) -> set[str]:
        return {line for line in lines if not line.startswith("wasi_snapshot_preview1.")}

    return [
        f"{name}: {part} differ: {', '.join(sorted(difference))}"
        for part in ("imports", "exports")
        if (difference := ours(committed[part]) ^ ours(made[part]))
    ]


@click.command()
@click.option("--check", is_flag=True, help="Change nothing; exit with 1 if anything differs.")
@click.argument("directory", type=click.Path(exists=True, file_okay=False, path_type=Path), default=_HERE)
def main(*, check: bool, directory: Path) -> None:
    """Rebuild the guests of DIRECTORY (by default the sample guests), or check them."""
    if not check:
        record = rebuild(directory)
        click.echo(f"built {', '.join(record['guests'])} with {record['compiler']}")
        return
    problems = check_record(directory)
    compilers = find_compilers()
    for compiler in compilers:
        click.echo(f"checking with {compiler.identity}")
        problems += [f"{problem} ({compiler.identity})" for problem in check_compiler(directory, compiler)]
    if not compilers:
        problems.append("no compiler found: nothing was compared")
    for problem in problems:
        click.echo(problem, err=True)
    raise SystemExit(1 if problems else 0)


if __name__ == "__main__":
    main()
