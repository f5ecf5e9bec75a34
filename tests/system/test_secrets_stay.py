"""Marked keys and marked addresses go through the whole system, with failures of every kind; no mark comes out.

Every mark contains the word "canary", so that a part of one, or one in another case, is found too.
"""

from __future__ import annotations

import copy
import io
import json
import logging
import pickle
import traceback
from base64 import b64encode
from dataclasses import asdict

import pytest
import trio

import spear
from spear.config import load_config
from spear.ir import ConfigError, SpearError
from spear.telemetry import configure_logging, get_logger
from tests.spear.cli.command import spear as command
from tests.spear.cli.command import spear_process, toml
from tests.system.kit import CHAT_TOOL, GUESTS, chat, config

ENV_KEY = "canary-quartz key/+=0"  # nothing that looks like a key of any vendor
FILE_KEY = "CANARYbasalt"
VARIABLE = "A_MARKED_KEY"
HOST_URL = "https://canaryhost.invalid/canary-path/v1"

FAULTS = [
    {"status": 401, "leak_key": True},
    {"status": 403, "leak_key": True, "error_type": "invalid_request_error", "error_code": "invalid_api_key"},
    {"status": 400, "leak_key": True},
    {"status": 429, "leak_key": True, "retry_after": 1},
    {"status": 500, "leak_key": True},
    {"status": 503},
    {"status": 302, "headers": {"location": "http://canary-elsewhere/"}},
    {"cut": "rst"},
    {"cut": "fin"},
    {"cut": "rst", "cut_after": 25},
    {"body": "{"},
    {"body": "[]"},
    {"content_type": "text/html", "body": "<h1>canary-page</h1>"},
    {"bad_http": True},
    {"huge_headers_kib": 2048},
    {"never": True},
    {},
]
STREAM_FAULTS = [
    {"cut": "rst", "cut_after": 2},
    {"junk_after": 1},
    {"error_after": 1},
    {"done": False, "finish": False},
]


def without_our_frames(told):
    """Those of the tests know the marks."""
    told.stack = traceback.StackSummary.from_list([frame for frame in told.stack if "/tests/" not in frame.filename])
    for chained in (told.__cause__, told.__context__, *(told.exceptions or ())):
        if chained is not None:
            without_our_frames(chained)
    return told


class Witness:
    """Everything that anybody could have seen."""

    def __init__(self, *servers):
        self.seen = []
        self.addresses = [f":{server.port}" for server in servers]
        self.log = io.StringIO()

    def see(self, *things):
        for thing in things:
            self.seen.append(thing if isinstance(thing, bytes) else str(thing).encode())

    def see_error(self, error):
        self.see(error, repr(error))
        told = traceback.TracebackException.from_exception(error, capture_locals=True)
        self.see("".join(without_our_frames(told).format()))
        try:
            self.see(pickle.dumps(error))
        except Exception as unpicklable:
            self.see(unpicklable)

    def see_response(self, response):
        self.see(response.model_dump_json(), repr(response), pickle.dumps(response))
        if response.result.error is not None:
            try:
                response.unwrap()
            except SpearError as error:
                self.see_error(error)

    def judge(self):
        self.see(self.log.getvalue())
        marks = [b"canary", b64encode(ENV_KEY.encode())[:16].lower(), b64encode(FILE_KEY.encode())[:12].lower()]
        marks += [address.encode() for address in self.addresses]
        for thing in self.seen:
            for mark in marks:
                at = thing.lower().find(mark)
                assert at < 0, thing[max(0, at - 400) : at + 200].decode(errors="replace")


@pytest.fixture
def witness(fault_server):
    """Listens to all logging at debug level, ours and everyone else's."""
    found = Witness(fault_server)
    root, handler = logging.getLogger(), logging.StreamHandler(found.log)
    level = root.level
    root.addHandler(handler)
    root.setLevel(logging.DEBUG)
    configure_logging("debug", "json", found.log)
    yield found
    configure_logging()
    root.setLevel(level)
    root.removeHandler(handler)


@pytest.fixture
def source(tmp_path, fault_server, monkeypatch):
    """Four backends, each bound to a model of its own name: two with keys, one whose path is marked, one whose host is
    marked and does not exist."""
    monkeypatch.setenv(VARIABLE, ENV_KEY)
    (tmp_path / "key").write_text(FILE_KEY + "\n")

    def backend(name, url, **more):
        return {
            "name": name,
            "kind": "openai_chat",
            "hosting": "local",
            "base_url": url,
            "model": name,
            "timeouts": {"first_event": 0.3, "idle": 0.3, "connect": 2},
            **more,
        }

    return config(
        backend("by-env", fault_server.base_url, credentials=["e"]),
        backend("by-file", fault_server.base_url, credentials=["f"]),
        backend("small", fault_server.base_url, credentials=["e"]),
        backend("path", f"{fault_server.root_url}/canary-path/v1", credentials=["e"]),
        backend("host", HOST_URL, hosting="remote", credentials=["f"]),
        backend("refused", "http://127.0.0.1:1/canary-path", credentials=["f"]),
        credentials=[{"name": "e", "env": VARIABLE}, {"name": "f", "file": str(tmp_path / "key")}],
        retries={"per_instance": 1},
        decisions={"path": str(tmp_path / "decisions.jsonl"), "sample": 1.0},
        tasks=[{"id": "t", "config": {"setting": "what a guest is told"}}],
        health={"enabled": False},  # each fault is to be met, however many came before it,
        keys={"enabled": False},  # and with each key
    )


