"""What the runtime gives to the guest side for the families of operations: one port for all of them."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from typing import Any, Final, Literal, NoReturn, Protocol

from spear.hostcall._media_port import MediaPort, NoMediaPort
from spear.ir import CanonicalError

FamilyName = Literal["emb", "img", "asr", "tts"]
FAMILY_NAMES: Final = ("emb", "img", "asr", "tts")
SWITCHABLE: Final = (*FAMILY_NAMES, "media")
"""What a host can switch off."""


@dataclass(frozen=True, slots=True)
class FamilySnapshot:
    """A request at the moment of its send. Read it, do not change it.

    `texts` are the inputs (emb) or the one text (img, tts); `audio` (asr) is what was written, in pieces, empty where
    the parameter `audio` says where the sound is. `params` holds checked values; media among them are `MediaRef`s.
    """

    family: FamilyName
    fd: int
    params: Mapping[str, Any]
    texts: tuple[str, ...] = ()
    audio: tuple[bytes, ...] = ()


@dataclass(frozen=True, slots=True)
class FamilyReply:
    """How a request ended: with the body that the guest shall read, or with an error; and the metrics that it may ask
    for. `tokens` are input, output; `cost` is in the unit of the host's configuration."""

    body: Mapping[str, Any] = field(default_factory=dict)
    error: CanonicalError | None = None
    backend: str | None = None
    metrics: Mapping[str, float] = field(default_factory=dict)
    tokens: tuple[int, int] = (0, 0)
    cost: float = 0.0
    estimated: bool = False


@dataclass(frozen=True, slots=True)
class FamilyEvent:
    """One event of a stream, without its number. The last one has only the reply, as without streaming."""

    body: dict[str, Any] = field(default_factory=dict)
    reply: FamilyReply | None = None


class OperationPort(Protocol):
    """Failures of routing and backends come as replies and events, not as exceptions. Cancelling a call ends everything
    it started. An exception ends the guest and is raised from `run`."""

    families: frozenset[str]
    """Those of `SWITCHABLE` that are switched on."""
    media: MediaPort

    def allows(self, family: FamilyName) -> bool:
        """Whether the task may use that operation at all."""

    async def invoke(self, request: FamilySnapshot) -> FamilyReply: ...

    def stream(self, request: FamilySnapshot) -> AbstractAsyncContextManager[AsyncIterator[FamilyEvent]]: ...


class NoOperations:
    """Every family is switched off."""

    def __init__(self) -> None:
        self.families: frozenset[str] = frozenset()
        self.media: MediaPort = NoMediaPort()

    def allows(self, family: FamilyName) -> bool:
        return False

    async def invoke(self, request: FamilySnapshot) -> FamilyReply:
        _unreachable()

    def stream(self, request: FamilySnapshot) -> AbstractAsyncContextManager[AsyncIterator[FamilyEvent]]:
        _unreachable()


def _unreachable() -> NoReturn:
    raise AssertionError("unreachable: no descriptor of a family that is switched off exists")


NO_OPERATIONS: Final[OperationPort] = NoOperations()
