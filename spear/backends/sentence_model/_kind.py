"""The kind and its adapter.

Options: `workers`, processes at a time (1 to 8, default 1; each takes 500 to 800 MiB); `threads` of each (1 to
64, default 1); `batch`, texts that are computed at once (1 to 256, default 32).
"""

from __future__ import annotations

import json
import sys
from collections.abc import AsyncGenerator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Final

import trio

from spear.backends._local import (
    Pool,
    Whole,
    Worker,
    broken,
    integer,
    may,
    not_done_here,
    only_known,
    start_worker,
)
from spear.backends._protocol import Adapter, Answer, Call, Host
from spear.config import InstanceConfig
from spear.ir import (
    BackendError,
    Capabilities,
    EmbeddingsRequest,
    EmbeddingsResult,
    ErrorCode,
    Failure,
    Feature,
    Hosting,
    Limits,
    Operation,
    RequestEnvelope,
    Transport,
    Usage,
    invalid_request,
    make_error,
    trusted,
)

from ._answers import DIMENSIONS, Counted, Row, TooLong, counted, rows

STEP: Final = "truncate_input"
"""The step of a request's `degradation` that allows to read the beginning of a text alone."""
MAX_TOKENS: Final = 256
"""That the model reads of a text, two marks at its ends included."""
MAX_BATCH: Final = 256
MAX_CHARS: Final = 262_144
START_SECONDS: Final = 120.0
HANG_SECONDS: Final = 30.0
HANG_EACH: Final = 2.0
"""A worker that has not ended after `HANG_SECONDS` and so many more for each text hangs. The longest text takes about
a seventh of a second on one thread of a busy machine."""
_PROGRAM: Final = str(Path(__file__).with_name("_worker.py"))
_OFFLINE: Final = {"HF_HUB_OFFLINE": "1", "TRANSFORMERS_OFFLINE": "1"}
_MODEL: Final = "all-MiniLM-L6-v2"

_result = trusted(EmbeddingsResult)


class _SentenceModel(Whole):
    def __init__(self, instance: InstanceConfig, pool: Pool) -> None:
        super().__init__(instance.name)
        self._model = (instance.model or "").strip() or _MODEL
        self._batch = _batch(instance)
        self._pool = pool

    async def invoke(self, request: RequestEnvelope, call: Call) -> Answer:
        wanted = request.payload
        if not isinstance(wanted, EmbeddingsRequest):
            raise not_done_here(request, "sentence_model does embeddings only")
        _check(request, wanted)
        work = {"texts": wanted.input, "batch": self._batch, "truncate": may(request, STEP)}
        said, found = await self._computed(json.dumps(work).encode(), len(wanted.input))
        if isinstance(said, TooLong):
            raise _too_long(said)
        usage = Usage(input_tokens=said.tokens, characters=sum(map(len, wanted.input)))
        return Answer(_told(wanted, found), usage, model=self._model, degraded=(STEP,) if said.cut else ())

    async def _computed(self, work: bytes, texts: int) -> tuple[Counted | TooLong, list[Row]]:
        async with self._pool.lease() as worker:
            with trio.move_on_after(HANG_SECONDS + HANG_EACH * texts):
                said, found = await _ask(worker, work)
                if len(found) != (texts if isinstance(said, Counted) else 0):
                    raise broken(f"it made {len(found)} vectors of {texts} texts")
                return said, found
            raise broken("it hangs")


async def _ask(worker: Worker, work: bytes) -> tuple[Counted | TooLong, list[Row]]:
    await worker.give(work)
    said = counted(await worker.next_piece())
    found: list[Row] = []
    while message := await worker.next_piece():
        found += rows(message)
    return said, found


def _check(request: RequestEnvelope, wanted: EmbeddingsRequest) -> None:
    chars = sum(map(len, wanted.input))
    if wanted.dimensions not in {None, DIMENSIONS}:
        raise not_done_here(request, f"dimensions: is {wanted.dimensions}; sentence_model does {DIMENSIONS} only")
    if not wanted.input:
        raise invalid_request("input", "is empty; at least one text is needed")
    if len(wanted.input) > MAX_BATCH:
        message = f"has {len(wanted.input)} texts; sentence_model takes at most {MAX_BATCH} in a call"
        raise invalid_request("input", message)
    if chars > MAX_CHARS:
        raise invalid_request("input", f"has {chars} characters; sentence_model takes at most {MAX_CHARS} in a call")


def _too_long(said: TooLong) -> BackendError:
    message = (
        f"input[{said.index}] has {said.tokens} tokens, and the model reads {MAX_TOKENS}; cut it into several texts, "
        f"or allow the degradation {STEP}"
    )
    return BackendError(make_error(ErrorCode.BACKEND_ERROR, message, retryable=False), Failure.CONTEXT_WINDOW)


def _told(wanted: EmbeddingsRequest, found: list[Row]) -> EmbeddingsResult:
    if wanted.encoding_format == "base64":
        return _result(base64=tuple(encoded for encoded, _ in found), dimensions=DIMENSIONS)
    return _result(vectors=tuple(numbers for _, numbers in found), dimensions=DIMENSIONS)


class _SentenceModelKind:
    name = "sentence_model"
    capabilities = Capabilities(
        ops=(Operation.EMBEDDINGS,),
        features=(Feature.BATCH, Feature.STREAM),
        transports=(Transport.IN_PROCESS,),
        limits=Limits(max_batch=MAX_BATCH, max_chars=MAX_CHARS),
        hosting=Hosting.LOCAL,
    )

    def check(self, instance: InstanceConfig) -> None:
        only_known(instance, "workers", "threads", "batch")
        _workers(instance)
        _threads(instance)
        _batch(instance)

    def open(self, instance: InstanceConfig, host: Host) -> AbstractAsyncContextManager[Adapter]:
        return _open(instance)


@asynccontextmanager
async def _open(instance: InstanceConfig) -> AsyncGenerator[Adapter, None]:
    command = (sys.executable, "-P", _PROGRAM, str(_threads(instance)))
    pool = Pool(_workers(instance), START_SECONDS, partial(start_worker, command, _OFFLINE))
    try:
        yield _SentenceModel(instance, pool)
    finally:
        await pool.close()


def _workers(instance: InstanceConfig) -> int:
    return integer(instance, "workers", 1, 1, 8)


def _threads(instance: InstanceConfig) -> int:
    return integer(instance, "threads", 1, 1, 64)


def _batch(instance: InstanceConfig) -> int:
    return integer(instance, "batch", 32, 1, MAX_BATCH)


KIND = _SentenceModelKind()
