"""The runtime as an embedding program meets it: guests in every form, their rights, their callbacks, and repairs."""

from __future__ import annotations

import json
from contextlib import asynccontextmanager

import pytest
import trio

import spear
from actors import Instrument
from spear.backends import Answer
from spear.hostcall import LinkError, NotAModule
from spear.ir import (
    CallerError,
    Capabilities,
    ChatChoice,
    ChatMessage,
    ChatResult,
    ErrorCode,
    GuestError,
    InternalError,
    Operation,
    RoutingError,
    SpearError,
    Transport,
    Usage,
)
from spear.testing import FakeBackend, fake_kinds
from tests.system.kit import GUESTS, HELLO, NOTHING, chat, config, nothing_left, stub, until_true, warm_runtime

STUB = config(stub())


async def body_of(runtime, entry="chat_any", **options):
    execution = await runtime.run_guest(GUESTS, entry=entry, **options)
    assert execution.status == "completed", execution
    return json.loads(execution.stdout)


# --- guests in every form


async def test_a_guest_as_bytes_path_or_text():
    async with spear.open_runtime(STUB) as runtime:
        for form in (HELLO, str(HELLO), HELLO.read_bytes()):
            execution = await runtime.run_guest(form)
            assert (execution.status, execution.exit_code, execution.stdout) == ("completed", 0, "hello, world\n")
            assert execution.stderr == "and this is stderr\n"
            assert [record.task_id for record in execution.logs] == ["guest" if isinstance(form, bytes) else "hello"]


@pytest.mark.parametrize(
    ("make", "error", "says"),
    [
        (lambda folder: folder / "missing.wasm", FileNotFoundError, r"missing\.wasm"),
        (lambda folder: folder, IsADirectoryError, "directory"),
        (lambda folder: b"", NotAModule, "not WebAssembly"),
        (lambda folder: b"#!/bin/sh\n", NotAModule, "not WebAssembly"),
        (lambda folder: b"\0asm\1\0\0\0\xff", NotAModule, "not a valid module"),
        (lambda folder: b"\0asm\x0d\0\1\0", NotAModule, "component"),
    ],
    ids=["missing", "directory", "empty", "script", "damaged", "component"],
)
async def test_what_is_no_guest(tmp_path, make, error, says):
    async with nothing_left(), spear.open_runtime(STUB) as runtime:
        with pytest.raises(error, match=says):
            await runtime.run_guest(make(tmp_path))
        assert (await runtime.run_guest(NOTHING)).status == "completed"


async def test_the_errors_of_guests_are_of_the_one_tree():
    assert issubclass(NotAModule, GuestError)
    assert issubclass(LinkError, GuestError)
    async with spear.open_runtime(STUB) as runtime:
        with pytest.raises(SpearError) as caught:
            await runtime.run_guest(b"nix")
    assert caught.value.error.message == str(caught.value)


async def test_a_long_name_is_no_obstacle(tmp_path):
    guest = tmp_path / f"{'g' * 200}.wasm"
    guest.write_bytes(HELLO.read_bytes())
    async with spear.open_runtime(STUB) as runtime:
        assert (await runtime.run_guest(guest)).status == "completed"


@pytest.mark.parametrize("given", [0, -1, float("nan")])
async def test_a_timeout_that_is_none(given):
    async with spear.open_runtime(STUB) as runtime:
        with pytest.raises(ValueError, match="expected seconds above 0, or None"):
            await runtime.run_guest(HELLO, timeout_s=given)


async def test_the_configured_timeout():
    async with spear.open_runtime(config(stub(), guests={"timeout_s": 0.2, "module_cache": False})) as runtime:
        execution = await runtime.run_guest(GUESTS, entry="sleep_an_hour")
        assert (execution.status, execution.error_message) == ("timeout", "timeout after 0.2 s")
        assert (await runtime.run_guest(GUESTS, entry="sleep_a_little", timeout_s=None)).status == "completed"


async def test_without_guests_there_is_no_engine():
    async with spear.open_runtime(STUB) as runtime:
        assert [node.path for node in runtime.snapshot().children] == ["runtime/backends", "runtime/router"]
        await runtime.run_guest(NOTHING)
        assert "runtime/executions" in [node.path for node in runtime.snapshot().children]


# --- how many


