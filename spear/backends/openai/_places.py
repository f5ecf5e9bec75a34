"""Where the operations are: one path for all models, or one for each deployment."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from typing import Final
from urllib.parse import quote

import httpx

Place = Callable[[str, str], httpx.URL]
"""The URL of an operation's path, such as `/chat/completions`, for a model."""
_KEPT: Final = 256


def openai_place(base_url: str) -> Place:
    """Below the base URL if that has `/v1` in it, else below its `/v1`."""
    base = base_url.rstrip("/")
    if "/v1" not in base:
        base += "/v1"

    @lru_cache(maxsize=_KEPT)
    def at(path: str) -> httpx.URL:
        return httpx.URL(base + path)

    return lambda path, model: at(path)


def azure_place(base_url: str, api_version: str) -> Place:
    """`{base}/openai/deployments/{model}{path}?api-version=…`: Azure's models are deployments, by the names that their
    owner gave them."""
    base = base_url.rstrip("/").removesuffix("/openai")

    @lru_cache(maxsize=_KEPT)
    def at(path: str, model: str) -> httpx.URL:
        deployment = quote(model, safe="")
        return httpx.URL(f"{base}/openai/deployments/{deployment}{path}?api-version={quote(api_version, safe='')}")

    return at
