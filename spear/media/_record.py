"""What is written beside the bytes of an object. Pure."""

from __future__ import annotations

from typing import Annotated, Final, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from spear.ir import StoredMedia

from ._names import uri_of

MAX_RECORD_BYTES: Final = 65_536
MOST_GRANTS: Final = 64
_Task = Annotated[str, Field(max_length=256)]


class DamagedRecord(ValueError):
    """It is none of ours, or no longer."""


class Record(BaseModel):
    """Times are Unix seconds. `owner` None = the host."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)

    version: Literal[1] = 1
    id: Annotated[str, Field(pattern=r"^[0-9a-f]{40}$")]
    mime: Annotated[str, Field(min_length=3, max_length=127, pattern=r"^[!-~]+/[ -~]+$")]
    size: Annotated[int, Field(ge=1, le=2**53)]
    sha256: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
    owner: _Task | None
    grants: Annotated[tuple[_Task, ...], Field(max_length=MOST_GRANTS)] = ()
    created: float
    expires: float

    def readable_by(self, task_id: str | None) -> bool:
        return task_id is None or task_id == self.owner or task_id in self.grants

    @property
    def ref(self) -> StoredMedia:
        return StoredMedia(uri=uri_of(self.id), mime=self.mime, size=self.size, sha256=self.sha256)

    def dump(self) -> bytes:
        return self.model_dump_json().encode()


def parse_record(data: bytes, object_id: str) -> Record:
    """The record of that object, or `DamagedRecord`."""
    if len(data) > MAX_RECORD_BYTES:
        raise DamagedRecord("longer than a record")
    try:
        record = Record.model_validate_json(data)
    except ValidationError:
        raise DamagedRecord("not a record") from None
    if record.id != object_id:
        raise DamagedRecord("the record of another object")
    return record
