"""The families `emb_ img_ asr_ tts_`: what tells them apart, in one table, and the state of a request."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from spear.hostcall import _family_params as params
from spear.hostcall._errno import EINVAL, ENOMEM, Refused
from spear.hostcall._fds import Entry
from spear.hostcall._holdings import ITEM_BYTES, VALUE_BYTES, Holdings
from spear.hostcall._limits import Limits
from spear.hostcall._operation_port import FamilyName, FamilySnapshot

BLOCK_BYTES: Final = 1024 * 1024


@dataclass(frozen=True, slots=True)
class Family:
    """`pieces`: each write is an input of its own; else they are appended to one. `max_write` and `max_total` are bytes
    of one call and of all together."""

    name: FamilyName
    request_kind: str
    response_kind: str
    params: Mapping[str, params.Check]
    streams: bool
    pieces: bool
    max_write: Callable[[Limits], int]
    max_total: Callable[[Limits], int]
    max_writes: Callable[[Limits], int]


_NO_CAP: Final = 1 << 62


def _none(limits: Limits) -> int:
    return _NO_CAP


EMB: Final = Family(
    "emb",
    "EmbRequest",
    "EmbResponse",
    params.EMB,
    streams=False,
    pieces=True,
    max_write=lambda limits: limits.emb_input_bytes,
    max_total=lambda limits: limits.emb_bytes,
    max_writes=lambda limits: limits.emb_inputs,
)
IMG: Final = Family(
    "img",
    "ImgRequest",
    "ImgResponse",
    params.IMG,
    streams=False,
    pieces=False,
    max_write=_none,
    max_total=lambda limits: limits.prompt_bytes,
    max_writes=_none,
)
ASR: Final = Family(
    "asr",
    "AsrRequest",
    "AsrResponse",
    params.ASR,
    streams=True,
    pieces=False,
    max_write=lambda limits: limits.media_write_bytes,
    max_total=lambda limits: limits.asr_bytes,
    max_writes=_none,
)
TTS: Final = Family(
    "tts",
    "TtsRequest",
    "TtsResponse",
    params.TTS,
    streams=True,
    pieces=False,
    max_write=_none,
    max_total=lambda limits: limits.tts_bytes,
    max_writes=_none,
)
FAMILIES: Final = (EMB, IMG, ASR, TTS)


class FamilyRequest(Entry):
    """Inputs and parameters. What was written stays after a send."""

    __slots__ = (
        "_costs",
        "_held",
        "_holdings",
        "_limits",
        "_pieces",
        "_tail",
        "_value_count",
        "family",
        "input_bytes",
        "inputs",
        "kind",
        "params",
    )

    def __init__(self, family: Family, limits: Limits, holdings: Holdings) -> None:
        super().__init__()
        self.family = family
        self.kind = family.request_kind
        self._limits = limits
        self._holdings = holdings
        self._held = 0
        self._pieces: list[bytes] = []  # inputs, or blocks of one
        self._tail = bytearray()  # what does not fill a block yet
        self.input_bytes = 0
        self.inputs = 0
        self.params: dict[str, Any] = {}
        self._costs: dict[str, tuple[int, int]] = {}  # bytes and JSON values of each parameter
        self._value_count = 0

    def check_room(self, size: int) -> None:
        """Raises `Refused` (-12) where so much more would be beyond a cap."""
        family, limits = self.family, self._limits
        if self.input_bytes + size > family.max_total(limits) or self.inputs >= family.max_writes(limits):
            raise Refused(ENOMEM)

    def write(self, data: bytes) -> None:
        """Check the room first. Raises `Refused` (-12) where the guest has the host hold too much."""
        self._hold(len(data) + ITEM_BYTES * self.family.pieces)
        if self.family.pieces:
            self._pieces.append(data)
        else:
            self._tail += data
            if len(self._tail) >= BLOCK_BYTES:
                self._pieces.append(bytes(self._tail))
                self._tail.clear()
        self.input_bytes += len(data)
        self.inputs += 1

    def check_param(self, key: str, value: Any) -> Any:
        """The value to keep. Raises `Refused` (-22)."""
        check = self.family.params.get(key)
        return value if check is None or value is None else check(value)

    def check_param_room(self, key: str, size: int, values: int) -> None:
        """`size` and `values`: bytes of the JSON, and how many values stand in it. Raises `Refused` (-12)."""
        old_values = self._costs.get(key, (0, 0))[1]
        if key not in self.family.params and key not in self.params:
            unknown = sum(name not in self.family.params for name in self.params)
            if unknown >= self._limits.extra_params:
                raise Refused(ENOMEM)
        if self._value_count + values - old_values > self._limits.session_json_values:
            raise Refused(ENOMEM)
        if not self._holdings.fits(_price(size, values) - self._price_of(key)):
            raise Refused(ENOMEM)

    def set_param(self, key: str, value: Any, size: int, values: int) -> None:
        """Check the room first."""
        self.reset_param(key)
        self._hold(_price(size, values))
        self._value_count += values
        self._costs[key] = size, values
        self.params[key] = value

    def reset_param(self, key: str) -> None:
        self._hold(-self._price_of(key))
        self._value_count -= self._costs.pop(key, (0, 0))[1]
        self.params.pop(key, None)

    def snapshot(self) -> FamilySnapshot:
        """What to send, once `check_ready` has found nothing."""
        name = self.family.name
        pieces = (*self._pieces, bytes(self._tail)) if self._tail else tuple(self._pieces)
        parameters = dict(self.params)
        if name == "asr":
            return FamilySnapshot(name, self.fd, parameters, audio=pieces)
        if not self.family.pieces:
            pieces = (b"".join(pieces),)
        return FamilySnapshot(name, self.fd, parameters, tuple(one.decode("utf-8", "replace") for one in pieces))

    def check_ready(self) -> None:
        """Raises `Refused` (-22) where there is no input, or the parameters contradict it."""
        given = self.params
        elsewhere = "audio" in given and self.family.name == "asr"
        if (self.inputs > 0) == elsewhere:  # nothing at all, or both
            raise Refused(EINVAL)
        if self.family.name == "img" and "mask" in given and "image" not in given:
            raise Refused(EINVAL)
        if self.family.name == "asr" and given.get("format") == "pcm16" and "sample_rate_hz" not in given:
            raise Refused(EINVAL)

    def _price_of(self, key: str) -> int:
        return _price(*self._costs[key]) if key in self._costs else 0

    def _hold(self, size: int) -> None:
        self._holdings.take(size)
        self._held += size

    def status(self) -> dict[str, Any]:
        return {"input_bytes": self.input_bytes, "inputs": self.inputs, "state": "Open"}

    def release(self) -> None:
        self._pieces, self._tail = [], bytearray()
        self.params, self._costs = {}, {}
        self._holdings.take(-self._held)
        self._held = 0


def _price(size: int, values: int) -> int:
    return size + VALUE_BYTES * values + ITEM_BYTES
