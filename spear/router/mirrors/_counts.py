"""What mirroring counts: plain numbers for a snapshot, and the same as counters of the runtime."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Final

from spear.telemetry import Counters

DROPPED: Final = {
    "full": "too many mirrors wait",
    "stopped": "the mirrors' actor is not running",
    "too_large": "the request is larger than may be mirrored",
    "not_allowed": "the filter would not let the mirror's backend have it",
    "unwell": "the mirror's backend does not run, or is left out for its health",
    "no_room": "less than half of the backend's room would be left to others, or a rate or a budget of it is used up",
    "budget": "the requests of the last minute, or the cost of the last hour, are at their bound",
}
"""Why a request that was drawn was not mirrored."""


class MirrorCounts:
    """`sent` = ok + failed + cancelled + those under way. `cancelled`: at shutdown. `lost`: records that could not be
    written to the file."""

    def __init__(self, counters: Counters | None = None) -> None:
        self._counters = counters
        self.sent = self.ok = self.cancelled = self.compared = self.lost = 0
        self.failed: Counter[str] = Counter()
        self.dropped: Counter[str] = Counter()

    def send(self) -> None:
        self.sent += 1
        self._add("mirrors_sent_total", "Requests sent to a mirror.")

    def end(self, outcome: str) -> None:
        """`ok`, or an error's code."""
        if outcome == "ok":
            self.ok += 1
        else:
            self.failed[outcome] += 1
        self._add("mirrors_ended_total", "Mirrored requests that ended, by how.", outcome=outcome)

    def cancel(self) -> None:
        self.cancelled += 1

    def drop(self, reason: str) -> None:
        self.dropped[reason] += 1
        self._add("mirrors_dropped_total", "Requests that were drawn but not mirrored, by why.", reason=reason)

    def compare(self) -> None:
        self.compared += 1
        self._add("mirrors_compared_total", "Pairs of answers that were compared.")

    def lose(self) -> None:
        self.lost += 1
        self._add("mirror_records_lost_total", "Records of mirrored requests that could not be written.")

    def observe(self) -> Mapping[str, object]:
        return {
            "sent": self.sent,
            "ok": self.ok,
            "failed": dict(self.failed),
            "cancelled": self.cancelled,
            "compared": self.compared,
            "dropped": dict(self.dropped),
            "records_lost": self.lost,
        }

    def _add(self, name: str, about: str, **labels: str) -> None:
        if self._counters is not None:
            self._counters.counter(name, about, **labels).add()
