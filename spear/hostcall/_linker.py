"""From the table of hostcalls to a wasmtime linker: one C callback per import, shared by all guests of an engine.

A callback finds its guest in `Runtime.current`. It checks for termination first, then calls the hostcall with plain
ints. What the hostcall raises becomes a result (`Refused`) or ends the guest and is raised again by the poll.

Plain callbacks are written out per number of parameters: this is the hot path, and a loop would double its price.
"""

from __future__ import annotations

import ctypes
from collections.abc import Awaitable, Callable, Iterable
from ctypes import c_int32, c_int64, c_void_p
from typing import TYPE_CHECKING, Any, Final

from wasmtime import Engine, FuncType, ValType

from spear.hostcall import _binding as native
from spear.hostcall._errno import Refused
from spear.hostcall._fiber import Runtime
from spear.hostcall._table import Hostcall

if TYPE_CHECKING:
    from spear.hostcall._guest import Guest
    from spear.ir import CanonicalError

STRIDE: Final = native.RAW_SIZE // 4  # of the value array, in i32 steps


def _remark(call: Hostcall) -> Callable[[Guest, int, int | None, CanonicalError | None], None]:
    """What notes a negative result for `spear_last_error`: (guest, result, first argument, cause)."""
    name, has_fd = call.name, call.has_fd

    def remark(guest: Guest, errno: int, first: int | None, cause: CanonicalError | None) -> None:
        guest.last_error.refused(name, errno, first if has_fd else None, cause)

    return remark if call.remarked else _unremarked


def _unremarked(guest: Guest, errno: int, first: int | None, cause: CanonicalError | None) -> None:
    pass


def _plain_0(runtime: Runtime, call: Hostcall) -> Any:
    run, remark = call.run, _remark(call)

    def callback(env: int, caller: int, values: Any, count: int) -> int:
        guest = runtime.current
        if guest.stop_text is not None:
            return guest.fiber.end(guest.stopped())
        try:
            result = run(guest)
            if result < 0:
                remark(guest, result, None, None)
            values[0] = result
        except Refused as refused:
            remark(guest, refused.errno, None, refused.cause)
            values[0] = refused.errno
        except BaseException as error:  # noqa: BLE001  (ends the guest; the poll raises it)
            return guest.fiber.end(error)
        return 0

    return callback


def _plain_1(runtime: Runtime, call: Hostcall) -> Any:
    run, remark = call.run, _remark(call)

    def callback(env: int, caller: int, values: Any, count: int) -> int:
        guest = runtime.current
        if guest.stop_text is not None:
            return guest.fiber.end(guest.stopped())
        try:
            result = run(guest, values[0])
            if result < 0:
                remark(guest, result, values[0], None)
            values[0] = result
        except Refused as refused:
            remark(guest, refused.errno, values[0], refused.cause)
            values[0] = refused.errno
        except BaseException as error:  # noqa: BLE001  (ends the guest; the poll raises it)
            return guest.fiber.end(error)
        return 0

    return callback


def _plain_2(runtime: Runtime, call: Hostcall) -> Any:
    run, remark = call.run, _remark(call)

    def callback(env: int, caller: int, values: Any, count: int) -> int:
        guest = runtime.current
        if guest.stop_text is not None:
            return guest.fiber.end(guest.stopped())
        try:
            result = run(guest, values[0], values[STRIDE])
            if result < 0:
                remark(guest, result, values[0], None)
            values[0] = result
        except Refused as refused:
            remark(guest, refused.errno, values[0], refused.cause)
            values[0] = refused.errno
        except BaseException as error:  # noqa: BLE001  (ends the guest; the poll raises it)
            return guest.fiber.end(error)
        return 0

    return callback


def _plain_3(runtime: Runtime, call: Hostcall) -> Any:
    run, remark = call.run, _remark(call)

    def callback(env: int, caller: int, values: Any, count: int) -> int:
        guest = runtime.current
        if guest.stop_text is not None:
            return guest.fiber.end(guest.stopped())
        try:
            result = run(guest, values[0], values[STRIDE], values[2 * STRIDE])
            if result < 0:
                remark(guest, result, values[0], None)
            values[0] = result
        except Refused as refused:
            remark(guest, refused.errno, values[0], refused.cause)
            values[0] = refused.errno
        except BaseException as error:  # noqa: BLE001  (ends the guest; the poll raises it)
            return guest.fiber.end(error)
        return 0

    return callback


def _plain_any(runtime: Runtime, call: Hostcall) -> Any:
    """Any number of parameters, any mix of i32 and i64."""
    run, remark, width = call.run, _remark(call), native.RAW_SIZE
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
                if store_type is c_int32 and result < 0:
                    remark(guest, result, arguments[0], None)
                store_type.from_address(base).value = result
        except Refused as refused:
            remark(guest, refused.errno, arguments[0] if arguments else None, refused.cause)
            c_int32.from_address(base).value = refused.errno
        except BaseException as error:  # noqa: BLE001  (ends the guest; the poll raises it)
            return guest.fiber.end(error)
        return 0

    return callback


_PLAIN: Final = {"": _plain_0, "i": _plain_1, "ii": _plain_2, "iii": _plain_3}


def _suspending(runtime: Runtime, call: Hostcall) -> Any:
    run, at_once = _remarking(call), call.at_once
    remark = _remark(call)
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
        if at_once is not None:
            try:
                result = at_once(guest, *arguments)
                if result is not None and result < 0:
                    remark(guest, result, arguments[0], None)
            except Refused as refused:
                result = refused.errno
                remark(guest, result, arguments[0], refused.cause)
            except BaseException as error:  # noqa: BLE001  (ends the guest; the poll raises it)
                guest.fiber.refuse(error, trap_out, continuation)
                return
            if result is not None:
                guest.fiber.answer(result, results, continuation)
                return
        guest.fiber.suspend(run, arguments, results, continuation)

    return callback


def _remarking(call: Hostcall) -> Callable[..., Awaitable[int | None]]:
    if call.result != "i" or not call.remarked:
        return call.run
    run, remark = call.run, _remark(call)

    async def noted(guest: Guest, *arguments: int) -> int:
        first = arguments[0] if arguments else None
        try:
            result: int = await run(guest, *arguments)
        except Refused as refused:
            remark(guest, refused.errno, first, refused.cause)
            return refused.errno
        if result < 0:
            remark(guest, result, first, None)
        return result

    return noted


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
                callback = native.PLAIN(_PLAIN[call.params](runtime, call))
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
