"""OpenAI's chat dialect: request bodies, chat.completion bodies, streams."""

from __future__ import annotations

from ._openai_body import body_from_result as body_from_result
from ._openai_body import fill_usage as fill_usage
from ._openai_body import result_from_body as result_from_body
from ._openai_limits import MAX_PARTS as MAX_PARTS
from ._openai_limits import PartCounter as PartCounter
from ._openai_limits import bracket_count as bracket_count
from ._openai_limits import check_answer_size as check_answer_size
from ._openai_limits import too_many_parts as too_many_parts
from ._openai_message import message_from_wire as message_from_wire
from ._openai_message import message_to_wire as message_to_wire
from ._openai_message import part_from_wire as part_from_wire
from ._openai_message import part_to_wire as part_to_wire
from ._openai_request import request_body as request_body
from ._openai_stream import ChatStreamDecoder as ChatStreamDecoder
from ._openai_stream import told_error as told_error
from ._provider_text import one_line as one_line
from ._provider_text import provider_error_text as provider_error_text
from ._sse import SseDecoder as SseDecoder
