"""What comes out of running a guest."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from spear.hostcall._log import LogRecord
from spear.hostcall._usage import Usage

Status = Literal["completed", "failed", "timeout", "terminated"]


@dataclass(frozen=True, slots=True)
class GuestTask:
    """Who runs: the task a guest belongs to. `config` is the host's configuration for it; a guest cannot read it."""

    id: str
    config: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Execution:
    """One finished run of a guest.

    `exit_code` is 0 after a return, n after proc_exit(n), None where the guest did not end by itself. `output` is the
    entry function's result as text, empty if it has none. stdout and stderr are what was captured of them, newest
    bytes last; the `_dropped` counts are bytes (of logs: records) that no longer fitted.
    """

    status: Status
    exit_code: int | None
    output: str
    error_message: str | None
    execution_id: str
    duration_ms: float
    logs: tuple[LogRecord, ...]
    logs_dropped: int
    stdout: str
    stderr: str
    stdout_dropped: int
    stderr_dropped: int
    usage: Usage
