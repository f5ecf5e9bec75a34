"""The response to a chat send: a body, or the events of a stream, and the tool that is due while a loop runs."""

from __future__ import annotations

from typing import Any

from spear.hostcall._requests import Requests
from spear.hostcall._response import Response
from spear.ir import CanonicalError
from spear.normalize import body_from_error


class ChatResponse(Response):
    kind = "ChatResponse"
    __slots__ = ("round",)

    def __init__(self, requests: Requests, *, stream: bool = False) -> None:
        super().__init__(requests, "cchat_send", stream=stream)
        self.round = 0

    def error_body(self, error: CanonicalError) -> dict[str, Any]:
        return dict(body_from_error(error))

    def error_event(self, error: CanonicalError) -> dict[str, Any]:
        return {**super().error_event(error), "round": self.round}
