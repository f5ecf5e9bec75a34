"""What the test server can be told to do, and the script that decides which request gets it.

The same models are built by the tests (a typo raises at the line that made it) and read from the control plane.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

Seconds = Annotated[float, Field(ge=0, le=86_400)]
Count = Annotated[int, Field(ge=0, le=1_000_000)]
Positive = Annotated[int, Field(ge=1, le=1_000_000)]
Informational = Annotated[int, Field(ge=100, le=199)]
HeaderText = Annotated[str, Field(pattern=r"^[\t -~]*$")]
HeaderName = Annotated[str, Field(pattern=r"^[A-Za-z0-9!#$%&'*+.^_`|~-]+$")]
OperationName = Literal[
    "chat", "models", "embeddings", "generations", "edits", "transcriptions", "translations", "speech"
]


class ToolCall(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    name: str
    arguments: str = "{}"  # as on the wire: JSON text, or whatever a confused model would write


class Drip(BaseModel):
    """The body leaves in pieces of `bytes`, one every `every` seconds."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    bytes: Positive = 1
    every: Seconds = 0.05


class Behaviour(BaseModel):
    """How one request is answered. Everything at its default is a well-behaved, deterministic server.

    Templates know {text} (the last user text), {tool} (the last tool result), {model}, {server}, {n} (request number).
    """

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    # --- the answer
    text: str = "echo: {text}"
    after_tool: str = "tool said: {tool}"
    tools: Literal["auto", "never"] | Annotated[tuple[ToolCall, ...], Field(strict=False)] = "auto"
    json_reply: Any = None  # the content, as JSON; None and response_format given: the smallest fitting value
    reasoning: str | None = None
    choices: Positive | None = None  # None: as many as the request's n
    finish_reason: str | None = None  # instead of the true one
    usage: bool | dict[str, Any] = True
    extra: dict[str, Any] = {}  # added to the answer's top level

    # --- how a stream is cut into events, and both into pieces
    delta_chars: Positive | None = None  # None: one word per delta
    argument_chars: Positive = 4  # tool-call arguments, characters per delta
    split: Positive | None = None  # bytes per piece on the wire; 1 tears every character apart
    newline: Literal["\n", "\r\n", "\r"] = "\n"

    # --- time
    delay: Seconds = 0  # before the first byte
    body_delay: Seconds = 0  # between the head and the body
    tokens_per_second: Annotated[float, Field(gt=0)] | None = None
    drip: Drip | None = None
    keepalive: Seconds | None = None  # SSE comments at this interval during body_delay
    keepalive_only: bool = False  # ... and nothing else, for ever
    never: bool = False  # no byte at all, until the client leaves

    # --- HTTP
    status: Annotated[int, Field(ge=200, le=599)] = 200
    retry_after: int | float | HeaderText | None = None
    error_message: str = "scripted failure"
    error_type: str = "server_error"
    error_code: str | None = None
    leak_key: bool = False  # the error's message repeats the caller's Authorization
    headers: dict[HeaderName, HeaderText] = {}
    content_type: HeaderText | None = None
    body: str | None = None  # this body, whatever it is: no JSON, a list, HTML
    body_base64: str | None = None  # the same, of bytes
    informational: Annotated[tuple[Informational, ...], Field(strict=False)] = ()
    early: bool = False  # answer as soon as the head of the request is there
    close: bool = False  # end the connection politely after the answer
    huge_body_mib: Annotated[int, Field(ge=1, le=1024)] | None = None
    huge_headers_kib: Annotated[int, Field(ge=1, le=16_384)] | None = None
    bad_http: bool = False  # bytes that are no HTTP at all

    # --- ends that are no ends
    cut: Literal["fin", "rst"] | None = None
    cut_after: Count | None = None  # None: before the first byte; n: the head and n body bytes, or n events
    finish: bool = True  # the stream's finish_reason is sent
    done: bool = True  # the stream's [DONE] is sent
    error_after: Count | None = None  # an error object instead of event n, then a clean end
    junk_after: Count | None = None  # event n is preceded by one that is no JSON


class Rule(BaseModel):
    """`does` for the next `times` requests that match (None: for all of them)."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    does: Behaviour
    times: Positive | None = None
    operation: OperationName = "chat"
    model: str | None = None
    stream: bool | None = None
    key: str | None = None  # what stands behind "Bearer"

    def matches(self, operation: str, model: str | None, stream: bool | None, authorization: str = "") -> bool:
        return (
            self.operation == operation
            and self.model in (None, model)
            and (self.stream is None or self.stream == stream)
            and (self.key is None or authorization == f"Bearer {self.key}")
        )


class Script:
    """Rules with a number of times come first, in the order given; then permanent ones, the newest first."""

    def __init__(self, rules: Iterable[Rule] = ()) -> None:
        self._limited: list[tuple[Rule, int]] = []
        self._permanent: list[Rule] = []
        for rule in rules:
            self.add(rule)

    def add(self, rule: Rule) -> None:
        if rule.times is None:
            self._permanent.insert(0, rule)
        else:
            self._limited.append((rule, rule.times))

    def clear(self) -> None:
        self._limited.clear()
        self._permanent.clear()

    def take(self, operation: str, model: str | None, stream: bool | None, authorization: str = "") -> Behaviour:
        for at, (rule, left) in enumerate(self._limited):
            if rule.matches(operation, model, stream, authorization):
                self._limited[at : at + 1] = [(rule, left - 1)] if left > 1 else []
                return rule.does
        for rule in self._permanent:
            if rule.matches(operation, model, stream, authorization):
                return rule.does
        return Behaviour()

    def take_early(self, operation: str, authorization: str = "") -> Behaviour | None:
        """The behaviour that does not wait for the body, if the next one is such; the model is not known yet."""
        for rule, _ in self._limited:
            if rule.matches(operation, None, None, authorization):
                return self.take(operation, None, None, authorization) if rule.does.early else None
        for rule in self._permanent:
            if rule.matches(operation, None, None, authorization):
                return rule.does if rule.does.early else None
        return None

    @property
    def waiting(self) -> int:
        """How many scripted answers nobody has asked for yet (permanent rules not counted)."""
        return sum(left for _, left in self._limited)
