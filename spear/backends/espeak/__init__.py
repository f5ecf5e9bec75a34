"""Kind `espeak`: speech by espeak-ng, in processes of its own. It is real speech, and sounds like a machine.

    _kind        the kind and its adapter
    _process     one run of espeak-ng
    _sentences   long texts in pieces
    _ssml        which markup may pass
    _voices      which voices there are

espeak-ng is no Python package: `apt-get install espeak-ng`. Text reaches it by its standard input only, a sentence at a
time, so that speech streams while the rest is still being said.
"""

from ._kind import KIND as KIND
