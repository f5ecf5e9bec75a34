"""Kind `pocketsphinx`: English speech to text, offline. An old and small recogniser: fit for demos and tests.

    _kind      the kind and its adapter
    _pool      worker processes, leased one request at a time
    _process   one of them, seen from here
    _worker    the program they run
    _samples   any WAV to what the recogniser takes; the part that needs numpy

The recogniser is native code that holds Python's lock and may hang on odd audio, so that it never runs in this process.
"""

from ._kind import KIND as KIND
