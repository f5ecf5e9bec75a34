"""The raw C functions of wasmtime that guests-as-tasks need, with our own ctypes prototypes.

Rule 1: a C symbol of wasmtime is named in this file and nowhere else in the package.
Rule 2: addresses are plain ints (`c_void_p`), so that a hostcall builds no ctypes pointer objects.
Rule 3: functions that may run guest code, or that free much, come from `_releasing` and let other Python threads
run meanwhile (the epoch ticker must). Those that return at once come from `_holding` and keep the GIL, which halves
their price.

wasmtime-py offers the asynchronous part of the C API only through its generated private bindings, and the layout of
the structures below belongs to one release line. `_platform` therefore refuses everything but that line, before this
file is loaded.
"""

from __future__ import annotations

import ctypes
from ctypes import c_bool, c_char_p, c_double, c_float, c_int32, c_int64, c_size_t, c_uint8, c_uint64, c_void_p
from typing import Any, Final, cast

from wasmtime import _ffi as ffi

from spear.hostcall._errors import PlatformUnsupported
from spear.hostcall._platform import SUPPORTED_RELEASE

_releasing: Final = ctypes.CDLL(str(ffi.filename))
_holding: Final = ctypes.PyDLL(str(ffi.filename))


def _prototype(library: ctypes.CDLL, name: str, result: Any, *arguments: Any) -> Any:
    try:
        function = library[name]
    except AttributeError:
        raise PlatformUnsupported(
            f"this build of wasmtime has no {name}; install 'wasmtime>={SUPPORTED_RELEASE},<{SUPPORTED_RELEASE + 1}' "
            "from its own wheel"
        ) from None
    function.restype = result
    function.argtypes = list(arguments)
    return function


# Structures. Sizes are asserted against the generated bindings below.


class Func(ctypes.Structure):
    """wasmtime_func_t: a handle by value; valid as long as its store."""

    _fields_ = [("store_id", c_uint64), ("private", c_void_p)]


class Table(ctypes.Structure):
    """wasmtime_table_t."""

    _fields_ = [("store_id", c_uint64), ("private1", c_uint64), ("private2", c_uint64)]


class Memory(ctypes.Structure):
    """wasmtime_memory_t."""

    _fields_ = [("store_id", c_uint64), ("private1", c_uint64), ("private2", c_uint64)]


class Instance(ctypes.Structure):
    """wasmtime_instance_t."""

    _fields_ = [("store_id", c_uint64), ("private", c_size_t)]


class ValUnion(ctypes.Union):
    _fields_ = [
        ("i32", c_int32),
        ("i64", c_int64),
        ("f32", c_float),
        ("f64", c_double),
        ("func", Func),
        ("room", c_uint8 * 24),
    ]


class Val(ctypes.Structure):
    """wasmtime_val_t: a value with its kind, as the checked calls pass it."""

    _fields_ = [("kind", c_uint8), ("of", ValUnion)]


class ExternUnion(ctypes.Union):
    _fields_ = [("func", Func), ("table", Table), ("memory", Memory), ("room", c_uint8 * 24)]


class Extern(ctypes.Structure):
    """wasmtime_extern_t. Every kind but shared memory is held by value, so there is nothing to free."""

    _fields_ = [("kind", c_uint8), ("of", ExternUnion)]


CONTINUE = ctypes.CFUNCTYPE(c_bool, c_void_p)
FINALIZE = ctypes.CFUNCTYPE(None, c_void_p)


class Continuation(ctypes.Structure):
    """wasmtime_async_continuation_t: asked again and again until it says true; finalized once, however it ends."""

    _fields_ = [("callback", CONTINUE), ("env", c_void_p), ("finalizer", FINALIZE)]


