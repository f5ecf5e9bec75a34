"""The media store behind `smsfile://`.

_keeper   the actor that looks after it
_store    references of every kind, asynchronously: files behind threads
_copies   the second tier: a bucket (_s3)
_fetch    what lies elsewhere, over HTTP; _policy says from where (pure)
_files    the store as files, with _writing and _reading: handles that never wait for anything but the page
          cache; _writeback: a hint to it
_hashing  checksums beside what is done with the bytes
_claims   folders that belong to a living process
_account  quotas (pure)
_record   what is written beside the bytes of an object (pure)
_names    identifiers, addresses, types (pure)
_errors   what can go wrong
_port     what callers, guests and adapters see of it

Each imports only those below it.
"""

from ._errors import of_disk as of_disk
from ._files import FileStore as FileStore
from ._keeper import MediaKeeper as MediaKeeper
from ._names import check_mime as check_mime
from ._names import id_of as id_of
from ._port import NO_MEDIA as NO_MEDIA
from ._port import MediaAccess as MediaAccess
from ._port import MediaBytes as MediaBytes
from ._port import MediaReading as MediaReading
from ._port import MediaWriting as MediaWriting
from ._reading import Reading as Reading
from ._store import MediaStore as MediaStore
from ._writing import Writing as Writing
