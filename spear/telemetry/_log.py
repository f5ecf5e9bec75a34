"""Structured logs that are nobody else's business: no structlog.configure, no handler on the root logger.

Loggers of `get_logger` write through one output of this process. It says warnings and worse on stderr until
`configure_logging`, which a program calls and a library never does. A runtime announces its secrets for as long as it
lives with `redacting`. Context does not travel in context variables, because actors run in fresh contexts: bind what
belongs to a line, `log = get_logger("spear.router").bind(actor=path)`.
"""

from __future__ import annotations

import sys
import threading
from collections import Counter
from collections.abc import Iterable, Iterator, MutableMapping
from contextlib import contextmanager
from functools import cache
from typing import TYPE_CHECKING, Any, Final, Literal, TextIO, cast

from spear.ir import dump_json
from spear.secrets import Secret

from ._late_logger import LEVELS as _LEVELS
from ._late_logger import LateLogger
from ._redact import LogRedactor

if TYPE_CHECKING:
    from structlog.typing import FilteringBoundLogger

Level = Literal["debug", "info", "warning", "error"]
Format = Literal["console", "json"]


class LogOutput:
    """Where lines go, from which level on, in which form. One per process; tests make their own.

    A line that cannot be written is counted in `lost` and otherwise ignored: the program goes on without its log.
    """

    def __init__(self, level: Level = "warning", format: Format = "console", stream: TextIO | None = None) -> None:  # noqa: A002
        self.lost = 0
        self._lock = threading.Lock()
        self._secrets: Counter[Secret] = Counter()
        self._redactor: LogRedactor | None = None  # made when a line needs it: of a thousand addresses it takes a while
        self._console: Any = None
        self.configure(level, format, stream)

    def configure(self, level: Level, format: Format, stream: TextIO | None) -> None:  # noqa: A002
        if level not in _LEVELS:
            raise ValueError(f"unknown level; expected one of {', '.join(_LEVELS)}")
        if format not in {"console", "json"}:
            raise ValueError('unknown format; expected "console" or "json"')
        self._from, self._format, self._stream = _LEVELS[level], format, stream
        self._console = None

    def get_logger(self, name: str) -> FilteringBoundLogger:
        """A logger whose lines carry `logger=name`. Cheap; loggers made before `configure` follow it."""
        logger = LateLogger(self._wrapped, lambda: self._from, {"logger": name})
        return cast("FilteringBoundLogger", logger)

    def _wrapped(self) -> Any:
        import structlog

        return structlog.wrap_logger(
            self,
            processors=[self._process],
            wrapper_class=structlog.make_filtering_bound_logger(_LEVELS["debug"]),
            context_class=dict,
        )

    @contextmanager
    def redacting(self, secrets: Iterable[Secret]) -> Iterator[None]:
        """While the block lasts, cut these secrets out of every line. Blocks may overlap and end in any order."""
        ours = Counter(secret for secret in secrets if secret)
        with self._lock:
            self._secrets += ours
            self._redactor = None
        try:
            yield
        finally:
            with self._lock:
                self._secrets -= ours
                self._redactor = None

    def msg(self, line: str) -> None:
        """Write one line; structlog calls it by the names of the levels."""
        with self._lock:
            try:
                stream = self._stream or sys.stderr
                stream.write(line + "\n")
                stream.flush()
            except (OSError, ValueError, AttributeError):  # closed, broken pipe, no stderr at all
                self.lost += 1

    debug = info = warning = error = critical = exception = fatal = log = msg

    def _process(self, logger: object, method: str, event: MutableMapping[str, Any]) -> str:
        import structlog

        level = "error" if method == "exception" else method
        if _LEVELS.get(level, 50) < self._from:
            raise structlog.DropEvent
        event = _timestamp()(logger, method, event)
        event["level"] = level
        event = structlog.processors.format_exc_info(logger, method, event)
        clean = {key: _printable(value) for key, value in self._current()(logger, method, event).items()}
        if self._format == "json":
            return dump_json(clean).decode()
        return str(self._renderer()(logger, method, clean))

    def _current(self) -> LogRedactor:
        with self._lock:
            if self._redactor is None:
                self._redactor = LogRedactor(self._secrets)
            return self._redactor

    def _renderer(self) -> Any:
        if self._console is None:
            import structlog

            stream = self._stream or sys.stderr
            self._console = structlog.dev.ConsoleRenderer(
                colors=stream is not None and stream.isatty(),
                # Never the rich one: it shows local variables.
                exception_formatter=structlog.dev.plain_traceback,
                pad_event_to=0,
            )
        return self._console


@cache
def _timestamp() -> Any:
    import structlog

    return structlog.processors.TimeStamper(fmt="iso", utc=True)


_output: Final = LogOutput()


def get_logger(name: str) -> FilteringBoundLogger:
    """A logger of this process's output; may be called at import."""
    return _output.get_logger(name)


def configure_logging(
    level: Level = "warning",
    format: Format = "console",  # noqa: A002
    stream: TextIO | None = None,
) -> None:
    """Say where the lines of this process's loggers go, from which level on; None = stderr, as it is at that moment.
    For programs: a library leaves it alone."""
    _output.configure(level, format, stream)


@contextmanager
def redacting(secrets: Iterable[Secret]) -> Iterator[None]:
    """While the block lasts, cut these secrets out of every line of this process's loggers."""
    with _output.redacting(secrets):
        yield


def _printable(value: Any) -> Any:
    """Without what a terminal would obey or UTF-8 cannot say: a guest's text is in here."""
    if isinstance(value, str):
        if value.isprintable():
            return value
        return "".join(c if c.isprintable() or c in "\n\t" else c.encode("unicode_escape").decode() for c in value)
    if isinstance(value, dict):
        return {_printable(key): _printable(item) for key, item in value.items()}
    return [_printable(item) for item in value] if isinstance(value, list) else value
