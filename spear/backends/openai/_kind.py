"""The Kind object: what it can do, what a configuration must have, and how an instance opens."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import AbstractAsyncContextManager, asynccontextmanager

from spear.backends._http import check_address, open_client
from spear.backends._protocol import Adapter, Host
from spear.config import InstanceConfig
from spear.ir import Capabilities, Feature, Operation, Transport

from ._chat import ChatAdapter


class _OpenAIChatKind:
    name = "openai_chat_completion"
    capabilities = Capabilities(
        ops=(Operation.CHAT_COMPLETIONS,),
        features=(
            Feature.STREAM,
            Feature.TOOLS,
            Feature.JSON_SCHEMA,
            Feature.SYSTEM_ROLE,
            Feature.IMAGE_INPUT,
            Feature.AUDIO_INPUT,
            Feature.AUDIO_OUTPUT,
            Feature.SEED,
        ),
        transports=(Transport.HTTP,),
    )

    def check(self, instance: InstanceConfig) -> None:
        check_address(instance)
        if instance.options:
            raise ValueError(f"options.{min(instance.options)}: unknown; this kind has no options")

    def open(self, instance: InstanceConfig, host: Host) -> AbstractAsyncContextManager[Adapter]:
        self.check(instance)
        return _open(instance, host)


@asynccontextmanager
async def _open(instance: InstanceConfig, host: Host) -> AsyncGenerator[Adapter, None]:
    async with open_client(instance, host) as client:
        yield ChatAdapter(client)


KIND = _OpenAIChatKind()
