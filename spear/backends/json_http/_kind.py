"""The Kind object: what it can do, what a configuration must have, and how an instance opens."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import AbstractAsyncContextManager, asynccontextmanager

from spear.backends._http import check_address, open_client
from spear.backends._protocol import Adapter, Host
from spear.config import InstanceConfig
from spear.ir import Capabilities, Feature, Transport

from ._adapter import JsonAdapter
from ._settings import OPERATIONS, read_settings


class _JsonHttpKind:
    name = "json_http"
    capabilities = Capabilities(
        ops=OPERATIONS,
        features=(Feature.SYSTEM_ROLE,),  # what else a server can do, only its owner knows: `features` says it
        transports=(Transport.HTTP,),
    )

    def check(self, instance: InstanceConfig) -> None:
        check_address(instance)
        described = read_settings(instance.options).operations
        names = ", ".join(f'"{each.value}"' for each in described)
        if instance.ops is None:
            raise ValueError(f"ops: is missing; this kind does what the options describe: ops = [{names}]")
        if missing := [each for each in instance.ops if each not in described]:
            raise ValueError(f"ops: {missing[0].value} is not described; options.{missing[0].value} would do that")

    def open(self, instance: InstanceConfig, host: Host) -> AbstractAsyncContextManager[Adapter]:
        self.check(instance)
        return _open(instance, host)


@asynccontextmanager
async def _open(instance: InstanceConfig, host: Host) -> AsyncGenerator[Adapter, None]:
    settings = read_settings(instance.options)

    def key_header(key: bytes) -> tuple[bytes, bytes]:
        return settings.key_header, settings.key_prefix + key

    async with open_client(instance, host, key_header=key_header, headers=settings.headers) as client:
        yield JsonAdapter(client, settings)


KIND = _JsonHttpKind()
