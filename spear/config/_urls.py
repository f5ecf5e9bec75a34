"""Addresses in a configuration: secrets, and so never shown."""

from __future__ import annotations

from urllib.parse import urlsplit

from spear.secrets import Secret

from ._positions import Path
from ._read import describe
from ._report import Report


def checked_url(report: Report, value: object, path: Path) -> Secret | None:
    """The address as a secret. Whether it may be used is for the egress policy to say; here it has to be one."""
    text = value.reveal() if isinstance(value, Secret) else value
    problem = ""
    if not isinstance(text, str):
        problem = describe(text)
    elif not text.isprintable() or " " in text or not text:
        problem = "empty" if not text else "a string with blanks or control characters"
    else:
        try:
            parts = urlsplit(text)
            parts.port  # noqa: B018 -- raises on a port that is none
            problem = "" if parts.scheme else "a string without a scheme"
        except ValueError:
            problem = "not a URL"
    if problem:
        report.add(path, f'is {problem}; expected a URL such as "https://host/v1" (what stands there is not shown)')
        return None
    return Secret(str(text))