async def test_one_guest_too_many_is_refused_and_the_others_go_on():
    limit = 5
    source = config(stub(), guests={"max_executions": limit, "module_cache": False})
    async with nothing_left(), warm_runtime(source) as runtime:
        ended, refused = [], []

        async def one():
            try:
                ended.append((await runtime.run_guest(GUESTS, entry="sleep_a_little")).status)
            except RoutingError as error:
                refused.append((error.code, error.error.message))

        async with trio.open_nursery() as nursery:
            for _ in range(3 * limit):  # all at once: none of them is running yet when the next one asks
                nursery.start_soon(one)
        assert ended == ["completed"] * limit
        assert refused == [(ErrorCode.OVERLOADED, "5 guests run already (guests.max_executions)")] * (2 * limit)
        assert (await runtime.run_guest(NOTHING)).status == "completed"


# --- callbacks


@pytest.mark.parametrize("which", ["on_log", "on_stdout", "on_stderr"])
async def test_a_callback_that_raises_ends_its_guest_and_no_other(which):
    class OursError(Exception):
        pass

    def broken(_):
        raise OursError(which)

    async with nothing_left(), warm_runtime(STUB) as runtime:
        others = []

        async def other():
            others.append((await runtime.run_guest(GUESTS, entry="sleep_a_little")).status)

        async with trio.open_nursery() as nursery:
            for _ in range(5):
                nursery.start_soon(other)
            await trio.sleep(0.05)
            for _ in range(8):  # more often than a supervisor would restart anything
                with pytest.raises(OursError, match=which):
                    await runtime.run_guest(GUESTS, entry="logs", **{which: broken})
        assert others == ["completed"] * 5
        assert not [node.path for node in runtime.snapshot().walk() if "exec-" in node.path]


async def test_callbacks_get_everything_as_it_comes():
    seen = []
    async with spear.open_runtime(STUB) as runtime:
        execution = await runtime.run_guest(
            GUESTS,
            entry="logs",
            on_log=lambda record: seen.append((record.level, record.message)),
            on_stdout=lambda data: seen.append(("out", data)),
            on_stderr=lambda data: seen.append(("err", data)),
        )
    assert seen == [("info", "first"), ("out", b"out\n"), ("err", b"err\n"), ("error", "last")]
    assert [(record.level, record.message) for record in execution.logs] == [seen[0], seen[3]]


async def test_an_observer_that_raises_does_so_in_the_call():
    def broken(request, response):
        raise ZeroDivisionError

    async with nothing_left(), spear.open_runtime(STUB, observer=broken) as runtime:
        with pytest.raises(ZeroDivisionError):
            await runtime.invoke(chat(model=""))
        with pytest.raises(ZeroDivisionError):
            await runtime.run_guest(GUESTS, entry="chat_any")


# --- rights

TASKS = config(
    stub("a"),
    stub("b", weight=1),
    tasks=[
        {"id": "system_guests", "allow_backends": ["b"]},
        {"id": "nothing", "allow_operations": ["embeddings"]},
        {"id": "free"},
    ],
)
NOT_CHAT = "Operation not supported: task 'nothing' may not use chat_completions"


async def test_the_rights_of_a_configured_task():
    async with spear.open_runtime(TASKS, seed=1) as runtime:
        for _ in range(5):  # by the file's stem
            assert (await body_of(runtime))["_spear"]["backend"] == "b"
        denied = await body_of(runtime, task=spear.Task(id="nothing"))
        assert denied == {"error": {"message": NOT_CHAT}}
        seen = {(await body_of(runtime, task=spear.Task(id="free")))["_spear"]["backend"] for _ in range(20)}
        assert "a" in seen


async def test_the_rights_of_a_task_made_on_the_spot():
    async with spear.open_runtime(TASKS) as runtime:
        only_a = spear.Task(id="own", allow_backends=("a",))
        assert {(await body_of(runtime, task=only_a))["_spear"]["backend"] for _ in range(5)} == {"a"}
        nobody = await body_of(runtime, task=spear.Task(id="own", allow_backends=()))
        assert nobody["error"]["message"].startswith("Operation not supported: task 'own'")
        unknown = await body_of(runtime, task=spear.Task(id="own", allow_backends=("nix",)))
        assert unknown["error"]["message"].startswith("Operation not supported: ")
        none = spear.Task(id="own", allow_operations=())
        assert "may not use chat_completions" in (await body_of(runtime, task=none))["error"]["message"]


