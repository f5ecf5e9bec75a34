"""What one guest may use. Every limit has a default; the numbers are those of the guest ABI."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

MIB: Final = 1024 * 1024

MODULE_BYTES: Final = 100 * MIB
LOG_MESSAGE_BYTES: Final = 16_384
LOG_RING_RECORDS: Final = 2048
CLOSED_FDS_KEPT: Final = 65_536
WATCHES: Final = 16_384
MAX_EVENTS: Final = 1024
"""Of one stream, that wait to be read; beyond, its backend is not read on."""
MAX_EVENT_BYTES: Final = 4 * MIB
MAX_PARTS: Final = 64


@dataclass(frozen=True, slots=True)
class Limits:
    """Caps of one guest instance. Sizes are bytes, times seconds."""

    memory_bytes: int = 256 * MIB  # of its linear memory: memory.grow gives -1 beyond
    table_elements: int = 65_536  # of each table: table.grow gives -1 beyond
    instances: int = 1
    tables: int = 8
    memories: int = 1
    open_fds: int = 1024
    watched_fds: int = 1024  # per epoll
    watches: int = WATCHES  # over all epolls; closed descriptors stay in the table while they are watched
    role_bytes: int = 256
    message_bytes: int = 4 * MIB
    param_bytes: int = MIB
    tool_bytes: int = 64 * 1024
    session_messages: int = 4096
    session_text_bytes: int = 16 * MIB
    session_tools: int = 256
    session_params: int = 256
    session_json_values: int = 32_768  # in its tools and parameters: what a send has to build anew each time
    held_bytes: int = 64 * MIB  # of all sessions and response bodies together, as `_holdings` counts them
    body_bytes: int = 16 * MIB
    tool_nesting: int = 4
    extra_params: int = 64  # of one request of a family: those that only the adapter knows
    emb_inputs: int = 2048
    emb_input_bytes: int = MIB
    emb_bytes: int = 16 * MIB
    prompt_bytes: int = 128 * 1024  # of img
    tts_bytes: int = 256 * 1024
    asr_bytes: int = 64 * MIB
    audio_held_bytes: int = 128 * MIB  # of all asr requests together
    media_write_bytes: int = 4 * MIB  # of one media_write or asr_write
    media_bytes: int = 64 * MIB  # of one object
    inline_media_bytes: int = 64 * 1024  # more than this is stored
    in_flight: int = 32  # requests that were sent with ASYNC or STREAM and have not ended
    stretch_s: float = 0.5  # CPU seconds in one go without passing a loop header or a function entry
    log_bytes: int = MIB  # of the messages kept for the result; the newest stays in any case
    stdio_bytes: int = MIB  # of captured stdout, and again of stderr
