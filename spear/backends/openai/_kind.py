"""The Kind objects: what they can do, what a configuration must have, and how an instance opens."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Final

from spear.backends._http import check_address, open_client
from spear.backends._protocol import Adapter, Host
from spear.config import InstanceConfig
from spear.ir import Capabilities, Feature, Operation, Transport

from ._adapter import OpenAIAdapter
from ._chat import ChatAdapter
from ._operation import Operations
from ._options import read_options
from ._places import azure_place, openai_place

_CHAT_FEATURES: Final = (
    Feature.STREAM,
    Feature.TOOLS,
    Feature.JSON_SCHEMA,
    Feature.SYSTEM_ROLE,
    Feature.IMAGE_INPUT,
    Feature.AUDIO_INPUT,
    Feature.AUDIO_OUTPUT,
    Feature.SEED,
)
_ALL: Final = Capabilities(
    ops=(
        Operation.CHAT_COMPLETIONS,
        Operation.EMBEDDINGS,
        Operation.IMAGE_GENERATION,
        Operation.SPEECH_TO_TEXT,
        Operation.TEXT_TO_SPEECH,
    ),
    features=(
        *_CHAT_FEATURES,
        Feature.BATCH,
        Feature.DIMENSIONS,
        Feature.MASK,
        Feature.TIMESTAMPS,
        Feature.LANGUAGE,
        Feature.DIARIZATION,
        Feature.VOICES,
        Feature.FORMATS,
    ),
    transports=(Transport.HTTP,),
)


class _OpenAIChatKind:
    name = "openai_chat_completion"
    capabilities = Capabilities(
        ops=(Operation.CHAT_COMPLETIONS,), features=_CHAT_FEATURES, transports=(Transport.HTTP,)
    )

    def check(self, instance: InstanceConfig) -> None:
        check_address(instance)
        if instance.options:
            raise ValueError(f"options.{min(instance.options)}: unknown; this kind has no options")

    def open(self, instance: InstanceConfig, host: Host) -> AbstractAsyncContextManager[Adapter]:
        self.check(instance)
        return _open_chat(instance, host)


class _OpenAIKind:
    name = "openai"
    capabilities = _ALL

    def check(self, instance: InstanceConfig) -> None:
        check_address(instance)
        read_options(instance.options)

    def open(self, instance: InstanceConfig, host: Host) -> AbstractAsyncContextManager[Adapter]:
        self.check(instance)
        return _open(instance, host)


class _AzureKind:
    """A model is a deployment, the key has a header of its own, and every address names a version."""

    name = "azure_openai"
    capabilities = _ALL

    def check(self, instance: InstanceConfig) -> None:
        check_address(instance)
        assert instance.base_url is not None
        if "?" in instance.base_url.reveal() or "/deployments/" in instance.base_url.reveal():
            raise ValueError("base_url: must be the resource alone, such as https://name.openai.azure.com")
        read_options(instance.options, azure=True)

    def open(self, instance: InstanceConfig, host: Host) -> AbstractAsyncContextManager[Adapter]:
        self.check(instance)
        return _open_azure(instance, host)


@asynccontextmanager
async def _open_chat(instance: InstanceConfig, host: Host) -> AsyncGenerator[Adapter, None]:
    async with open_client(instance, host) as client:
        yield ChatAdapter(client, openai_place(client.base))


@asynccontextmanager
async def _open(instance: InstanceConfig, host: Host) -> AsyncGenerator[Adapter, None]:
    async with open_client(instance, host) as client:
        yield OpenAIAdapter(Operations(client, openai_place(client.base), read_options(instance.options)))


@asynccontextmanager
async def _open_azure(instance: InstanceConfig, host: Host) -> AsyncGenerator[Adapter, None]:
    options = read_options(instance.options, azure=True)
    async with open_client(instance, host, key_header=_api_key) as client:
        yield OpenAIAdapter(Operations(client, azure_place(client.base, options.api_version), options))


def _api_key(key: bytes) -> tuple[bytes, bytes]:
    return b"api-key", key


CHAT_KIND = _OpenAIChatKind()
KIND = _OpenAIKind()
AZURE_KIND = _AzureKind()
