"""An observer that counts requests and attempts: `open_runtime(config, observer=RequestCounters(counters))`.

Labels come from the configuration and from closed lists, never from what a caller wrote.
"""

from __future__ import annotations

from spear.ir import Attempt, RequestEnvelope, ResponseEnvelope, Usage

from ._counters import Counters


class RequestCounters:
    """Counts every finished request: how it ended, how long it took, what it used, and who was tried for it."""

    def __init__(self, counters: Counters) -> None:
        self._counters = counters

    def __call__(self, request: RequestEnvelope, response: ResponseEnvelope) -> None:
        counters, operation = self._counters, request.operation.value
        error, backend = response.result.error, response.backend
        code = error.code.value if error is not None else "ok"
        counters.counter("requests_total", "Requests that ended, by how.", operation=operation, code=code).add()
        if backend is not None:
            seconds = backend.latency_ms / 1000
            about = "Seconds from a request's arrival to its answer."
            counters.histogram("request_seconds", about, operation=operation, backend=backend.name).observe(seconds)
            self._usage(backend.name, response.usage)
        for attempt in error.attempts if error is not None else backend.attempts if backend is not None else ():
            self._attempt(attempt)

    def _attempt(self, attempt: Attempt) -> None:
        about = "Attempts at a backend, by outcome and error."
        code = attempt.error_code.value if attempt.error_code is not None else "none"
        self._counters.counter(
            "attempts_total", about, backend=attempt.backend, outcome=attempt.outcome, code=code
        ).add()
        about = "Seconds that an attempt took, however it ended."
        self._counters.histogram("attempt_seconds", about, backend=attempt.backend).observe(attempt.elapsed_ms / 1000)

    def _usage(self, backend: str, usage: Usage) -> None:
        about = "Tokens used; estimated where the backend gave no count."
        for direction, tokens in (("input", usage.input_tokens), ("output", usage.output_tokens)):
            if tokens:
                labels = {"backend": backend, "direction": direction, "estimated": str(usage.estimated).lower()}
                self._counters.counter("tokens_total", about, **labels).add(tokens)
        if usage.cost:
            self._counters.counter("cost_total", "Cost by the configured prices.", backend=backend).add(usage.cost)
