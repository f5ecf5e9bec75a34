"""What requests can be kept together by, as hashes: the same in every process, and no content."""

from __future__ import annotations

from hashlib import blake2b
from typing import ClassVar, Final

from spear.ir import ChatRequest, RequestEnvelope

_PREFIX_CHARS: Final = 1024

Hashes = tuple[int | None, int | None, int | None]


class Affinity:
    """The session, the task, the prompt's beginning; None = the request has none. Those of a request are made when
    somebody looks at one, since most policies never do; until then it is the request that is kept."""

    __slots__ = ("_hashes", "_request")

    _fields: ClassVar = ("session", "task", "prompt")

    def __init__(self, session: int | None = None, task: int | None = None, prompt: int | None = None) -> None:
        self._hashes: Hashes | None = (session, task, prompt)
        self._request: RequestEnvelope | None = None

    @classmethod
    def of(cls, request: RequestEnvelope) -> Affinity:
        affinity = cls.__new__(cls)
        affinity._hashes, affinity._request = None, request
        return affinity

    @property
    def hashes(self) -> Hashes:
        if self._hashes is None:
            assert self._request is not None
            self._hashes, self._request = _hashes_of(self._request), None
        return self._hashes

    @property
    def session(self) -> int | None:
        return self.hashes[0]

    @property
    def task(self) -> int | None:
        return self.hashes[1]

    @property
    def prompt(self) -> int | None:
        return self.hashes[2]

    def __eq__(self, other: object) -> bool:
        return self.hashes == other.hashes if isinstance(other, Affinity) else NotImplemented

    def __hash__(self) -> int:
        return hash(self.hashes)

    def __repr__(self) -> str:
        session, task, prompt = self.hashes
        return f"Affinity({session=}, {task=}, {prompt=})"

    def __reduce__(self) -> tuple[type[Affinity], Hashes]:
        return Affinity, self.hashes


def _hashes_of(request: RequestEnvelope) -> Hashes:
    prompt = None
    if isinstance(request.payload, ChatRequest) and request.payload.messages:
        prompt = request.payload.messages[0].text()[:_PREFIX_CHARS]
    return _hashed(request.meta.session_id), _hashed(request.task_id), _hashed(prompt)


def _hashed(key: str | None) -> int | None:
    return hash_name(key) if key else None


def hash_name(name: str) -> int:
    """64 bits, the same in every process."""
    return int.from_bytes(blake2b(name.encode("utf-8", "surrogatepass"), digest_size=8).digest(), "big")
