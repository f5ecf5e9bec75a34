"""What is known of a server across its connections."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from ._stderr import StderrLog
from ._tools import Listing

Phase = Literal["not started", "connecting", "ready", "failed", "not usable"]


@dataclass(slots=True)
class ServerState:
    phase: Phase = "not started"
    failure: str = ""
    """Of the last connection, for guests, too."""
    listing: Listing = field(default_factory=Listing)
    fresh: bool = False
    """The listing holds until the server says that it has changed."""
    changes: int = 0
    connections: int = 0
    pid: int | None = None
    stderr: StderrLog | None = None

    @property
    def last_words(self) -> str:
        """The latest line on stderr: for people of this host, not for guests."""
        return self.stderr.last if self.stderr is not None else ""
