"""The media store behind `smsfile://`.

_port  what callers, guests and adapters see of it
"""

from ._port import NO_MEDIA as NO_MEDIA
from ._port import MediaAccess as MediaAccess
from ._port import MediaBytes as MediaBytes
from ._port import MediaReading as MediaReading
from ._port import MediaWriting as MediaWriting
