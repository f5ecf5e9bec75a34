"""Kind `pocketsphinx`: English speech to text, offline. An old and small recogniser: fit for demos and tests.

    _kind      the kind and its adapter
    _worker    the program of its worker processes
    _samples   any WAV to what the recogniser takes; the part that needs numpy

The recogniser is native code that holds Python's lock and may hang on odd audio, so that it never runs in this process.
"""

from ._kind import KIND as KIND
