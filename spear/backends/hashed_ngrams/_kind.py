"""The kind and its adapter.

Options: `dimensions`, of the vectors where the request does not say (16 to 2048, default 256).
"""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from functools import partial
from typing import Final

import trio

from spear.backends._local import Whole, integer, not_done_here, only_known
from spear.backends._protocol import Adapter, Answer, Call, Host
from spear.config import InstanceConfig
from spear.ir import (
    Capabilities,
    EmbeddingsRequest,
    EmbeddingsResult,
    Feature,
    Hosting,
    Limits,
    Operation,
    RequestEnvelope,
    Transport,
    Usage,
    invalid_request,
    trusted,
)

DIMENSIONS: Final = (16, 2048)
MAX_BATCH: Final = 2048
MAX_CHARS: Final = 10_000_000
MAX_NUMBERS: Final = 1_048_576
"""In one answer: texts times dimensions."""
_MODEL: Final = "hashed-ngrams"
_FEW: Final = 1000
"""Characters that take less than going to a thread."""
_A_TEXT: Final = 200
"""As many of them take as long as a text does, however short."""

_result = trusted(EmbeddingsResult)


class _HashedNgrams(Whole):
    def __init__(self, instance: InstanceConfig) -> None:
        super().__init__(instance.name)
        self._model = (instance.model or "").strip() or _MODEL
        self._dimensions = _dimensions(instance)
        self._loaded = False

    async def invoke(self, request: RequestEnvelope, call: Call) -> Answer:
        wanted = request.payload
        if not isinstance(wanted, EmbeddingsRequest):
            raise not_done_here(request, "hashed_ngrams does embeddings only")
        dimensions = wanted.dimensions or self._dimensions
        chars = sum(map(len, wanted.input))
        _check(len(wanted.input), chars, dimensions)
        if self._loaded and chars + _A_TEXT * (len(wanted.input) - 1) <= _FEW:
            result = _compute(wanted, dimensions, lambda: None)
            await trio.lowlevel.checkpoint()
        else:
            work = partial(_compute, wanted, dimensions, trio.from_thread.check_cancelled)
            result = await trio.to_thread.run_sync(work)  # the first one loads numpy, too
            self._loaded = True
        return Answer(result, Usage(input_tokens=-(-chars // 4), characters=chars, estimated=True), model=self._model)


def _check(texts: int, chars: int, dimensions: int) -> None:
    if not DIMENSIONS[0] <= dimensions <= DIMENSIONS[1]:
        raise invalid_request("dimensions", f"is {dimensions}; hashed_ngrams does {DIMENSIONS[0]} to {DIMENSIONS[1]}")
    if not texts:
        raise invalid_request("input", "is empty; at least one text is needed")
    if texts > MAX_BATCH:
        raise invalid_request("input", f"has {texts} texts; hashed_ngrams takes at most {MAX_BATCH} in a request")
    if chars > MAX_CHARS:
        raise invalid_request("input", f"has {chars} characters; hashed_ngrams takes at most {MAX_CHARS} in a request")
    if texts * dimensions > MAX_NUMBERS:
        message = f"{texts} texts times {dimensions} dimensions; hashed_ngrams answers at most {MAX_NUMBERS} numbers"
        raise invalid_request("input", message)


def _compute(wanted: EmbeddingsRequest, dimensions: int, pause: object) -> EmbeddingsResult:
    from ._vectors import as_base64, as_tuples, embed  # numpy: late

    assert callable(pause)
    rows = embed(wanted.input, dimensions, pause)
    if wanted.encoding_format == "base64":
        return _result(base64=as_base64(rows), dimensions=dimensions)
    return _result(vectors=as_tuples(rows, pause), dimensions=dimensions)


class _HashedNgramsKind:
    name = "hashed_ngrams"
    capabilities = Capabilities(
        ops=(Operation.EMBEDDINGS,),
        features=(Feature.BATCH, Feature.DIMENSIONS, Feature.STREAM),
        transports=(Transport.IN_PROCESS,),
        limits=Limits(max_batch=MAX_BATCH, max_chars=MAX_CHARS),
        hosting=Hosting.LOCAL,
    )

    def check(self, instance: InstanceConfig) -> None:
        only_known(instance, "dimensions")
        _dimensions(instance)

    def open(self, instance: InstanceConfig, host: Host) -> AbstractAsyncContextManager[Adapter]:
        return _open(instance)


@asynccontextmanager
async def _open(instance: InstanceConfig) -> AsyncGenerator[Adapter, None]:
    yield _HashedNgrams(instance)


def _dimensions(instance: InstanceConfig) -> int:
    return integer(instance, "dimensions", 256, *DIMENSIONS)


KIND = _HashedNgramsKind()
