"""What can go wrong on the way from a file to a running guest.

    GuestError                 base; never raised itself
    ├── PlatformUnsupported    this machine or this wasmtime cannot run guests as tasks; use Linux and wasmtime 50
    ├── NotAModule             the bytes are no WebAssembly module that Spear runs; give a core module
    │   └── ModuleTooLarge     the file is over the limit; build it smaller
    ├── LinkError              the module imports something that this host does not have; the text lists what
    └── EngineClosed           the engine was used after its `async with` block ended

What a *running* guest does wrong is no exception: it is the status and the error_message of its `Execution`.
"""

from __future__ import annotations


class GuestError(Exception):
    """Base of everything this package raises; see the tree in the module docstring."""


class PlatformUnsupported(GuestError):
    pass


class NotAModule(GuestError):
    pass


class ModuleTooLarge(NotAModule):
    pass


class LinkError(GuestError):
    pass


class EngineClosed(GuestError):
    pass
