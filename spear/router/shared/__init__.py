"""Limits that several processes share, through Redis or Valkey. Optional: the extra `redis`.

    _ledger   what this process has used lately
    _meter    one limit: a lease of it, and a share where there is no lease
    _link     what meters and the actor know together
    _script   what is asked of Redis, in Lua, and its answer
    _actor    the actor that has the connection

Requests never wait for Redis: meters answer from their lease. Everything but the actor is pure.
"""

from ._actor import SharedLimits as SharedLimits
from ._actor import shared_limits_spec as shared_limits_spec
from ._link import Link as Link
from ._meter import SharedMeter as SharedMeter
