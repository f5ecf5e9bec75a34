"""The Kind object: what it can do, what a configuration must have, and how an instance opens."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Final

from spear.backends._http import check_address, open_client
from spear.backends._protocol import Adapter, Host
from spear.config import InstanceConfig
from spear.ir import Capabilities, Feature, Operation, Transport

from ._adapter import OllamaAdapter

_OPTIONS: Final = ("keep_alive", "options", "think")


class _OllamaKind:
    name = "ollama_chat"
    capabilities = Capabilities(
        ops=(Operation.CHAT_COMPLETIONS, Operation.EMBEDDINGS),
        features=(
            Feature.STREAM,
            Feature.TOOLS,
            Feature.JSON_SCHEMA,
            Feature.SYSTEM_ROLE,
            Feature.IMAGE_INPUT,
            Feature.BATCH,
            Feature.DIMENSIONS,
            Feature.SEED,
        ),
        transports=(Transport.HTTP,),
    )

    def check(self, instance: InstanceConfig) -> None:
        check_address(instance)
        for key, value in instance.options.items():
            if key not in _OPTIONS:
                raise ValueError(f"options.{key}: unknown; this kind has {', '.join(_OPTIONS)}")
            if key == "options" and not isinstance(value, dict):
                raise ValueError("options.options: must be a table of Ollama's own options, such as { num_ctx = 8192 }")
            if key == "keep_alive" and (isinstance(value, bool) or not isinstance(value, str | int | float)):
                raise ValueError('options.keep_alive: must be a number of seconds or a text such as "5m"')
            if key == "think" and not isinstance(value, bool) and value not in ("low", "medium", "high"):
                raise ValueError('options.think: must be true, false, "low", "medium" or "high"')

    def open(self, instance: InstanceConfig, host: Host) -> AbstractAsyncContextManager[Adapter]:
        self.check(instance)
        return _open(instance, host)


@asynccontextmanager
async def _open(instance: InstanceConfig, host: Host) -> AsyncGenerator[Adapter, None]:
    async with open_client(instance, host) as client:
        yield OllamaAdapter(client)


KIND = _OllamaKind()
