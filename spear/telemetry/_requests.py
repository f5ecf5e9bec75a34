"""An observer that counts requests and attempts: `open_runtime(config, observer=RequestCounters(counters))`.

Labels come from the configuration and from closed lists, never from what a caller wrote.
"""

from __future__ import annotations

from spear.ir import Attempt, ErrorCode, Operation, RequestEnvelope, ResponseEnvelope, Usage

from ._counters import Counter, Counters, Histogram


class RequestCounters:
    """Counts every finished request: how it ended, how long it took, what it used, and who was tried for it."""

    def __init__(self, counters: Counters) -> None:
        self._counters = counters
        # Looking a child up by its labels costs more than counting: each is looked up once.
        self._ended: dict[tuple[Operation, ErrorCode | None], Counter] = {}
        self._took: dict[tuple[Operation, str], Histogram] = {}
        self._attempts: dict[tuple[str, str, ErrorCode | None], tuple[Counter, Histogram]] = {}
        self._tokens: dict[tuple[str, str, bool], Counter] = {}

    def __call__(self, request: RequestEnvelope, response: ResponseEnvelope) -> None:
        operation, error, backend = request.operation, response.result.error, response.backend
        code = None if error is None else error.code
        ended = self._ended.get((operation, code)) or self._count_end(operation, code)
        ended.add()
        if backend is not None:
            took = self._took.get((operation, backend.name)) or self._time_request(operation, backend.name)
            took.observe(backend.latency_ms / 1000)
            self._usage(backend.name, response.usage)
        for attempt in error.attempts if error is not None else backend.attempts if backend is not None else ():
            self._attempt(attempt)

    def _attempt(self, attempt: Attempt) -> None:
        key = (attempt.backend, attempt.outcome, attempt.error_code)
        count, seconds = self._attempts.get(key) or self._count_attempt(key)
        count.add()
        seconds.observe(attempt.elapsed_ms / 1000)

    def _usage(self, backend: str, usage: Usage) -> None:
        if usage.input_tokens:
            key = (backend, "input", usage.estimated)
            (self._tokens.get(key) or self._count_tokens(key)).add(usage.input_tokens)
        if usage.output_tokens:
            key = (backend, "output", usage.estimated)
            (self._tokens.get(key) or self._count_tokens(key)).add(usage.output_tokens)
        if usage.cost:
            self._counters.counter("cost_total", "Cost by the configured prices.", backend=backend).add(usage.cost)

    def _count_end(self, operation: Operation, code: ErrorCode | None) -> Counter:
        about = "Requests that ended, by how."
        found = self._ended[operation, code] = self._counters.counter(
            "requests_total", about, operation=operation.value, code="ok" if code is None else code.value
        )
        return found

    def _time_request(self, operation: Operation, backend: str) -> Histogram:
        about = "Seconds from a request's arrival to its answer."
        found = self._took[operation, backend] = self._counters.histogram(
            "request_seconds", about, operation=operation.value, backend=backend
        )
        return found

    def _count_attempt(self, key: tuple[str, str, ErrorCode | None]) -> tuple[Counter, Histogram]:
        backend, outcome, error = key
        about = "Attempts at a backend, by outcome and error."
        code = "none" if error is None else error.value
        count = self._counters.counter("attempts_total", about, backend=backend, outcome=outcome, code=code)
        about = "Seconds that an attempt took, however it ended."
        found = self._attempts[key] = (count, self._counters.histogram("attempt_seconds", about, backend=backend))
        return found

    def _count_tokens(self, key: tuple[str, str, bool]) -> Counter:
        backend, direction, estimated = key
        about = "Tokens used; estimated where the backend gave no count."
        labels = {"backend": backend, "direction": direction, "estimated": str(estimated).lower()}
        found = self._tokens[key] = self._counters.counter("tokens_total", about, **labels)
        return found
