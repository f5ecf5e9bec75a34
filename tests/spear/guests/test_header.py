"""spear.h: its numbers and imports are those of the ABI, its helpers keep the conventions."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
import wasmtime
from hypothesis import example, given, settings
from hypothesis import strategies as st

import spear.guests
from tests.spear.guests.fake_host import FakeHost, compact, completion, load

HERE = Path(__file__).parent
CHECK = HERE / "header_check.wasm"

SIGNATURES = {
    "() -> i64": "time_now_ms wall_time_s random_i64",
    "i32 ->": "sleep_ms",
    "() -> i32": "cchat_create rtasr_create mic_create user_stream_ctl_open spear_epoll_create",
    "i32 -> i32": "cchat_close rtasr_close mic_close user_stream_close spear_epoll_close",
    "i32 i32 -> i32": "cchat_send user_stream_open",
    "i32 i32 i32 -> i32": "log rtasr_write user_stream_write cchat_recv rtasr_read mic_read user_stream_read "
    "user_stream_ctl_read",
    "i32 i32 i32 i32 -> i32": "cchat_write_fn cchat_ctl rtasr_ctl mic_ctl spear_fd_ctl spear_epoll_ctl "
    "spear_epoll_wait",
    "i32 i32 i32 i32 i32 -> i32": "cchat_write_msg",
}
FAMILIES = ("emb", "img", "asr", "tts")
FAMILY_SIGNATURES = {
    "() -> i32": "create",
    "i32 -> i32": "close",
    "i32 i32 -> i32": "send",
    "i32 i32 i32 -> i32": "write recv",
    "i32 i32 i32 i32 -> i32": "ctl",
}
HOST_SIGNATURES = {
    "() -> i32": "spear_abi_version",
    "i32 i32 -> i32": "spear_capabilities spear_last_error",
    "i32 i32 i32 i32 i32 -> i32": "cchat_write_parts",
}
MEDIA_SIGNATURES = {
    "i32 -> i32": "close",
    "i32 i32 -> i32": "create open",
    "i32 i32 i32 -> i32": "write commit read",
}
NUMBERS = {
    "EPERM ENOENT EIO EBADF EAGAIN ENOMEM EACCES EFAULT EINVAL ENOSPC EPIPE ENOSYS": (
        1, 2, 5, 9, 11, 12, 13, 14, 22, 28, 32, 38,
    ),
    "OK ECONNRESET ENOTCONN ETIMEDOUT": (0, 104, 107, 110),
    "LOG_TRACE LOG_DEBUG LOG_INFO LOG_WARN LOG_ERROR": (0, 1, 2, 3, 4),
    "CCHAT_SET_PARAM CCHAT_GET_METRICS CCHAT_ENABLE_METRICS CCHAT_AUTO_TOOL_CALL": (1, 2, 1, 2),
    "CCHAT_STREAM CCHAT_ASYNC ABI_1_1 MAX_PARTS EVENTS_QUEUED": (4, 8, 65_537, 64, 1024),
    "RTASR_SET_PARAM RTASR_CONNECT RTASR_GET_STATUS RTASR_SEND_EVENT RTASR_FLUSH RTASR_CLEAR": (1, 2, 3, 4, 5, 6),
    "RTASR_SET_AUTOFLUSH RTASR_GET_AUTOFLUSH MIC_SET_PARAM MIC_GET_STATUS": (7, 8, 1, 2),
    "STREAM_INBOUND STREAM_OUTBOUND STREAM_BIDIRECTIONAL": (1, 2, 3),
    "STREAM_CONNECTED STREAM_SESSION_CLOSED": (1, 2),
    "EPOLL_CTL_ADD EPOLL_CTL_MOD EPOLL_CTL_DEL EPOLLIN EPOLLOUT EPOLLERR EPOLLHUP": (1, 2, 3, 1, 4, 8, 16),
    "FD_SET_FLAGS FD_GET_FLAGS FD_GET_KIND FD_GET_STATUS FD_GET_METRICS": (1, 2, 3, 4, 5),
    "FIRST_FD MAX_LOG_BYTES MAX_STREAM_FRAME_BYTES": (1000, 16_384, 262_144),
    "OP_SET_PARAM OP_GET_METRICS OP_GET_STATUS OP_METRICS OP_STREAM OP_ASYNC": (1, 2, 3, 1, 4, 8),
    "MAX_EMB_INPUTS MAX_EMB_INPUT_BYTES MAX_PROMPT_BYTES MAX_TTS_BYTES": (2048, 1 << 20, 1 << 17, 1 << 18),
    "MAX_WRITE_BYTES MAX_READ_BYTES": (4 << 20, 1 << 20),
    "READ_BYTES READ_STATUS_BYTES READ_RETRIES TOOL_OUTPUT_BYTES": (65_536, 8192, 3, 65_536),
}  # fmt: skip

# C strings end at the first NUL, and the ABI's outputs carry none; lone surrogates are not UTF-8.
guest_text = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=200)


def test_the_numbers_are_those_of_the_abi():
    header = spear.guests.path("spear.h").read_text(encoding="ascii")
    written = {name: int(value, 0) for name, value in re.findall(r"\bSPEAR_(\w+) = (\w+)", header)}
    expected = {
        name: value for names, values in NUMBERS.items() for name, value in zip(names.split(), values, strict=True)
    }
    assert written == expected


def test_the_imports_are_those_of_the_abi():
    seen = {}
    for one in load(HERE / "all_imports.wasm").imports:
        if one.module == "spear":
            assert isinstance(one.type, wasmtime.FuncType)
            params = " ".join(map(str, one.type.params)) or "()"
            seen[one.name] = f"{params} -> {' '.join(map(str, one.type.results))}".strip()
    expected = {name: signature for signature, names in SIGNATURES.items() for name in names.split()}
    assert len(expected) == 32
    for family in FAMILIES:
        for signature, names in FAMILY_SIGNATURES.items():
            expected |= {f"{family}_{name}": signature for name in names.split()}
    for signature, names in MEDIA_SIGNATURES.items():
        expected |= {f"media_{name}": signature for name in names.split()}
    expected |= {name: signature for signature, names in HOST_SIGNATURES.items() for name in names.split()}
    assert seen == expected


def body_host(body):
    return FakeHost(body_of=lambda session: body if isinstance(body, bytes) else compact(body).encode())


@pytest.mark.parametrize("size", [0, 1, 65_535, 65_536, 65_537, 3_000_000])
def test_a_body_of_any_size_is_read_whole(size):
    host = body_host(b"x" * size)
    assert host.run(CHECK, "read_body") == size
    assert host.reads == (1 if size <= 65_536 else 2)


def test_a_body_that_keeps_growing_is_given_up_after_three_retries():
    class Growing(FakeHost):
        def recv(self, caller, fd, out, out_len):
            self.objects[fd] = b"x" * (70_000 + 10_000 * self.reads)
            return super().recv(caller, fd, out, out_len)

    host = Growing()
    assert host.run(CHECK, "read_body") == -28
    assert host.reads == 4


def test_a_host_that_says_too_small_but_reports_less_is_not_asked_for_ever():
    class Confused(FakeHost):
        def recv(self, caller, fd, out, out_len):
            self.reads += 1
            self.write(caller, out_len, (10).to_bytes(4, "little"))
            return -28

    host = Confused()
    assert host.run(CHECK, "read_body") == -28
    assert host.reads == 1


@given(guest_text)
@example('quote " backslash \\ slash / newline \n tab \t bell \a delete \x7f')
@example("ż 漢 🐢 \u2028 \ufffd")
@settings(deadline=None)
def test_text_survives_the_way_from_the_host_and_back(text):
    host = body_host(completion(text))
    assert host.run(CHECK, "echo_content") == 0
    assert host.stdout.decode() == text
    assert host.sessions[0].params == {"echo": text}


@given(guest_text)
@settings(deadline=None)
def test_escaped_characters_are_read_too(text):
    """A host need not escape non-ASCII, but a body that passes unchanged may."""
    host = body_host(json.dumps(completion(text), separators=(",", ":")).encode())
    assert host.run(CHECK, "echo_content") == 0
    assert host.stdout.decode() == text


@given(st.binary(max_size=120).map(lambda tail: b'{"content":"' + tail.replace(b"\0", b"")))
@example(b'{"content":"\\')
@example(b'{"content":"\\u12')
@example(b'{"content":"\\ud83d\\u')
@example(b'{"content":"never ends')
@settings(deadline=None)
def test_broken_json_never_crashes_the_reader(body):
    body_host(body).run(CHECK, "echo_content")


@pytest.mark.parametrize("body", [completion(None), {"error": {"message": "no"}}, [], {"content": 7}])
def test_no_content_is_seen_as_such(body):
    assert body_host(body).run(CHECK, "echo_content") == 1


def test_a_lone_surrogate_becomes_a_replacement_character():
    host = FakeHost(body_of=lambda session: b'{"content":"a\\ud83dz\\udc22"}')
    host.run(CHECK, "echo_content")
    assert host.stdout.decode() == "a\ufffdz\ufffd"


@given(st.integers(-(2**63), 2**63 - 1), st.sampled_from(["", " ", "\t\n "]), st.sampled_from(["", " "]))
@settings(deadline=None)
def test_integers_are_read_with_any_blanks(value, before, after):
    host = body_host(f'{{"b":1,"a"{before}:{after}{value}}}'.encode())
    assert host.run(CHECK, "echo_int") == 0
    assert int(host.stdout) == value


@pytest.mark.parametrize("body", [b"", b"{}", b'{"a"}', b'{"a":}', b'{"a":"1"}', b'"a"'])
def test_no_integer_is_an_error(body):
    assert body_host(body).run(CHECK, "echo_int") == -22


@pytest.mark.parametrize(
    ("body", "error"), [({"error": {"message": "x"}}, 1), (completion("error"), 0), (completion('{"error":'), 0)]
)
def test_error_bodies_are_told_apart(body, error):
    assert body_host(body).run(CHECK, "is_error") == error


def test_a_long_log_line_is_cut_not_refused():
    host = FakeHost()
    assert host.run(CHECK, "log_much") == 0
    assert host.logs == [(4, "x" * 16_384)]
