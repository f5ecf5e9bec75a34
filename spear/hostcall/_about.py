"""spear_abi_version, spear_capabilities, spear_last_error: what a guest asks about the host, and about its own latest
failure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Final

from spear.hostcall import _json
from spear.hostcall._limits import MAX_EVENT_BYTES, MIB, Limits
from spear.hostcall._outbuf import put_out

if TYPE_CHECKING:
    from spear.hostcall._guest import Guest

MEDIA_TASK_BYTES: Final = 512 * MIB
"""Where the host does not say otherwise."""
RT_SESSIONS: Final = 4
RT_SESSION_MS: Final = 3_600_000
ABI_MAJOR: Final = 1
ABI_MINOR: Final = 1


def abi_version(guest: Guest) -> int:
    return ABI_MAJOR << 16 | ABI_MINOR


def capabilities(guest: Guest, out_ptr: int, out_len_ptr: int) -> int:
    offer = guest.offer()
    told = {
        "features": offer.features,
        "limits": _limits(guest.limits, offer.limits),
        "models": offer.models,
        "operations": offer.operations,
    }
    return put_out(guest.memory, _json.dump(told), out_ptr, out_len_ptr)


def _limits(limits: Limits, host: Mapping[str, int]) -> dict[str, int]:
    return {
        "max_asr_bytes": limits.asr_bytes,
        "max_body_bytes": limits.body_bytes,
        "max_emb_inputs": limits.emb_inputs,
        "max_event_queue_bytes": MAX_EVENT_BYTES,
        "max_fds": limits.open_fds,
        "max_inflight": limits.in_flight,
        "max_media_bytes": min(limits.media_bytes, host.get("max_media_bytes", limits.media_bytes)),
        "max_media_task_bytes": host.get("max_media_task_bytes", MEDIA_TASK_BYTES),
        "max_message_bytes": limits.message_bytes,
        "max_prompt_bytes": limits.prompt_bytes,
        "max_rt_session_ms": RT_SESSION_MS,
        "max_rt_sessions": RT_SESSIONS,
        "max_session_bytes": limits.session_text_bytes,
        "max_tts_bytes": limits.tts_bytes,
    }


def last_error(guest: Guest, out_ptr: int, out_len_ptr: int) -> int:
    return put_out(guest.memory, _json.dump(guest.last_error.value), out_ptr, out_len_ptr)
