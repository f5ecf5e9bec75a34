"""Backends: kinds, adapters, and the actor around each configured instance.

_protocol   what a kind and an adapter are
"""

from ._protocol import Adapter as Adapter
from ._protocol import Answer as Answer
from ._protocol import Call as Call
from ._protocol import Finished as Finished
from ._protocol import Host as Host
from ._protocol import Key as Key
from ._protocol import Kind as Kind
from ._protocol import StreamItem as StreamItem
