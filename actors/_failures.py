"""What an incarnation died of, as a list of exceptions. Pure."""

from __future__ import annotations

__all__ = ["bare", "merge"]


def merge(crash: Exception | None, error: Exception | None) -> tuple[Exception, ...]:
    """The failures of one incarnation: the crash, and what the lifespan's exit raised instead of or beside it."""
    if error is None:
        return () if crash is None else (crash,)
    error = bare(error)
    if crash is None:
        return (error,)
    rest = [leaf for leaf in _leaves(error) if leaf is not crash]
    return (crash, error) if rest else (crash,)


def bare(error: Exception) -> Exception:
    while isinstance(error, ExceptionGroup) and len(error.exceptions) == 1:
        error = error.exceptions[0]
    return error


def _leaves(error: BaseException) -> list[BaseException]:
    if isinstance(error, BaseExceptionGroup):
        return [leaf for inner in error.exceptions for leaf in _leaves(inner)]
    return [error]