async def test_rights_hold_for_every_fallback():
    fakes = {"first": FakeBackend(ZeroDivisionError()), "second": FakeBackend("no"), "third": FakeBackend("yes")}
    backends = [
        {"name": name, "kind": "openai_chat", "hosting": "local", "priority": at} for at, name in enumerate(fakes)
    ]
    source = config(
        *backends,
        routes=[{"policy": "priority"}],
        tasks=[{"id": "system_guests", "allow_backends": ["first", "third"]}],
    )
    async with spear.open_runtime(source, kinds=fake_kinds(fakes)) as runtime:
        body = await body_of(runtime)
    assert body["_spear"]["backend"] == "third"
    assert fakes["second"].requests == []


# --- routes


async def test_a_model_nobody_has():
    async with spear.open_runtime(config(stub(model_class="small"))) as runtime:
        body = await body_of(runtime, "chat_nobody")
        assert body["error"]["message"].startswith("Operation not supported: ")
        with pytest.raises(SpearError, match="no_candidate_backend"):
            await runtime.chat("nobody-has-this", messages=[{"role": "user", "content": "x"}])
        assert (await body_of(runtime, "chat_small"))["_spear"] == {"backend": "stub", "model": "small"}


async def test_a_backend_nobody_configured():
    async with spear.open_runtime(STUB) as runtime:
        body = await body_of(runtime, "chat_named")
    assert body == {"error": {"message": "Operation not supported: the named backend is not configured"}}


async def test_no_backend_at_all():
    async with spear.open_runtime({"spear": {"guests": {"module_cache": False}}}) as runtime:
        assert (await body_of(runtime))["error"]["message"].startswith("Operation not supported: ")
        response = await runtime.invoke(chat())
        assert response.result.error.code == "no_candidate_backend"
        assert runtime.backends() == []
        assert runtime.capabilities() == {"features": {}, "models": {}, "operations": []}


async def test_a_missing_credential_leaves_that_backend_out(monkeypatch):
    monkeypatch.delenv("NOT_SET_ANYWHERE", raising=False)
    keyed = {
        "name": "keyed",
        "kind": "openai_chat",
        "hosting": "remote",
        "base_url": "https://api.example/v1",
        "model": "small",
        "credentials": ["k"],
    }
    credentials = [{"name": "k", "env": "NOT_SET_ANYWHERE"}]
    async with spear.open_runtime(config(keyed, credentials=credentials)) as runtime:
        response = await runtime.invoke(chat())
        assert response.result.error.code == "no_candidate_backend"
        assert response.result.error.rejected_reasons == {"keyed": "missing_credential"}
        assert [(row["name"], row["state"]) for row in runtime.backends()] == [("keyed", "missing_credential")]
        assert (await body_of(runtime, "chat_small"))["error"]["message"].startswith("Operation not supported: ")
    async with spear.open_runtime(config(keyed, stub(model="small"), credentials=credentials)) as runtime:
        assert (await runtime.invoke(chat())).backend.name == "stub"


# --- the short form


async def test_chat_in_short():
    async with spear.open_runtime(STUB) as runtime:
        reply = await runtime.chat(messages=[{"role": "user", "content": "hi"}])
        assert (reply.text, reply.tool_calls) == ("stub chat completion: hi", ())
        tool = {"type": "function", "function": {"name": "add", "parameters": {"type": "object"}}}
        reply = await runtime.chat(messages=[{"role": "user", "content": "1 and 2"}], tools=[tool])
        assert (reply.text, [call.function.name for call in reply.tool_calls]) == ("", ["add"])


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ({"messages": []}, "messages"),
        ({"messages": [{"content": "x"}]}, "role"),
        ({"messages": [{"role": "user", "content": "x"}], "temperature": "hot"}, "temperature"),
        ({"messages": [{"role": "user", "content": "x"}], "tools": "no"}, "tools"),
        ({"messages": [{"role": "user", "content": float("nan")}]}, "messages: not JSON"),
        ({"messages": [{"role": "user", "content": object()}]}, "messages: not JSON"),
        ({"messages": "hello"}, "messages"),
        ({"messages": ["hello"]}, "messages"),
        ({"model": 3, "messages": [{"role": "user", "content": "x"}]}, "model"),
    ],
)
async def test_chat_names_the_field_that_is_wrong(arguments, says):
    async with spear.open_runtime(STUB) as runtime:
        with pytest.raises(CallerError, match=says):
            await runtime.chat(**arguments)


# --- repairs


