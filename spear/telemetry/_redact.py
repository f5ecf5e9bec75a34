"""Taking secrets out of what is about to be written. Pure.

Three nets, because each has holes: the names of keys here, and in `Redactor` the look of values and the very secrets
that the loaded configuration holds. A mask in the place of what was cut tells a reader that something was there.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Final

from spear.secrets import MASK, Redactor, Secret

MAX_DEPTH: Final = 8
# Compared without case, `-` and `_`. As endings, so that `openai_api_key` is caught and `input_tokens` is not.
_KEY_ENDINGS: Final = (
    "authorization", "apikey", "token", "secret", "password", "passwd", "passphrase", "privatekey", "baseurl", "cookie",
)  # fmt: skip


class LogRedactor:
    """Cuts secrets out of texts and of the nested values around them; also a structlog processor."""

    def __init__(self, secrets: Iterable[Secret] = ()) -> None:
        self.text: Final = Redactor(secrets)

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


def _repr(value: object) -> str:
    try:
        return repr(value)
    except Exception as error:  # noqa: BLE001 -- a broken repr must not end the turn that logs it
        return f"<{type(value).__name__}, whose repr raises {type(error).__name__}>"
