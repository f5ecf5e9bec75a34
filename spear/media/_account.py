"""How much the objects of each task come to, against its limits. Pure, and safe to use from several threads."""

from __future__ import annotations

from dataclasses import dataclass
from threading import Lock

from ._errors import too_large


@dataclass(frozen=True, slots=True)
class Quotas:
    """Bytes and objects; those of a task do not bound the host's own. Two objects with the same bytes count twice."""

    object_bytes: int
    task_bytes: int
    task_objects: int
    bytes: int
    objects: int


@dataclass(slots=True)
class Held:
    bytes: int = 0
    objects: int = 0


class Account:
    def __init__(self, quotas: Quotas) -> None:
        self.quotas = quotas
        self._lock = Lock()
        self._tasks: dict[str | None, Held] = {}
        self.total = Held()

    def of(self, owner: str | None) -> Held:
        with self._lock:
            held = self._tasks.get(owner)
            return Held() if held is None else Held(held.bytes, held.objects)

    def take_object(self, owner: str | None) -> None:
        """Raises `CallerError` (media_too_large) where there is no place for one more."""
        quotas = self.quotas
        with self._lock:
            held = self._tasks.get(owner) or Held()
            if owner is not None and held.objects >= quotas.task_objects:
                raise too_large(f"the task has {held.objects} objects (media.max_task_objects)")
            if self.total.objects >= quotas.objects:
                raise too_large("the media store has no place for one more object (media.max_objects)")
            self._add(owner, 0, 1)

    def take_bytes(self, owner: str | None, count: int) -> None:
        quotas = self.quotas
        with self._lock:
            held = self._tasks.get(owner) or Held()
            if owner is not None and held.bytes + count > quotas.task_bytes:
                raise too_large(f"the objects of the task come to {quotas.task_bytes} bytes (media.max_task_bytes)")
            if self.total.bytes + count > quotas.bytes:
                raise too_large("the media store is full (media.max_bytes)")
            self._add(owner, count, 0)

    def count(self, owner: str | None, size: int) -> None:
        """An object that is there already, within the limits or not."""
        with self._lock:
            self._add(owner, size, 1)

    def give_back(self, owner: str | None, size: int, objects: int = 1) -> None:
        with self._lock:
            self._add(owner, -size, -objects)

    def _add(self, owner: str | None, size: int, objects: int) -> None:
        held = self._tasks.setdefault(owner, Held())
        held.bytes += size
        held.objects += objects
        self.total.bytes += size
        self.total.objects += objects
        if held.objects <= 0:
            del self._tasks[owner]
