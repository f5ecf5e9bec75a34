"""What can go wrong on the way from a file to a running guest: kinds of `spear.ir.GuestError`.

    spear.ir.GuestError
    └── LoadError                  base of those below; never raised itself
        ├── PlatformUnsupported    this machine or this wasmtime cannot run guests as tasks; use Linux and wasmtime 50
        ├── NotAModule             the bytes are no WebAssembly module that Spear runs; give a core module
        │   └── ModuleTooLarge     the file is over the limit; build it smaller
        ├── LinkError              the module imports something that this host does not have; the text lists what
        └── EngineClosed           the engine was used after its `async with` block ended

What a *running* guest does wrong is no exception: it is the status and the error_message of its `Execution`.
"""

from __future__ import annotations

from spear.ir import ErrorCode, GuestError, make_error


class LoadError(GuestError):
    """Made from its text alone; `str()` gives it back."""

    def __init__(self, message: str) -> None:
        super().__init__(make_error(ErrorCode.INVALID_REQUEST, message))

    def __str__(self) -> str:
        return self.error.message

    def __reduce__(self) -> tuple[object, ...]:
        return type(self), (self.error.message,)


class PlatformUnsupported(LoadError):
    pass


class NotAModule(LoadError):
    pass


class ModuleTooLarge(NotAModule):
    pass


class LinkError(LoadError):
    pass


class EngineClosed(LoadError):
    pass
