"""Taking secrets out of what is about to be written. Pure.

Three nets, because each has holes: the names of keys, the look of values, and the very secrets that the loaded
configuration holds. What is cut is replaced by `[redacted]`, so that a reader sees that something was there.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from typing import Any, Final
from urllib.parse import quote, urlsplit

from spear.secrets import Secret

MASK: Final = "[redacted]"
MAX_DEPTH: Final = 8
SHORTEST_SECRET: Final = 4
"""A known value shorter than this is no secret, and cutting it out of every word would leave nothing readable."""

# Compared without case, `-` and `_`. As endings, so that `openai_api_key` is caught and `input_tokens` is not.
_KEY_ENDINGS: Final = (
    "authorization", "apikey", "token", "secret", "password", "passwd", "passphrase", "privatekey", "baseurl", "cookie",
)  # fmt: skip

_LOOKS_SECRET: Final = re.compile(
    r"(?P<scheme>\bBearer\s+)[^\s\"',;]+"
    r"|(?P<basic>(?-i:\bBasic\s+))[A-Za-z0-9+/]{8,}={0,2}"
    r"|(?P<user>://)[^/\s@\"']+@"
    r"|\b(?:sk|pk|rk|xai|gsk|ghp|hf)[-_][A-Za-z0-9_-]{6,}"
    r"|\beyJ[A-Za-z0-9_-]{8,}(?:\.[A-Za-z0-9_-]*){1,2}"
    # A long run with letters and digits: a key, or a digest nobody reads. Ids of ours are shorter.
    r"|(?<![A-Za-z0-9_-])(?=[A-Za-z0-9_-]*[0-9])(?=[A-Za-z0-9_-]*[A-Za-z])[A-Za-z0-9_-]{40,}",
    re.IGNORECASE,
)


class Redactor:
    """Cuts secrets out of texts and of the nested values around them; also a structlog processor."""

    def __init__(self, secrets: Iterable[Secret] = ()) -> None:
        forms = {form for secret in secrets for form in _forms(secret.reveal()) if len(form) >= SHORTEST_SECRET}
        # Longest first: a secret that contains another goes as a whole.
        ordered = sorted(forms, key=lambda form: (-len(form), form))
        self._known = re.compile("|".join(map(re.escape, ordered))) if ordered else None

    def __repr__(self) -> str:
        return "Redactor()"

    def text(self, text: str) -> str:
        if self._known is not None:
            text = self._known.sub(MASK, text)
        return _LOOKS_SECRET.sub(_mask, text)

    def value(self, value: object, depth: int = 0) -> Any:
        """`value` made of strings, numbers, booleans, None, lists and dicts only, without secrets."""
        if value is None or isinstance(value, bool | int | float):
            return value
        if isinstance(value, str):
            return self.text(str(value))
        if isinstance(value, Secret):
            return MASK
        if depth >= MAX_DEPTH:
            return "[too deep]"
        if isinstance(value, Mapping):
            return {self.text(str(key)): self._item(str(key), item, depth) for key, item in value.items()}
        if isinstance(value, list | tuple | set | frozenset):
            return [self.value(item, depth + 1) for item in value]
        return self.text(_repr(value))

    def __call__(self, logger: object, method: str, event: Mapping[str, Any]) -> dict[str, Any]:
        return {key: self._item(key, value, 0) for key, value in event.items()}

    def _item(self, key: str, value: object, depth: int) -> Any:
        if names_a_secret(key) and value is not None and not isinstance(value, bool | int | float):
            return MASK
        return self.value(value, depth + 1)


def names_a_secret(key: str) -> bool:
    return key.lower().replace("-", "").replace("_", "").endswith(_KEY_ENDINGS)


def _mask(found: re.Match[str]) -> str:
    if before := found["scheme"] or found["basic"]:
        return f"{before}{MASK}"
    return f"{found['user']}{MASK}@" if found["user"] else MASK


def _forms(secret: str) -> Iterable[str]:
    """How a secret may come back in a text: as it is, quoted for a URL, escaped for JSON; of an address also its
    host."""
    yield secret
    yield quote(secret, safe="")
    yield repr(secret)[1:-1]
    yield json.dumps(secret)[1:-1]
    yield json.dumps(secret, ensure_ascii=False)[1:-1]
    if "://" in secret:
        yield secret.rstrip("/")
        try:
            parts = urlsplit(secret)
        except ValueError:
            return
        yield parts.netloc
        yield parts.netloc.lower()
        if "." in (parts.hostname or ""):
            yield parts.hostname or ""


def _repr(value: object) -> str:
    try:
        return repr(value)
    except Exception as error:  # noqa: BLE001 -- a broken repr must not end the turn that logs it
        return f"<{type(value).__name__}, whose repr raises {type(error).__name__}>"
