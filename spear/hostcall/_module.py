"""From bytes to a module that can be started: reading, checking, compiling, resolving the imports."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import wasmtime

from spear.hostcall import _binding as native
from spear.hostcall._errors import LinkError, ModuleTooLarge, NotAModule
from spear.hostcall._limits import MIB, MODULE_BYTES
from spear.hostcall._linker import Linker
from spear.hostcall._table import SPEAR, TABLE, WASI

MAGIC: Final = b"\0asm"
VERSION_1: Final = b"\1\0\0\0"
COMPONENT: Final = b"\x0d\0\1\0"
PREFERRED_TABLES: Final = ("__indirect_function_table", "table")


@dataclass(frozen=True, slots=True)
class Source:
    """The bytes of a module, checked to look like one, and a name for messages."""

    name: str
    wasm: bytes
    digest: str


def read_source(source: Path | bytes) -> Source:
    """Read and check. A path that ends in .wat is translated. Raises `NotAModule`, and OSError from the file.

    Blocks on the file and on hashing: call it in a thread.
    """
    if isinstance(source, bytes):
        name, data = "<bytes>", source
    else:
        name = source.name
        size = source.stat().st_size
        if size > MODULE_BYTES:
            raise ModuleTooLarge(_too_large(name, size))
        data = source.read_bytes()
        if source.suffix == ".wat":
            data = _from_text(name, data)
    if len(data) > MODULE_BYTES:
        raise ModuleTooLarge(_too_large(name, len(data)))
    if data[:4] != MAGIC:
        raise NotAModule(f"{name} is not WebAssembly: it begins with {data[:4]!r} where {MAGIC!r} is needed")
    if data[4:8] == COMPONENT:
        raise NotAModule(f"{name} is a WebAssembly component; Spear runs core modules, build it for wasm32-wasip1")
    if data[4:8] != VERSION_1:
        raise NotAModule(f"{name} has WebAssembly version {data[4:8].hex()}; version 1 is needed")
    return Source(name, data, hashlib.sha256(data).hexdigest())


def _too_large(name: str, size: int) -> str:
    return f"{name} has {size} bytes; a module may have {MODULE_BYTES // MIB} MiB"


def _from_text(name: str, text: bytes) -> bytes:
    try:
        return bytes(wasmtime.wat2wasm(text.decode("utf-8", "replace")))
    except wasmtime.WasmtimeError as error:
        raise NotAModule(f"{name} is not valid WebAssembly text: {error}") from None


def compile_module(engine: wasmtime.Engine, source: Source) -> wasmtime.Module:
    """Compile; takes long for large modules and cannot be interrupted. Raises `NotAModule`."""
    try:
        return wasmtime.Module(engine, source.wasm)
    except wasmtime.WasmtimeError as error:
        text = " ".join(str(error).split())
        if "threads must be enabled" in text or "shared memor" in text:
            text += " (a guest has one thread; shared memory is not supported)"
        raise NotAModule(f"{source.name} is not a valid module: {text}") from None


@dataclass(frozen=True, slots=True)
class Entry:
    """An exported function: how many parameters it takes and the kinds of its results."""

    name: str
    params: int
    results: tuple[int, ...]
    kinds: tuple[int, ...] = ()
    """Of the parameters."""


class Module:
    """A compiled module with its imports resolved, ready to be started any number of times at once."""

    def __init__(self, source_name: str, digest: str, compiled: wasmtime.Module, linker: Linker) -> None:
        self.name = source_name
        self.digest = digest
        _check_imports(source_name, compiled)
        self._compiled = compiled
        self.imports = frozenset((one.module, one.name or "") for one in compiled.imports)
        self._linker = linker  # the prepared instance refers to its callbacks
        try:
            self.prepared: int = linker.prepare(native.pointer_value(compiled))
        except ValueError as error:
            raise LinkError(f"{source_name} cannot be linked: {error}") from None
        self.functions = {
            export.name: _entry(export.name, export.type)
            for export in compiled.exports
            if isinstance(export.type, wasmtime.FuncType)
        }
        tables = [export.name for export in compiled.exports if isinstance(export.type, wasmtime.TableType)]
        preferred = [name for name in PREFERRED_TABLES if name in tables]
        self.table_name = next(iter(preferred + tables), None)

    def __del__(self) -> None:
        prepared = getattr(self, "prepared", None)
        if prepared is not None:
            native.instance_pre_delete(prepared)


_SIGNATURES: Final = {(call.module, call.name): (call.params, call.result) for call in TABLE}
_LETTERS: Final = {native.KIND_I32: "i", native.KIND_I64: "I"}


def _check_imports(name: str, compiled: wasmtime.Module) -> None:
    """Raise `LinkError` that lists everything the host does not have, not only the first."""
    problems: list[str] = []
    for one in compiled.imports:
        label = f"{one.module}.{one.name}"
        known = _SIGNATURES.get((one.module, one.name or ""))
        if not isinstance(one.type, wasmtime.FuncType):
            problems.append(f"{label} (only functions can be imported)")
        elif known is None:
            problems.append(label)
        elif known != _signature(one.type):
            problems.append(f"{label} (with another signature)")
    if problems:
        raise LinkError(
            f"{name} imports what this host does not have: {', '.join(problems)}; there are the modules {SPEAR} "
            f"(1.1, {sum(module == SPEAR for module, _ in _SIGNATURES)} functions) and {WASI}"
        )


def _signature(kind: wasmtime.FuncType) -> tuple[str, str]:
    params, results = native.signature_of_type(native.pointer_value(kind))
    return "".join(_LETTERS.get(one, "?") for one in params), "".join(_LETTERS.get(one, "?") for one in results)


def _entry(name: str, kind: wasmtime.FuncType) -> Entry:
    params, results = native.signature_of_type(native.pointer_value(kind))
    return Entry(name, len(params), results, params)
