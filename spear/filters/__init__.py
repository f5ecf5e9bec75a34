"""External filters: who asks an HTTP service, a WebAssembly guest or a Python function before a backend is chosen.

    _http    one POST over connections of its own          _wasm    a guest, a fresh instance for each call
    _python  a function of the host's program
    _port    what the router asks: bounded, counted, closed after its last call
    _actor   the actor that owns them all

What a filter gets to see and what it may say is the router's (`_question`, `_verdict`); here are only the ways to it.
Lower rows import upper ones.
"""

from ._actor import Filters as Filters
from ._actor import OpenFilters as OpenFilters
from ._actor import SweepFilters as SweepFilters
from ._python import FilterFunction as FilterFunction