for _own, _theirs in (
    (Func, ffi.wasmtime_func_t),
    (Table, ffi.wasmtime_table_t),
    (Memory, ffi.wasmtime_memory_t),
    (Instance, ffi.wasmtime_instance_t),
    (Val, ffi.wasmtime_val_t),
    (Extern, ffi.wasmtime_extern_t),
    (Continuation, ffi.wasmtime_async_continuation_t),
):
    if ctypes.sizeof(_own) != ctypes.sizeof(_theirs):
        raise PlatformUnsupported(
            f"the layout of wasmtime's {_theirs.__name__} is not the one Spear was written for; install "
            f"'wasmtime>={SUPPORTED_RELEASE},<{SUPPORTED_RELEASE + 1}'"
        )

KIND_I32: Final = 0
KIND_I64: Final = 1
KIND_F32: Final = 2
KIND_F64: Final = 3
KIND_FUNCREF: Final = 5
EXTERN_FUNC: Final = 0
EXTERN_TABLE: Final = 2
EXTERN_MEMORY: Final = 3
VAL_SIZE: Final = ctypes.sizeof(Val)
VAL_PAYLOAD: Final = Val.of.offset
RAW_SIZE: Final = ctypes.sizeof(ffi.wasmtime_val_raw_t)

# Callbacks. PLAIN gets (env, caller, values, count), where values is both arguments and result, RAW_SIZE bytes each;
# it returns 0 or a trap, which wasmtime then owns. SUSPENDING is the checked asynchronous form:
# (env, caller, args, nargs, results, nresults, trap out, continuation out).
PLAIN = ctypes.CFUNCTYPE(c_size_t, c_void_p, c_void_p, ctypes.POINTER(c_int32), c_size_t)
SUSPENDING = ctypes.CFUNCTYPE(None, c_void_p, c_void_p, c_size_t, c_size_t, c_size_t, c_size_t, c_size_t, c_size_t)

# Run guest code or take long: let other threads go on.
future_poll = _prototype(_releasing, "wasmtime_call_future_poll", c_bool, c_void_p)
future_delete = _prototype(_releasing, "wasmtime_call_future_delete", None, c_void_p)
store_delete = _prototype(_releasing, "wasmtime_store_delete", None, c_void_p)

# Return at once.
store_new = _prototype(_holding, "wasmtime_store_new", c_void_p, c_void_p, c_void_p, c_void_p)
store_context = _prototype(_holding, "wasmtime_store_context", c_void_p, c_void_p)
store_limiter = _prototype(
    _holding, "wasmtime_store_limiter", None, c_void_p, c_int64, c_int64, c_int64, c_int64, c_int64
)
set_epoch_deadline = _prototype(_holding, "wasmtime_context_set_epoch_deadline", None, c_void_p, c_uint64)
# The header gives this one an error to return; the function behind it returns nothing, so there is nothing to read.
epoch_yield = _prototype(_holding, "wasmtime_context_epoch_deadline_async_yield_and_update", None, c_void_p, c_uint64)
increment_epoch = _prototype(_holding, "wasmtime_engine_increment_epoch", None, c_void_p)
call_async = _prototype(
    _holding,
    "wasmtime_func_call_async",
    c_void_p,
    *(c_void_p, c_void_p, c_void_p, c_size_t, c_void_p, c_size_t, c_void_p, c_void_p),
)
instantiate_async = _prototype(_holding, "wasmtime_instance_pre_instantiate_async", c_void_p, *([c_void_p] * 5))
linker_new = _prototype(_holding, "wasmtime_linker_new", c_void_p, c_void_p)
linker_delete = _prototype(_holding, "wasmtime_linker_delete", None, c_void_p)
linker_define_plain = _prototype(
    _holding,
    "wasmtime_linker_define_func_unchecked",
    c_void_p,
    *(c_void_p, c_char_p, c_size_t, c_char_p, c_size_t, c_void_p, PLAIN, c_void_p, c_void_p),
)
linker_define_suspending = _prototype(
    _holding,
    "wasmtime_linker_define_async_func",
    c_void_p,
    *(c_void_p, c_char_p, c_size_t, c_char_p, c_size_t, c_void_p, SUSPENDING, c_void_p, c_void_p),
)
linker_instantiate_pre = _prototype(_holding, "wasmtime_linker_instantiate_pre", c_void_p, c_void_p, c_void_p, c_void_p)
instance_pre_delete = _prototype(_holding, "wasmtime_instance_pre_delete", None, c_void_p)
export_get = _prototype(
    _holding, "wasmtime_instance_export_get", c_bool, c_void_p, c_void_p, c_char_p, c_size_t, c_void_p
)
memory_data = _prototype(_holding, "wasmtime_memory_data", c_void_p, c_void_p, c_void_p)
memory_size = _prototype(_holding, "wasmtime_memory_data_size", c_size_t, c_void_p, c_void_p)
table_get = _prototype(_holding, "wasmtime_table_get", c_bool, c_void_p, c_void_p, c_uint64, c_void_p)
func_type = _prototype(_holding, "wasmtime_func_type", c_void_p, c_void_p, c_void_p)
functype_delete = _prototype(_holding, "wasm_functype_delete", None, c_void_p)
functype_params = _prototype(_holding, "wasm_functype_params", c_void_p, c_void_p)
functype_results = _prototype(_holding, "wasm_functype_results", c_void_p, c_void_p)
# wasm_valtype_kind would abort the process on the types it does not know, v128 among them: a guest must not get there.
valtype_new = _prototype(_holding, "wasmtime_valtype_new", None, c_void_p, c_void_p)
valtype_delete = _prototype(_holding, "wasmtime_valtype_delete", None, c_void_p)
trap_new = _prototype(_holding, "wasmtime_trap_new", c_void_p, c_char_p, c_size_t)
trap_code = _prototype(_holding, "wasmtime_trap_code", c_bool, c_void_p, c_void_p)
trap_delete = _prototype(_holding, "wasm_trap_delete", None, c_void_p)
trap_message = _prototype(_holding, "wasm_trap_message", None, c_void_p, c_void_p)
error_message = _prototype(_holding, "wasmtime_error_message", None, c_void_p, c_void_p)
error_delete = _prototype(_holding, "wasmtime_error_delete", None, c_void_p)
byte_vec_delete = _prototype(_holding, "wasm_byte_vec_delete", None, c_void_p)


