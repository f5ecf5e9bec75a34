"""Anthropic's dialect: the bodies of POST /v1/messages, and its stream."""

from __future__ import annotations

from ._anthropic_answer import is_error as is_error
from ._anthropic_answer import result_from_anthropic as result_from_anthropic
from ._anthropic_answer import usage_from_anthropic as usage_from_anthropic
from ._anthropic_request import anthropic_body as anthropic_body
from ._anthropic_stream import AnthropicStreamDecoder as AnthropicStreamDecoder
from ._chat_parts import schema_of as schema_of
