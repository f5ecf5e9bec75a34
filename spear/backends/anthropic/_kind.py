"""The Kind object: what it can do, what a configuration must have, and how an instance opens."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from typing import Final

from pydantic import JsonValue

from spear.backends._http import check_address, open_client
from spear.backends._protocol import Adapter, Host
from spear.config import InstanceConfig
from spear.ir import Capabilities, Feature, Operation, Transport

from ._adapter import AnthropicAdapter

VERSION: Final = "2023-06-01"
MAX_TOKENS: Final = 4096
_OURS: Final = frozenset({"model", "messages", "system", "tools", "stream", "max_tokens"})


@dataclass(frozen=True, slots=True)
class _Options:
    version: str
    beta: tuple[str, ...]
    body: dict[str, JsonValue]
    """What a request's body has unless the request says otherwise."""
    sampling: bool
    """Whether `temperature` and `top_p` may be sent: newer models, and versions of the API after the first, refuse
    them."""


class _AnthropicKind:
    name = "anthropic"
    capabilities = Capabilities(
        ops=(Operation.CHAT_COMPLETIONS,),
        features=(
            Feature.STREAM,
            Feature.TOOLS,
            Feature.JSON_SCHEMA,
            Feature.SYSTEM_ROLE,
            Feature.IMAGE_INPUT,
        ),
        transports=(Transport.HTTP,),
    )

    def check(self, instance: InstanceConfig) -> None:
        check_address(instance)
        _options(instance)

    def open(self, instance: InstanceConfig, host: Host) -> AbstractAsyncContextManager[Adapter]:
        self.check(instance)
        return _open(instance, host)


@asynccontextmanager
async def _open(instance: InstanceConfig, host: Host) -> AsyncGenerator[Adapter, None]:
    options = _options(instance)
    headers = [(b"anthropic-version", options.version.encode())]
    if options.beta:
        headers.append((b"anthropic-beta", ",".join(options.beta).encode()))
    async with open_client(instance, host, key_header=_key_header, headers=tuple(headers)) as client:
        yield AnthropicAdapter(client, options.body, sampling=options.sampling)


def _key_header(key: bytes) -> tuple[bytes, bytes]:
    return b"x-api-key", key


def _options(instance: InstanceConfig) -> _Options:
    """Raises ValueError."""
    given = dict(instance.options)
    version = given.pop("version", VERSION)
    if not _is_token(version):
        raise ValueError(f'options.version: must be a version of the API such as "{VERSION}"')
    beta = given.pop("beta", [])
    if not isinstance(beta, list) or not all(_is_token(each) for each in beta):
        raise ValueError("options.beta: must be a list of names of beta features")
    most = given.pop("max_tokens", MAX_TOKENS)
    if type(most) is not int or most < 1:
        raise ValueError("options.max_tokens: must be a whole number of at least 1")
    body = given.pop("body", {})
    if not isinstance(body, dict):
        raise ValueError("options.body: must be a table of keys of the request's body")
    if ours := sorted(_OURS & body.keys()):
        raise ValueError(f"options.body.{ours[0]}: is not for the configuration to say here")
    sampling = given.pop("sampling", version == VERSION)
    if not isinstance(sampling, bool):
        raise ValueError("options.sampling: must be true or false")
    if given:
        raise ValueError(f"options.{min(given)}: unknown; this kind has beta, body, max_tokens, sampling, version")
    names = tuple(each for each in beta if isinstance(each, str))
    return _Options(str(version), names, {**body, "max_tokens": most}, sampling)


def _is_token(value: JsonValue) -> bool:
    return (
        isinstance(value, str) and value.isascii() and value.isprintable() and 0 < len(value) <= 64 and "," not in value
    )


KIND = _AnthropicKind()