def was_sent(server):
    sent = {
        value for request in server.requests() for key, value in request["headers"] if key.lower() == "authorization"
    }
    return {f"Bearer {ENV_KEY}", f"Bearer {FILE_KEY}"} <= sent


async def test_answers_errors_and_logs(fault_server, source, witness, tmp_path):
    async with spear.open_runtime(source, observer=lambda *both: witness.see(*map(repr, both))) as runtime:
        for does in FAULTS:
            fault_server.script(times=None, **does)
            for model in ("by-env", "by-file", "path", "host", "refused"):
                with trio.fail_after(10):
                    witness.see_response(await runtime.invoke(chat("hi", model)))
        for does in STREAM_FAULTS + FAULTS[:6]:
            fault_server.script(times=None, **does)
            for model in ("by-env", "by-file"):
                try:
                    async with runtime.stream(chat("one two three", model)) as events:
                        async for event in events:
                            witness.see(event.model_dump_json(), repr(event))
                except SpearError as error:
                    witness.see_error(error)
        witness.see(runtime.backends(), runtime.capabilities(), runtime.snapshot(), asdict(runtime.snapshot()))
        witness.see(runtime.decisions())
        witness.see(runtime.explain(chat("x", "by-env")), runtime.explain(chat("x", "nobody")).as_json())
        witness.see(runtime, repr(runtime.config), runtime.config.model_dump(), runtime.config.model_dump_json())
        witness.see(copy.deepcopy(runtime.config), vars(runtime), [vars(each) for each in runtime.config.backends])
        for thing in (runtime.config, runtime):
            try:
                witness.see(pickle.dumps(thing))
            except Exception as error:
                witness.see_error(error)
    assert was_sent(fault_server)  # else there was nothing to leak
    log = (tmp_path / "decisions.jsonl").read_bytes()
    assert log.count(b'"kind":"decision"') > 100
    assert b"one two three" not in log  # nor what was said
    assert b"what a guest is told" not in log
    witness.see(log)
    witness.judge()


async def test_keys_that_are_refused_and_limited(fault_server, source, witness):
    """What is kept and told of a key has its name and the backend's text, in which the backend repeats the key."""
    source["spear"] |= {"keys": {"revive_s": 0.05}}
    source["spear"]["backends"][0]["credentials"] = ["e", "f"]
    async with spear.open_runtime(source, observer=lambda *both: witness.see(*map(repr, both))) as runtime:
        for does in (*FAULTS[:4], {}):
            fault_server.script(times=None, **does)
            for _ in range(3):
                witness.see_response(await runtime.invoke(chat("hi", "by-env")))
                witness.see(runtime.backends(), runtime.snapshot(), asdict(runtime.snapshot()))
                witness.see(runtime.explain(chat("x", "by-env")).as_json())
                witness.see([vars_of(key) for each in runtime._desk.generation.instances for key in keys_of(each)])
                await trio.sleep(0.06)
    assert was_sent(fault_server)
    assert b"'state': 'dead'" in b"".join(witness.seen)
    assert "key_dead" in witness.log.getvalue()
    witness.judge()


def keys_of(instance):
    return () if instance.pool is None else instance.pool.keys


def vars_of(key):
    return {name: repr(getattr(key, name)) for name in key.__slots__}


@pytest.mark.parametrize("does", [FAULTS[0], FAULTS[4], FAULTS[7], FAULTS[10], {}], ids=str)
async def test_what_a_guest_reads_and_has_in_its_memory(fault_server, source, witness, does):
    fault_server.script(times=None, **does)
    async with spear.open_runtime(source) as runtime:
        memory = bytearray()
        execution = await runtime.run_guest(GUESTS, entry="chat_and_dump", on_stdout=memory.extend)
        assert execution.exit_code == 0
        assert b"good day" in memory  # its memory indeed
        assert len(memory) > 100_000
        witness.see(bytes(memory), repr(execution), asdict(execution))
        execution = await runtime.run_guest(CHAT_TOOL)
        witness.see(repr(execution))
    witness.judge()


async def test_what_others_log_while_a_runtime_lives(source, witness):
    """A program's own lines through our output, at debug level: the secrets of living runtimes are cut out of them."""
    log = get_logger("program")
    async with spear.open_runtime(source):
        log.debug("looking", key=ENV_KEY, nested={"deep": [FILE_KEY]}, text=f"at {HOST_URL}/chat")
    assert "looking" in witness.log.getvalue()
    witness.judge()