class Fragile:
    """A kind whose adapter's background work fails when the test says so: a crash of its lifespan."""

    name = "fragile"
    capabilities = Capabilities(ops=(Operation.CHAT_COMPLETIONS,), features=(), transports=(Transport.IN_PROCESS,))

    def __init__(self):
        self.opened = 0
        self.fail = trio.Event()

    def check(self, instance):
        pass

    @asynccontextmanager
    async def open(self, instance, host):
        self.opened += 1
        self.fail = trio.Event()

        async def background():
            await self.fail.wait()
            raise ZeroDivisionError("the connection pool broke")

        async with trio.open_nursery() as nursery:
            nursery.start_soon(background)
            yield self  # noqa: RUF075 - an error cancels it anyway
            nursery.cancel_scope.cancel()

    async def invoke(self, request, call):
        if request.payload.messages[0].text() == "wait" and self.name == "fragile" and self.opened == 1:
            await trio.sleep_forever()
        choice = ChatChoice(index=0, message=ChatMessage(role="assistant", content="fine"), finish_reason="stop")
        return Answer(ChatResult(choices=(choice,)), Usage(input_tokens=1, output_tokens=1))


class Watch(Instrument):
    def __init__(self):
        self.restarts = []

    def restarting(self, path, error, delay):
        self.restarts.append((path, error))


async def test_a_crashed_backend_is_restarted_while_the_others_serve():
    fragile, watch = Fragile(), Watch()
    source = config(
        {"name": "f", "kind": "fragile", "hosting": "local", "model_class": "f"},
        stub(model_class="s"),
        {"name": "spare", "kind": "fragile2", "hosting": "local", "model_class": "f", "priority": 9},
        routes=[{"policy": "priority"}],
    )
    spare = Fragile()
    spare.name = "fragile2"
    kinds = {"fragile": fragile, "fragile2": spare}
    async with nothing_left(), spear.open_runtime(source, kinds=kinds, instruments=[watch]) as runtime:
        answers = []

        async def waiting():
            answers.append(await runtime.invoke(chat("wait", "f")))

        with trio.fail_after(10):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(waiting)
                await until_true(lambda: runtime.backends()[0]["inflight"] == 1)
                fragile.fail.set()
                await until_true(lambda: watch.restarts)
                assert (await runtime.invoke(chat("x", "s"))).backend.name == "stub"
            [response] = answers  # cut off by the crash before anything came: asked again, there or elsewhere
            first, *_, last = response.backend.attempts
            assert (first.backend, first.outcome, last.outcome) == ("f", "failed", "ok")
            await until_true(lambda: runtime.backends()[0]["state"] == "running")
            assert (await runtime.invoke(chat("x", "f"))).backend.name == "f"
        assert fragile.opened == 2
        [(path, error)] = watch.restarts
        assert path == "runtime/backends/instances/f"
        assert "the connection pool broke" in repr(error) or "pool broke" in repr(getattr(error, "exceptions", ""))


async def test_a_bug_in_the_router_costs_one_request(monkeypatch, capsys):
    async with spear.open_runtime(STUB) as runtime:
        with monkeypatch.context() as patch:
            patch.setattr("spear.router._desk.Desk.decide", lambda *_: 1 / 0)
            response = await runtime.invoke(chat(model=""))
            with pytest.raises(InternalError):
                async with runtime.stream(chat(model="")):
                    pass
            body = await body_of(runtime)
        error = response.result.error
        assert (error.code, error.incident in error.message) == (ErrorCode.INTERNAL, True)
        assert body["error"]["message"].startswith("Runtime error: the router failed, incident ")
        logged = capsys.readouterr()
        assert error.incident in logged.err
        assert logged.out == ""  # never where a program's own output goes
        assert (await runtime.invoke(chat(model=""))).unwrap().text == "stub chat completion: hello there"


async def test_a_backend_that_cannot_open_is_a_failure_to_open():
    class Closed(Fragile):
        name = "closed"

        @asynccontextmanager
        async def open(self, instance, host):
            raise OSError("no such device")
            yield

    source = config({"name": "c", "kind": "closed", "hosting": "local"}, stub(model="small"))
    async with nothing_left():
        with (
            trio.fail_after(10),
            pytest.raises(RoutingError, match="backend c cannot be opened: OSError: no such device"),
        ):
            async with spear.open_runtime(source, kinds={"closed": Closed()}):
                raise AssertionError("opened")
