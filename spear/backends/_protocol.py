"""What a backend is to the rest of Spear: a kind that opens adapters, and an adapter that answers requests.

A kind is looked up by name and imported only when a configured instance needs it. `Kind.open` gives the adapter of
one instance for as long as its block lasts; its actor calls it, several requests at a time. An adapter translates and
calls, nothing more: no retry, no fallback, no limit of its own.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from typing import Protocol

from pydantic import JsonValue

from spear.config import InstanceConfig
from spear.ir import Capabilities, RequestEnvelope, ResultPayload, StreamEvent, Usage
from spear.media import NO_MEDIA, MediaAccess
from spear.secrets import Secret


@dataclass(frozen=True, slots=True)
class Key:
    """A credential that was chosen for one attempt. `id` is the credential's name and may be shown; the secret may
    not."""

    id: str
    secret: Secret


@dataclass(frozen=True, slots=True)
class Call:
    """The conditions of one attempt. Times in seconds; `deadline` on Trio's clock (inf = none) is enforced by the
    caller and is here for those that pass it upstream. `connect` and `first_event` are the adapter's to enforce where
    a socket is involved; `idle` bounds the gap between two reads."""

    deadline: float
    connect: float
    first_event: float
    idle: float
    key: Key | None = None


@dataclass(frozen=True, slots=True)
class Answer:
    """What an adapter answers once. `usage.estimated` is True where the backend gave no count. `model` is the
    backend's own name for what answered, empty if unknown. `raw` is the backend's JSON."""

    payload: ResultPayload
    usage: Usage
    model: str = ""
    degraded: tuple[str, ...] = ()
    raw: JsonValue = None


@dataclass(frozen=True, slots=True)
class Finished:
    """The last item of an adapter's stream, standing for a complete end: the answer that the same request without
    streaming would have given. A stream that ends without one is truncated."""

    answer: Answer


StreamItem = StreamEvent | Finished
"""What an adapter's stream yields: `Started`, deltas and `UsageEvent`, then one `Finished`. It yields neither
`Completed` nor `ErrorEvent` (the router makes these); a failure is raised as `BackendError`."""


class Adapter(Protocol):
    """One open instance. Both methods raise `BackendError` for everything that goes wrong at the backend; any other
    exception is a bug and is answered as `internal`. Cancelling closes the backend's socket before the call
    returns."""

    async def invoke(self, request: RequestEnvelope, call: Call) -> Answer: ...

    def stream(
        self, request: RequestEnvelope, call: Call
    ) -> AbstractAsyncContextManager[AsyncIterator[StreamItem]]: ...


@dataclass(frozen=True, slots=True)
class Host:
    """What the host lends to an adapter: nothing that would let it reach another instance's secrets."""

    debug_raw: bool = False
    media: MediaAccess = NO_MEDIA
    """Where bytes that a request refers to come from, and where those of an answer go; for the request's task."""
    redact: tuple[Secret, ...] = field(default=())
    """Secrets that must not appear in any text an adapter makes from a backend's answer."""


class Kind(Protocol):
    """A kind of backend: a module-level object that an entry point of group `spear.backends` names."""

    name: str
    capabilities: Capabilities
    """All that this kind can do; an instance's own lists must lie within its operations."""

    def check(self, instance: InstanceConfig) -> None:
        """Raise ValueError, naming the key and what would be right, if the instance's configuration cannot work with
        this kind."""

    def open(self, instance: InstanceConfig, host: Host) -> AbstractAsyncContextManager[Adapter]: ...