async def test_a_bug_in_an_adapter_or_the_router(fault_server, source, witness, monkeypatch):
    """The traceback of a bug has lines of code and texts of exceptions, which may hold anything."""
    async with spear.open_runtime(source) as runtime:
        told = f"{ENV_KEY} {FILE_KEY} {fault_server.base_url} {HOST_URL}"

        def broken(*_):
            raise RuntimeError(told)

        for place in ("spear.router._desk.Desk.decide", "spear.backends._http._client.parse_json"):
            with monkeypatch.context() as patch:
                try:
                    patch.setattr(place, broken)
                except AttributeError:
                    patch.setattr("spear.backends._actor.BackendActor.handle", broken)
                response = await runtime.invoke(chat("hi", "by-env"))
                assert response.result.error is not None
                witness.see_response(response)
    assert "incident" in witness.log.getvalue()
    witness.judge()


WRONG = [
    ("a key where a name belongs", {"credentials": [{"name": "e", "env": "canary-key-0123456789abcdef"}]}),
    ("a key as the key", {"credentials": [{"name": "e", "key": "canary-key"}]}),
    ("a key as a value", {"default_policy": "sk-canary-key-0123456789"}),
    ("a key in a number", {"router": {"max_requests": "sk-canary-key"}}),
    ("user info", {"url": "https://user:canary@example.com/v1"}),
    ("no http", {"url": "ftp://canaryhost/v1"}),
    ("plain http", {"url": "http://canaryhost.example/v1", "hosting": "remote"}),
    ("a query", {"url": "https://canaryhost.example/v1?key=canary"}),
    ("blanks", {"url": "https://canary host/v1"}),
    ("a bad port", {"url": "https://canaryhost:99999/v1"}),
    ("no text", {"url": ["https://canaryhost"]}),
    ("a key in the options", {"options": {"api_key": "sk-canary-key"}}),
    ("a key in the headers", {"options": {"headers": {"authorization": "Bearer canary"}}}),
]


@pytest.mark.parametrize("change", [each[1] for each in WRONG], ids=[each[0] for each in WRONG])
async def test_errors_of_the_configuration(witness, tmp_path, change):
    one = {"name": "a", "kind": "openai_chat", "hosting": change.get("hosting", "remote"), "model": "m"}
    one["base_url"] = change.get("url", "https://api.example/v1")
    if "options" in change:
        one["options"] = change["options"]
    top = {key: value for key, value in change.items() if key not in {"url", "hosting", "options"}}
    with pytest.raises(ConfigError) as caught:
        async with spear.open_runtime({"spear": {"backends": [one], **top}}):
            pass
    # Without local variables: those of the loader hold what the caller gave it.
    told = without_our_frames(traceback.TracebackException.from_exception(caught.value))
    witness.see(caught.value, repr(caught.value), pickle.dumps(caught.value), caught.value.problems, *told.format())
    witness.judge()


def test_a_file_that_is_no_toml(witness, tmp_path):
    (tmp_path / "bad.toml").write_text('[[spear.credentials]]\nname = "sk-canary-key\n')
    with pytest.raises(ConfigError) as caught:
        load_config(tmp_path / "bad.toml")
    witness.see(caught.value)
    witness.judge()


def test_the_command_line(fault_server, source, witness, tmp_path):
    tables = [
        *("[[spear.credentials]]\n" + "\n".join(f"{k} = {json.dumps(v)}" for k, v in each.items())
          for each in source["spear"]["credentials"]),
        *("[[spear.backends]]\n" + "\n".join(
            f"{k} = {json.dumps(v)}" if not isinstance(v, dict)
            else f"{k} = {{ {', '.join(f'{a} = {b}' for a, b in v.items())} }}" for k, v in each.items())
          for each in source["spear"]["backends"]),
    ]  # fmt: skip
    (tmp_path / "spear.toml").write_text(toml(*tables, '[spear.log]\nlevel = "debug"'))
    asked = chat("x", "by-env").model_dump_json()
    (tmp_path / "request.json").write_text(asked)
    looking = [("backends",), ("capabilities",), ("explain", "request.json"), ("config", "check")]
    asking = [
        ("chat", "hi", "-m", "by-env", "-v"),
        ("chat", "hi", "-m", "by-file", "--stream"),
        ("chat", "hi", "-m", "path"),
        ("chat", "hi", "-m", "host"),
        ("run", GUESTS, "--entry", "chat_small"),
    ]
    for does in ({"status": 401, "leak_key": True}, {"cut": "rst"}, {"body": "{"}):
        fault_server.script(times=None, **does)
        for arguments in asking + (looking if "status" in does else []):
            for more in ((), ("--json",)):
                done = command(*arguments, *more, cwd=tmp_path, **{VARIABLE: ENV_KEY})
                witness.see(done.out, done.err)
    done = spear_process("chat", "hi", "-m", "by-env", cwd=tmp_path, **{VARIABLE: ENV_KEY})
    assert "upstream" in done.err or "answer" in done.err
    witness.see(done.out, done.err)
    with (tmp_path / "spear.toml").open("a") as file:
        file.write('\n[[spear.routes]]\npolicy = "sk-canary-key-0123456789"\n')
    for arguments in (*looking, *asking):
        done = command(*arguments, cwd=tmp_path, **{VARIABLE: ENV_KEY})
        assert done.code == 2
        witness.see(done.out, done.err)
    assert fault_server.counts()["total"] > 10
    witness.judge()
