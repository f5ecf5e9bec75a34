"""`[spear.redis]`: the address of a Redis or Valkey, which may hold a password and so is read like a key."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final
from urllib.parse import SplitResult, urlsplit

from spear.secrets import Secret

from ._credentials import UnusableCredential, from_environment, from_file, is_variable_name
from ._model import RedisConfig
from ._positions import Path
from ._read import Document, describe
from ._report import Report
from ._sections import build, durations, keys_of, only_known

_SOURCES: Final = ("env", "file", "url")
_SCHEMES: Final = ("redis", "rediss")
_EXPECTED: Final = 'expected a URL such as "redis://host:6379/0" (what stands there is not shown)'


def read_redis(
    report: Report, path: Path, values: object, document: Document, environ: Mapping[str, str]
) -> RedisConfig | None:
    if not isinstance(values, dict):
        report.add(path, f"is {describe(values)}; expected a table: [spear.redis]")
        return None
    known = keys_of(RedisConfig, without=("url", "source")) | set(_SOURCES)
    kept = only_known(report, values, path, known)
    given = [key for key in _SOURCES if key in kept]
    if len(given) != 1:
        report.add(
            path, f"has {' and '.join(f'`{key}`' for key in given) or 'none'} of {_names()}; expected one of them"
        )
        return None
    source = given[0]
    place = kept.pop(source)
    url = _url(report, (*path, source), source, place, document, environ)
    kept = durations(report, kept, path, ("lease_s",))
    shown = "url" if source == "url" else f"{source}:{place}"
    # A stand-in where there is no address, so that what else is wrong is reported, too.
    made = build(report, RedisConfig, {**kept, "url": "redis://", "source": shown}, path)
    return None if made is None or url is None else made.model_copy(update={"url": url})


def _names() -> str:
    return ", ".join(f"`{key}`" for key in _SOURCES)


def _url(
    report: Report, path: Path, source: str, place: object, document: Document, environ: Mapping[str, str]
) -> Secret | None:
    if not isinstance(place, str) or not place.strip():
        report.add(path, f"is {'empty' if place == '' else describe(place)}; expected a string")
        return None
    if source == "env" and not is_variable_name(place):
        report.add(path, "is not the name of an environment variable (letters, digits, _)")
        return None
    try:
        if source == "url":
            url: Secret | None = Secret(place)
        else:
            url = from_environment(place, environ) if source == "env" else from_file(document.folder / place)
    except UnusableCredential as error:
        report.add(path, str(error))
        return None
    if url is None:
        # Not like a missing key: a process that shares nothing would take all of a limit for itself.
        report.add(path, f"the {'variable' if source == 'env' else 'file'} is missing or empty")
        return None
    problem = _problem(url.reveal(), written=source == "url")
    if problem:
        report.add(path, problem)
        return None
    return url


def _problem(text: str, *, written: bool) -> str:
    """What is wrong with an address; it is not quoted."""
    try:
        parts: SplitResult = urlsplit(text)
        parts.port  # noqa: B018 -- raises on a port that is none
    except ValueError:
        return f"is not a URL; {_EXPECTED}"
    if parts.scheme not in _SCHEMES or not parts.hostname or not text.isprintable() or " " in text:
        return f"is no address of a Redis; {_EXPECTED}"
    if written and parts.password:
        return "holds a password, which never stands in a configuration; give the address by `env` or `file`"
    return ""
