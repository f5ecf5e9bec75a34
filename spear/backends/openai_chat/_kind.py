"""The Kind object: what it can do, what a configuration must have, and how an instance opens."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import AbstractAsyncContextManager, asynccontextmanager

from spear.backends._protocol import Adapter, Host
from spear.config import InstanceConfig
from spear.egress import check_base_url, origin_of
from spear.ir import Capabilities, Feature, Operation, Transport

from ._adapter import OpenAIChatAdapter
from ._transport import PoolTransport


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
        if instance.base_url is None:
            raise ValueError(
                "base_url: is missing; write the address of the server, such as https://api.example.com/v1"
            )
        try:
            check_base_url(
                instance.base_url.reveal(), hosting=instance.hosting, allow_plaintext=instance.allow_plaintext
            )
        except ValueError as error:
            raise ValueError(f"base_url: {error}") from None
        if instance.options:
            raise ValueError(f"options.{min(instance.options)}: unknown; this kind has no options")

    def open(self, instance: InstanceConfig, host: Host) -> AbstractAsyncContextManager[Adapter]:
        self.check(instance)
        return _open(instance, host)


@asynccontextmanager
async def _open(instance: InstanceConfig, host: Host) -> AsyncGenerator[Adapter, None]:
    assert instance.base_url is not None
    transport = PoolTransport(origin_of(instance.base_url.reveal()))
    try:
        yield OpenAIChatAdapter(instance, host, transport)
    finally:
        await transport.aclose()


KIND = _OpenAIChatKind()
