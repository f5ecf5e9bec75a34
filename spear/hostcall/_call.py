"""One call into a guest as wasmtime sees it: a future, and the memory that wasmtime writes its outcome to."""

from __future__ import annotations

from ctypes import byref, c_void_p

from spear.hostcall import _binding as native


class Trapped(Exception):
    """The call ended in a trap; `str()` is one line "wasm trap: …". An instance that could not even be made ends in
    the same way, with "wasm error: …"."""


class Call:
    """One future of wasmtime and the memory that it writes to."""

    __slots__ = ("_arguments", "_error", "_func", "_trap", "future", "instance", "results")

    def __init__(self, result_count: int) -> None:
        self.results = (native.Val * result_count)()
        self._trap = c_void_p()
        self._error = c_void_p()
        self._arguments: object = None
        self._func: object = None
        self.instance = native.Instance()
        self.future: int | None = None

    def start(self, context: int, func: native.Func, arguments: tuple[int, ...]) -> None:
        values = (native.Val * len(arguments))()
        for value, argument in zip(values, arguments, strict=True):
            value.kind = native.KIND_I32
            value.of.i32 = argument
        self._arguments, self._func = values, func
        self.future = native.call_async(
            context,
            byref(func),
            values,
            len(arguments),
            self.results,
            len(self.results),
            byref(self._trap),
            byref(self._error),
        )

    def start_instance(self, context: int, pre: int) -> None:
        self.future = native.instantiate_async(
            pre, context, byref(self.instance), byref(self._trap), byref(self._error)
        )

    def poll(self) -> None:
        """Run until done (`future` is None then) or suspended."""
        if native.future_poll(self.future):
            self._delete()

    def drop(self) -> None:
        """Delete the future, unwinding the guest if it is suspended, and free an outcome nobody looked at."""
        self._delete()
        self._take_failure()

    def _delete(self) -> None:
        future, self.future = self.future, None
        if future is not None:
            native.future_delete(future)

    def _take_failure(self) -> str | None:
        trap, error = self._trap.value, self._error.value
        self._trap.value = self._error.value = None
        if error:
            return native.take_error(error)
        return native.take_trap(trap) if trap else None

    def raise_failure(self) -> None:
        """Raise `Trapped` if the finished call ended in a trap or an error."""
        text = self._take_failure()
        if text is not None:
            raise Trapped(_one_line(text))


def _one_line(text: str) -> str:
    """The cause of wasmtime's multi-line message, without the backtrace: that stands first and names what it likes."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    for line in reversed(lines):
        at = line.find("wasm trap: ")
        if at >= 0:
            return line[at:]
    cause = lines[-1] if lines else "no message"
    return "wasm error: " + cause.removeprefix("0: ").removeprefix("1: ")
