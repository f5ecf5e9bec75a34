"""What a scene of `spear demo` says, and what its requests came to."""

from __future__ import annotations

import shutil
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import click

import spear.guests
from spear import Runtime
from spear.ir import RequestEnvelope, ResponseEnvelope

if TYPE_CHECKING:
    from spear.hostcall import Execution, LogRecord


@dataclass
class Stage:
    """Prints the transcript and remembers the responses that the runtime gave in the scene at hand."""

    responses: list[ResponseEnvelope] = field(default_factory=list)
    scene_number: int = 0

    def scene(self, title: str, remark: str = "") -> None:
        self.scene_number += 1
        self.responses.clear()
        click.echo(f"\n{click.style(f' {self.scene_number} ', reverse=True)} {click.style(title, bold=True)}")
        if remark:
            width = shutil.get_terminal_size().columns
            click.echo(click.style(click.wrap_text(remark, width, "    ", "    "), dim=True))

    def say(self, label: str, text: str, *, color: str | None = None) -> None:
        click.echo(f"    {click.style(label.ljust(12), dim=True)}{click.style(text, fg=color)}")

    def observe(self, request: RequestEnvelope, response: ResponseEnvelope) -> None:
        self.responses.append(response)

    def log(self, record: LogRecord) -> None:
        self.say("guest log", record.message.rstrip(), color="cyan")

    def out(self, data: bytes) -> None:
        for line in data.decode(errors="replace").splitlines():
            self.say("guest says", line, color="green")

    async def guest(self, runtime: Runtime, name: str) -> Execution:
        execution = await runtime.run_guest(spear.guests.path(name), on_log=self.log, on_stdout=self.out)
        self.say("guest", f"{execution.status}, exit code {execution.exit_code}, {execution.duration_ms:.1f} ms")
        return execution

    def attempts(self) -> None:
        """Which backend was asked, how it went, and why the next one was."""
        for number, response in enumerate(self.responses, 1):
            backend, error = response.backend, response.result.error
            tried = backend.attempts if backend is not None else error.attempts if error is not None else ()
            for attempt in tried:
                fine = attempt.outcome == "ok"
                what = "answered" if fine else f"{attempt.outcome}: {attempt.error_code}"
                self.say(
                    f"request {number}",
                    f"{attempt.backend:6} {attempt.reason:9} {what:22} {attempt.elapsed_ms:6.1f} ms",
                    color=None if fine else "red",
                )
