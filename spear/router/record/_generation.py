"""A generation as a record: what decisions are made by, without keys, addresses, options and places in files.

What a kind can do is recorded, too, so that a replay needs none of the kinds.
"""

from __future__ import annotations

from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, replace
from typing import Any, Final, Literal, NoReturn

from pydantic import BaseModel, ConfigDict, Field

from spear._about import __version__
from spear.backends import Adapter, Host, Kind
from spear.config import Config, InstanceConfig
from spear.ir import Capabilities, ErrorCode, Json, RoutingError, dump_json, make_error
from spear.router._registry import Generation, build_generation

from ._state import StillInstance

VERSION: Final = 1
_ORIGIN: Final = {"origin": True}
_LEFT_OUT: Final[dict[str, Any]] = {
    "credentials": {"__all__": {"source": True}},
    "backends": {"__all__": {"base_url": True, "options": True, **_ORIGIN}},
    "skipped": {"__all__": {"detail": True, **_ORIGIN}},
    "routes": {"__all__": {"filter": True, "mirror": True, **_ORIGIN}},
    "tasks": {"__all__": {"config": True, **_ORIGIN}},
    "decisions": True, "filters": True, "mirrors": True, "redis": True, "guests": True, "mcp": True, "log": True,
    "discovery": True, "discovered": True, "warnings": True,
    **_ORIGIN,
}  # fmt: skip
"""What no decision reads and a record must or need not hold. Whatever is a `Secret` shows only that it is there."""
_PUT_BACK: Final = (("credentials", "source"), ("skipped", "detail"))


class GenerationRecord(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    v: Literal[1]
    kind: Literal["generation"]
    run: str
    version: str
    generation: int = Field(lt=2**63)
    config: dict[str, Any]
    kinds: dict[str, Capabilities]
    indexes: dict[str, int]


def generation_line(generation: Generation, run: str) -> bytes:
    config: dict[str, Json] = generation.config.model_dump(mode="json", exclude=_LEFT_OUT, exclude_defaults=True)
    kinds: dict[str, Json] = {
        each.config.kind: each.kind.capabilities.model_dump(mode="json", exclude_defaults=True)
        for each in generation.instances
    }
    indexes: dict[str, Json] = {each.name: each.index for each in generation.instances}
    record: dict[str, Json] = {
        "v": VERSION, "kind": "generation", "run": run, "version": __version__, "generation": generation.number,
        "config": config, "kinds": kinds, "indexes": indexes,
    }  # fmt: skip
    return dump_json(record) + b"\n"


@dataclass(slots=True)
class RecordedKind:
    """What a kind could do. It opens nothing."""

    name: str
    capabilities: Capabilities

    def check(self, instance: InstanceConfig) -> None:
        """What was recorded had been checked."""

    def open(self, instance: InstanceConfig, host: Host) -> AbstractAsyncContextManager[Adapter]:
        raise NotImplementedError("a recorded kind has no adapter")


def restore(record: GenerationRecord) -> Generation:
    """The generation, with instances that stand still. Raises `ConfigError` (a `SpearError`) or ValidationError where
    the record makes none."""
    written = dict(record.config)
    for section, key in _PUT_BACK:
        if isinstance(items := written.get(section), list):
            written[section] = [{key: "", **each} if isinstance(each, dict) else each for each in items]
    config = Config.model_validate_json(dump_json(written))
    kinds: dict[str, Kind] = {name: RecordedKind(name, can) for name, can in record.kinds.items()}

    def find(name: str) -> Kind:
        return kinds.get(name) or _unknown(name)

    generation = build_generation(config, number=record.generation, find_kind=find)
    for each in generation.instances:
        each.index = record.indexes.get(each.name, each.index)
    return still(generation)


def still(generation: Generation) -> Generation:
    """The same, of instances that stand still."""
    return replace(generation, instances=tuple(StillInstance(each) for each in generation.instances))


def _unknown(name: str) -> NoReturn:
    raise RoutingError(make_error(ErrorCode.INVALID_REQUEST, f"there is no kind {name!r} in the record"))
