"""What the kinds that compute on this machine share.

    _pool      worker processes, leased one request at a time
    _process   one of them, seen from here
    _wants     reading options, and refusing what a kind does not do
    _whole     an adapter whose stream tells its one answer whole

Nothing here imports numpy, Pillow or a decoder.
"""

from spear.dialects.wav import BadAudio as BadAudio
from spear.dialects.wav import Pcm as Pcm
from spear.dialects.wav import kind_of_audio as kind_of_audio
from spear.dialects.wav import read_wav as read_wav
from spear.dialects.wav import wav_bytes as wav_bytes
from spear.dialects.wav import wav_header as wav_header

from ._pool import Pool as Pool
from ._process import Worker as Worker
from ._process import broken as broken
from ._process import start_worker as start_worker
from ._wants import Option as Option
from ._wants import integer as integer
from ._wants import limit as limit
from ._wants import may as may
from ._wants import not_done_here as not_done_here
from ._wants import one_of as one_of
from ._wants import only_known as only_known
from ._whole import Whole as Whole
