"""From the table of hostcalls to a wasmtime linker: one C callback per import, shared by all guests of an engine.

A callback finds its guest in `Runtime.current`. It checks for termination first, then calls the hostcall with plain
ints. What the hostcall raises becomes a result (`Refused`) or ends the guest and is raised again by the poll.

Plain callbacks are written out per number of parameters: this is the hot path, and a loop would double its price.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Iterable
from ctypes import c_int32, c_int64, c_void_p
from typing import Any, Final

from wasmtime import Engine, FuncType, ValType

from spear.hostcall import _binding as native
from spear.hostcall._errno import Refused
from spear.hostcall._fiber import Runtime
from spear.hostcall._table import Hostcall

STRIDE: Final = native.RAW_SIZE // 4  # of the value array, in i32 steps


def _plain_0(runtime: Runtime, run: Callable[..., int]) -> Any:
    def callback(env: int, caller: int, values: Any, count: int) -> int:
        guest = runtime.current
        if guest.stop_text is not None:
            return guest.fiber.end(guest.stopped())
        try:
            values[0] = run(guest)
        except Refused as refused:
            values[0] = refused.errno
        except BaseException as error:  # noqa: BLE001  (ends the guest; the poll raises it)
            return guest.fiber.end(error)
        return 0

    return callback


def _plain_1(runtime: Runtime, run: Callable[..., int]) -> Any:
    def callback(env: int, caller: int, values: Any, count: int) -> int:
        guest = runtime.current
        if guest.stop_text is not None:
            return guest.fiber.end(guest.stopped())
        try:
            values[0] = run(guest, values[0])
        except Refused as refused:
            values[0] = refused.errno
        except BaseException as error:  # noqa: BLE001  (ends the guest; the poll raises it)
            return guest.fiber.end(error)
        return 0

    return callback


def _plain_2(runtime: Runtime, run: Callable[..., int]) -> Any:
    def callback(env: int, caller: int, values: Any, count: int) -> int:
        guest = runtime.current
        if guest.stop_text is not None:
            return guest.fiber.end(guest.stopped())
        try:
            values[0] = run(guest, values[0], values[STRIDE])
        except Refused as refused:
            values[0] = refused.errno
        except BaseException as error:  # noqa: BLE001  (ends the guest; the poll raises it)
            return guest.fiber.end(error)
        return 0

    return callback


def _plain_3(runtime: Runtime, run: Callable[..., int]) -> Any:
    def callback(env: int, caller: int, values: Any, count: int) -> int:
        guest = runtime.current
        if guest.stop_text is not None:
            return guest.fiber.end(guest.stopped())
        try:
            values[0] = run(guest, values[0], values[STRIDE], values[2 * STRIDE])
        except Refused as refused:
            values[0] = refused.errno
        except BaseException as error:  # noqa: BLE001  (ends the guest; the poll raises it)
            return guest.fiber.end(error)
        return 0

    return callback


def _plain_any(runtime: Runtime, call: Hostcall) -> Any:
    """Any number of parameters, any mix of i32 and i64."""
    run, width = call.run, native.RAW_SIZE
    kinds = [c_int64 if letter == "I" else c_int32 for letter in call.params]
    store_type = {"i": c_int32, "I": c_int64}.get(call.result)

    def callback(env: int, caller: int, values: Any, count: int) -> int:
        guest = runtime.current
        if guest.stop_text is not None:
            return guest.fiber.end(guest.stopped())
        base = ctypes.addressof(values.contents) if count else 0
        arguments = [kind.from_address(base + i * width).value for i, kind in enumerate(kinds)]
        try:
            result = run(guest, *arguments)
            if store_type is not None:
                store_type.from_address(base).value = result
        except Refused as refused:
            c_int32.from_address(base).value = refused.errno
        except BaseException as error:  # noqa: BLE001  (ends the guest; the poll raises it)
            return guest.fiber.end(error)
        return 0

    return callback


_PLAIN: Final = {"": _plain_0, "i": _plain_1, "ii": _plain_2, "iii": _plain_3}


def _suspending(runtime: Runtime, call: Hostcall) -> Any:
    run = call.run
    offsets = [i * native.VAL_SIZE + native.VAL_PAYLOAD for i in range(len(call.params))]
    wide = [kind == "I" for kind in call.params]
    readers = list(zip((c_int64 if is_wide else c_int32 for is_wide in wide), offsets, strict=True))

    def callback(
        env: int, caller: int, args: int, nargs: int, results: int, nresults: int, trap_out: int, continuation: int
    ) -> None:
        guest = runtime.current
        if guest.stop_text is not None:
            guest.fiber.refuse(guest.stopped(), trap_out, continuation)
            return
        arguments = tuple(kind.from_address(args + offset).value for kind, offset in readers)
        guest.fiber.suspend(run, arguments, results, continuation)

    return callback


_VAL_TYPES: Final = {"i": ValType.i32, "I": ValType.i64}


class Linker:
    """Owns the wasmtime linker and the callbacks. `close` frees the former; modules prepared by it still refer to the
    callbacks, so whoever has such a module keeps this object.
    """

    def __init__(self, engine: Engine, runtime: Runtime, table: Iterable[Hostcall]) -> None:
        self.address: int = native.linker_new(native.pointer_value(engine))
        self._callbacks: list[Any] = []
        for call in table:
            self._define(runtime, call)

    def _define(self, runtime: Runtime, call: Hostcall) -> None:
        kind = FuncType([_VAL_TYPES[one]() for one in call.params], [_VAL_TYPES[call.result]()] if call.result else [])
        module, name = call.module.encode(), call.name.encode()
        if call.suspends:
            define, callback = native.linker_define_suspending, native.SUSPENDING(_suspending(runtime, call))
        else:
            define = native.linker_define_plain
            if call.result == "i" and call.params in _PLAIN:
                callback = native.PLAIN(_PLAIN[call.params](runtime, call.run))
            else:
                callback = native.PLAIN(_plain_any(runtime, call))
        self._callbacks.append(callback)
        error = define(
            self.address,
            module,
            len(module),
            name,
            len(name),
            native.pointer_value(kind),
            callback,
            None,
            None,
        )
        if error:
            raise RuntimeError(f"{call.module}.{call.name}: {native.take_error(error)}")

    def prepare(self, module_address: int) -> int:
        """Resolve a module's imports; gives the address of a wasmtime_instance_pre_t that the caller owns."""
        out = c_void_p()
        error = native.linker_instantiate_pre(self.address, module_address, ctypes.byref(out))
        if error:
            raise ValueError(native.take_error(error))
        assert out.value is not None
        return out.value

    def close(self) -> None:
        native.linker_delete(self.address)