class _ByteVec(ctypes.Structure):
    _fields_ = [("size", c_size_t), ("data", c_void_p)]


def take_text(read: Any, delete: Any, address: int) -> str:
    """The message of an error or trap at `address`, which is freed."""
    vector = _ByteVec()
    read(address, ctypes.byref(vector))
    text = ctypes.string_at(vector.data, vector.size).decode("utf-8", "replace") if vector.size else ""
    byte_vec_delete(ctypes.byref(vector))
    delete(address)
    return text.rstrip("\0")


def take_error(address: int) -> str:
    return take_text(error_message, error_delete, address)


def take_trap(address: int) -> str:
    return take_text(trap_message, trap_delete, address)


def pointer_value(managed: Any) -> int:
    """The address behind one of wasmtime-py's own objects, which keeps owning it."""
    address = ctypes.cast(managed.ptr(), c_void_p).value
    assert address is not None
    return address


class _PointerVec(ctypes.Structure):
    _fields_ = [("size", c_size_t), ("data", ctypes.POINTER(c_void_p))]


def _kinds(vector_address: int) -> tuple[int, ...]:
    vector = _PointerVec.from_address(vector_address)
    return tuple(_kind(vector.data[i]) for i in range(vector.size))


def _kind(valtype_address: int) -> int:
    described = ffi.wasmtime_valtype_t()
    valtype_new(valtype_address, ctypes.byref(described))
    kind = cast("int", described.kind)
    valtype_delete(ctypes.byref(described))
    return kind


Signature = tuple[tuple[int, ...], tuple[int, ...]]
"""Kinds of the parameters and of the results."""


def signature_of_type(functype_address: int) -> Signature:
    return _kinds(functype_params(functype_address)), _kinds(functype_results(functype_address))


def signature(context: int, func: Func) -> Signature:
    address = func_type(context, ctypes.byref(func))
    try:
        return signature_of_type(address)
    finally:
        functype_delete(address)
