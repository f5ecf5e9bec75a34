"""What the kinds that call over HTTP share. Only they import it; it needs httpx and httpcore2.

    _client     one instance's requests and answers: headers, its key, redaction, JSON and events as they come
    _vectors    an answer that is mostly vectors
    _exchange   one request and its answer, under the clocks of an attempt
    _failures   what a failure means, and how it is told (pure)
    _transport  an httpx transport over httpcore2's pool, for one origin
    _network    its sockets on Trio
    _multipart  a form with a file (pure)

Each imports only those below it.
"""

from ._client import Header as Header
from ._client import HttpClient as HttpClient
from ._client import check_address as check_address
from ._client import json_of as json_of
from ._client import lines_of as lines_of
from ._client import open_client as open_client
from ._client import payloads_of as payloads_of
from ._exchange import Received as Received
from ._failures import broken_answer as broken_answer
from ._failures import redacted as redacted
from ._failures import truncated as truncated
from ._multipart import FormFile as FormFile
from ._multipart import multipart as multipart
from ._transport import PoolTransport as PoolTransport
from ._vectors import vectors_of as vectors_of
