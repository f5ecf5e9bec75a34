"""The keys of all instances. What is known of a key is shared by all that use it and outlives reloads, as long as its
value is the same."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Final, Literal, Protocol

from spear.backends import Key
from spear.config import Config, Credential, KeysConfig
from spear.ir import CanonicalError
from spear.telemetry import get_logger

from ._pool import Pool
from ._state import KeyState, QuotaGroup

_log = get_logger("spear.router")
_SHOWN: Final = 200


class Holder(Protocol):
    """An instance, as far as its keys go."""

    name: str
    pool: Pool | None
    keys_troubled: bool

    @property
    def keys(self) -> Sequence[Key]: ...


class Ring:
    """Belongs to one desk. Counts only grow."""

    __slots__ = ("_groups", "_holders", "_settings", "_states", "cooled", "killed", "on_change", "revived")

    def __init__(self) -> None:
        self._settings = KeysConfig()
        self._states: dict[str, KeyState] = {}
        self._groups: dict[str, QuotaGroup] = {}
        self._holders: dict[QuotaGroup, list[Holder]] = {}
        self.cooled = self.killed = self.revived = 0
        self.on_change: Callable[[str, str], None] | None = None
        """Told of each key that was `cooled`, `killed` or `revived`: its id, and which of these."""

    def hold(self, config: Config, instances: Iterable[Holder]) -> None:
        """These are the instances from here on. Attempts that are still out with a former value tell nobody."""
        self._settings = config.keys
        credentials = {each.name: each for each in config.credentials}
        states, groups = self._states, self._groups
        self._states, self._groups, self._holders = {}, {}, {}
        for instance in instances:
            keys = tuple([self._state(key, credentials[key.id], states, groups) for key in instance.keys])
            for group in {each.group for each in keys}:
                self._holders.setdefault(group, []).append(instance)
            if instance.pool is None or instance.pool.keys != keys:
                instance.pool = Pool(keys) if keys else None
        if not self._settings.enabled:
            for state in self._states.values():
                state.forget()
        for holders in self._holders.values():
            for instance in holders:
                instance.keys_troubled = instance.pool is not None and instance.pool.stirred(-math.inf)  # ever

    def _state(
        self, key: Key, credential: Credential, states: Mapping[str, KeyState], groups: Mapping[str, QuotaGroup]
    ) -> KeyState:
        """The one that there is, where the value is the same; `states` and `groups` are those of before."""
        found = self._states.get(key.id) or states.get(key.id)
        if found is None or found.key != key:
            found = KeyState(key)
        quota = credential.quota_group
        if quota is None:
            found.group = found.own
        else:
            found.group = self._groups[quota] = self._groups.get(quota) or groups.get(quota) or QuotaGroup()
        found.weight = credential.weight
        self._states[key.id] = found
        return found

    def failed(
        self,
        key: KeyState,
        attempt: object,
        effect: Literal["keep", "cool", "kill"],
        error: CanonicalError,
        sent: float,
        now: float,
    ) -> None:
        """`attempt`, sent at `sent` with `key`, failed so that `effect` follows."""
        if effect == "keep" or not self._settings.enabled:
            return
        if effect == "cool":
            after = None if error.retry_after_ms is None else error.retry_after_ms / 1000
            key.group.cool(sent, now, after, self._settings)
            self.cooled += 1
            self._tell(key, "cooled")
            _log.info("key_cooling", key=key.key.id, quota_group_cools_for_s=round(key.group.until - now, 3))
        elif key.kill(attempt, now, error.message[:_SHOWN], self._settings):
            self.killed += 1
            self._tell(key, "killed")
            _log.warning("key_dead", key=key.key.id, reason=key.dead, tried_again_in_s=self._settings.revive_s)
        for instance in self._holders.get(key.group, ()):
            instance.keys_troubled = True

    def answered(self, key: KeyState, attempt: object, sent: float, now: float, instance: Holder) -> None:
        """`attempt` had a good answer, or the beginning of one. Only needed where an instance is `keys_troubled`."""
        if key.answered(attempt, sent):
            self.revived += 1
            self._tell(key, "revived")
            _log.warning("key_revived", key=key.key.id)
        pool = instance.pool
        instance.keys_troubled = pool is not None and pool.stirred(now)

    def _tell(self, key: KeyState, change: str) -> None:
        if self.on_change is not None:
            self.on_change(key.key.id, change)

    def observe(self, now: float) -> Mapping[str, object]:
        return {
            "cooled": self.cooled,
            "killed": self.killed,
            "revived": self.revived,
            "states": {name: key.observe(now) for name, key in self._states.items()},
        }
