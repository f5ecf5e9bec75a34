"""From C to a guest: looks for a compiler that can make wasm32-wasi modules, and runs it.

Two kinds are known: clang with a WASI libc (Debian's packages, or a WASI SDK), and zig (the ziglang wheel, or `zig` on
the PATH). A clang counts only if a small program really compiles and links: one without libc or linker is common.
"""

from __future__ import annotations

import hashlib
import importlib.util
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from spear.ir import ErrorCode, GuestError, make_error

FLAGS = (
    "--target=wasm32-wasi",
    "-std=c99",
    "-Oz",
    "-s",
    "-Wall",
    "-Wextra",
    "-Wl,--export-table",  # the host calls tools through the function table
    "-Wl,-z,stack-size=131072",
)
INSTALL_HINT = (
    "Install one of:\n"
    "  apt-get install clang lld wasi-libc libclang-rt-dev-wasm32   (Debian, Ubuntu)\n"
    "  pip install ziglang                                          (anywhere; about 100 MB)\n"
    "  a WASI SDK, and set WASI_SDK_PATH to its folder"
)
_PROBE = '#include <stdio.h>\nint main(void) { return printf("%d", 1) < 0; }\n'
_PROBE_LIMIT_S = 300.0  # zig builds its libc the first time
_BUILD_LIMIT_S = 600.0


@dataclass(frozen=True, slots=True)
class Compiler:
    """`identity` is equal for compilers that make the same bytes: versions, and the libc that is linked in."""

    kind: str  # "clang" or "zig"
    command: tuple[str, ...]
    identity: str

    @property
    def flags(self) -> tuple[str, ...]:
        # With its stack first, an overflow traps instead of running over the data. zig's linker has no such option.
        return (*FLAGS, "-Wl,--stack-first") if self.kind == "clang" else FLAGS


def find_compilers() -> list[Compiler]:
    """Every usable compiler, the preferred one first. Runs each candidate once (zig: up to a minute the first time)."""
    return list(_usable([]))


def find_compiler() -> Compiler:
    """The preferred compiler. GuestError, with what was tried and what to install, when there is none."""
    tried: list[str] = []
    for compiler in _usable(tried):
        return compiler
    found = "".join(f"\n  {line}" for line in tried) or " nothing"
    raise _error(f"no compiler for WebAssembly guests. Tried:{found}\n{INSTALL_HINT}")


def build(
    source: Path,
    output: Path | None = None,
    *,
    compiler: Compiler | None = None,
    extra: Sequence[str] = (),
    on_warning: Callable[[str], None] | None = None,
) -> Path:
    """Compiles one C file to a guest, next to it unless `output` is given; spear.h is found without a flag.

    Blocks until the compiler ends. The output is replaced only by a complete module. `extra` are further flags for the
    compiler. `on_warning` gets what a compiler said that succeeded all the same. Raises GuestError: no such file, no
    compiler, or the compiler's own messages.
    """
    if not source.is_file():
        raise _error(f"no such file: {source}")
    if source.suffix != ".c":
        raise _error(f"{source}: a C file is needed (NAME.c)")
    output = source.with_suffix(".wasm") if output is None else output
    compiler = find_compiler() if compiler is None else compiler
    if not output.parent.is_dir():
        raise _error(f"no such folder: {output.parent}")
    with tempfile.TemporaryDirectory(dir=output.parent, prefix=".build-") as scratch:
        made = Path(scratch, "module.wasm")
        command = [
            *compiler.command,
            *compiler.flags,
            f"-I{Path(__file__).parent}",
            *extra,
            str(source),
            "-o",
            str(made),
        ]
        done = _run(command, _BUILD_LIMIT_S)
        if done.returncode != 0 or not made.is_file():
            raise _error(f"{source.name} does not compile ({compiler.identity}):\n{done.stderr.strip()}")
        if on_warning is not None and done.stderr.strip():
            on_warning(done.stderr.strip())
        made.chmod(0o644)
        made.replace(output)
    return output


def _error(message: str) -> GuestError:
    return GuestError(make_error(ErrorCode.INVALID_REQUEST, message))


def _candidates() -> Iterator[tuple[str, tuple[str, ...]]]:
    if sdk := os.environ.get("WASI_SDK_PATH"):
        yield "clang", (str(Path(sdk, "bin", "clang")),)
    for name in ("clang", *(f"clang-{version}" for version in range(30, 13, -1))):
        if found := shutil.which(name):
            yield "clang", (found,)
    if importlib.util.find_spec("ziglang") is not None:
        yield "zig", (sys.executable, "-m", "ziglang", "cc")
    if found := shutil.which("zig"):
        yield "zig", (found, "cc")


def _usable(tried: list[str]) -> Iterator[Compiler]:
    """Usable compilers, each identity once; what was tried in vain is added to `tried`."""
    seen: set[str] = set()
    for kind, command in _candidates():
        problem = _probe(command)
        if problem:
            tried.append(f"{' '.join(command)}: {problem}")
            continue
        identity = _identity(kind, command)
        if identity not in seen:
            seen.add(identity)
            yield Compiler(kind, command, identity)


def _probe(command: tuple[str, ...]) -> str:
    """What keeps this command from making a module; empty if nothing does."""
    with tempfile.TemporaryDirectory(prefix="spear-probe-") as scratch:
        source = Path(scratch, "probe.c")
        source.write_text(_PROBE, encoding="ascii")
        try:
            done = _run([*command, *FLAGS, str(source), "-o", str(source.with_suffix(".wasm"))], _PROBE_LIMIT_S)
        except (OSError, GuestError) as error:
            return str(error)
    lines = done.stderr.strip().splitlines()
    return "" if done.returncode == 0 else next((line for line in lines if "error" in line), "fails without a word")


def _identity(kind: str, command: tuple[str, ...]) -> str:
    if kind == "zig":
        version = _run([*command[:-1], "version"], _PROBE_LIMIT_S).stdout.strip()
        return f"zig {version}"
    first = _run([*command, "--version"], _PROBE_LIMIT_S).stdout.splitlines()[0].strip()
    libc = _run([*command, FLAGS[0], "-print-file-name=libc.a"], _PROBE_LIMIT_S).stdout.strip()
    linker = _run([*command, FLAGS[0], "-print-prog-name=wasm-ld"], _PROBE_LIMIT_S).stdout.strip()
    linker_version = _run([linker, "--version"], _PROBE_LIMIT_S).stdout.strip()
    digest = hashlib.sha256(Path(libc).read_bytes()).hexdigest()[:16] if Path(libc).is_file() else "unknown"
    return f"{first}; {linker_version}; libc {digest}"


def _run(command: Sequence[str], limit: float) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "LC_ALL": "C"}
    try:
        return subprocess.run(
            command,
            capture_output=True,
            text=True,
            errors="replace",
            check=False,
            timeout=limit,
            stdin=subprocess.DEVNULL,
            env=environment,
        )
    except subprocess.TimeoutExpired:
        raise _error(f"{command[0]} did not end within {limit:.0f} s") from None
