"""A logger that imports structlog when it has a line to write: that import takes as long as all of Trio's."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final

LEVELS: Final[Mapping[str, int]] = {"debug": 10, "info": 20, "warning": 30, "error": 40, "critical": 50}


class LateLogger:
    """Has the methods of structlog's loggers. Lines below `threshold()` go nowhere and cost no import."""

    def __init__(self, make: Callable[[], Any], threshold: Callable[[], int], bound: Mapping[str, Any]) -> None:
        self._make = make
        self._threshold = threshold
        self._bound = bound
        self._made: Any = None

    def bind(self, **values: Any) -> LateLogger:
        return LateLogger(self._make, self._threshold, {**self._bound, **values})

    def debug(self, event: str, *args: Any, **values: Any) -> Any:
        return self._say("debug", event, args, values)

    def info(self, event: str, *args: Any, **values: Any) -> Any:
        return self._say("info", event, args, values)

    def __getattr__(self, name: str) -> Any:
        """Everything else: warnings and worse, which are written, and what is seldom used."""
        if name.startswith("__"):
            raise AttributeError(name)
        return getattr(self._logger(), name)

    def _say(self, level: str, event: str, args: tuple[Any, ...], values: dict[str, Any]) -> Any:
        if LEVELS[level] < self._threshold():
            return None
        return getattr(self._logger(), level)(event, *args, **values)

    def _logger(self) -> Any:
        if self._made is None:
            self._made = self._make().bind(**self._bound)
        return self._made
