"""Reloading a runtime in process: all of it or nothing, and nobody who asks notices."""

from __future__ import annotations

import gc
import io
import json
from collections import Counter
from contextlib import asynccontextmanager
from random import Random

import pytest
import trio

import spear
from spear.backends import Answer, Finished
from spear.config import load_config
from spear.ir import (
    Capabilities,
    ChatChoice,
    ChatMessage,
    ChatResult,
    Completed,
    ContentDelta,
    ErrorCode,
    Feature,
    Operation,
    Started,
    Transport,
    Usage,
)
from spear.secrets import MASK
from spear.telemetry import configure_logging, get_logger
from tests.spear.test_runtime_counters import counted
from tests.system.kit import GUESTS, NOTHING, chat, nothing_left, until_true


class PlayedKind:
    """Instances that do what their options say: `takes_s` until an answer, `words` of a stream with `takes_s` before
    each, `opening_s`, `fails` to open, `crashes_s` after the first opening."""

    name = "played"
    capabilities = Capabilities(
        ops=(Operation.CHAT_COMPLETIONS,), features=(Feature.STREAM,), transports=(Transport.IN_PROCESS,)
    )

    def __init__(self):
        self.opened = []
        self.open_now = []
        self.keys = []

    def check(self, instance):
        if "wrong" in instance.options:
            raise ValueError("options.wrong: cannot be")
        if "bug" in instance.options:
            raise ZeroDivisionError("a bug of the kind")

    @asynccontextmanager
    async def open(self, instance, host):
        options = instance.options
        self.opened.append(instance.name)
        await trio.sleep(options.get("opening_s", 0))
        if options.get("fails"):
            url = instance.base_url.reveal() if instance.base_url else ""
            raise RuntimeError(f"no door {url}")
        self.open_now.append(instance.name)
        try:
            if "crashes_s" in options and self.opened.count(instance.name) == 1:
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(crash, options["crashes_s"])
                    yield Played(self, instance)
            else:
                yield Played(self, instance)
        finally:
            self.open_now.remove(instance.name)


async def crash(after):
    await trio.sleep(after)
    raise RuntimeError("crashed by the test")


class Played:
    def __init__(self, kind, instance):
        self.kind = kind
        self.instance = instance
        self.takes = instance.options.get("takes_s", 0)

    def answer(self, request):
        message = ChatMessage(role="assistant", content=f"{self.instance.name} {self.instance.model or ''}".strip())
        return Answer(ChatResult(choices=(ChatChoice(index=0, message=message, finish_reason="stop"),)), Usage())

    async def invoke(self, request, call):
        self.kind.keys.append(call.key and call.key.secret.reveal())
        await trio.sleep(self.takes)
        return self.answer(request)

    @asynccontextmanager
    async def stream(self, request, call):
        async def items():
            yield Started(backend=self.instance.name)
            for number in range(self.instance.options.get("words", 3)):
                await trio.sleep(self.takes)
                yield ContentDelta(delta=f"{number} ")
            yield Finished(self.answer(request))

        yield items()


def played(name, *, model=None, weight=100, priority=0, credentials=None, base_url=None, **options):
    optional = {"model": model, "credentials": credentials, "base_url": base_url}
    return {
        "name": name,
        "kind": "played",
        "hosting": "local",
        "weight": weight,
        "priority": priority,
        "options": options,
        **{key: value for key, value in optional.items() if value is not None},
    }


def source(*backends, **more):
    return {"spear": {"backends": list(backends), **more}}


def config(*backends, **more):
    """Parsed beforehand: nothing is left for a thread to do, so that time may be simulated."""
    return load_config(source(*backends, **more))


def toml(*names, extra=""):
    return extra + "".join(
        f'[[spear.backends]]\nname = "{name}"\nkind = "played"\nhosting = "local"\n' for name in names
    )


@pytest.fixture
def kind():
    return PlayedKind()


@pytest.fixture
def log():
    """What this process logs, as JSON lines."""
    lines = io.StringIO()
    configure_logging("warning", "json", lines)
    yield lines
    configure_logging()


@asynccontextmanager
async def opened(kind, given, **options):
    async with spear.open_runtime(given, kinds={"played": kind}, seed=1, **options) as runtime:
        yield runtime


def tree(runtime):
    return {node.path.removeprefix("runtime/backends/instances/"): node for node in runtime.snapshot().walk()}


async def who(runtime, **fields):
    return (await runtime.invoke(chat(model="", **fields))).unwrap().text


# --- what a reload is -----------------------------------------------------------------------------------------


async def test_from_the_file_it_was_opened_from(kind, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    file = tmp_path / "spear.toml"
    file.write_text(toml("a", "b"))
    async with nothing_left(), opened(kind, "spear.toml") as runtime:
        assert runtime.config.backends[0].name == "a"
        monkeypatch.chdir("/")
        file.write_text(toml("b", "c", extra="[spear.router]\nmax_attempts = 2\n"))
        report = await runtime.reload()
        assert report.ok
        assert (report.generation, report.added, report.removed, report.unchanged) == (2, ("c",), ("a",), ("b",))
        assert (report.changed, report.adjusted, report.settings, report.not_applied) == ((), (), ("router",), ())
        assert str(report) == "generation 2; added c; removed a; settings router"
        assert [row["name"] for row in runtime.backends()] == ["b", "c"]
        assert runtime.config.router.max_attempts == 2
        await until_true(lambda: sorted(kind.open_now) == ["b", "c"])
        assert kind.opened == ["a", "b", "c"]  # b was opened once
        assert str(await runtime.reload()) == "generation 3; nothing changed"


async def test_from_something_else(kind, tmp_path):
    (tmp_path / "other.toml").write_text(toml("c"))
    async with opened(kind, source(played("a"))) as runtime:
        for given in (tmp_path / "other.toml", str(tmp_path / "other.toml"), source(played("d")), config(played("e"))):
            assert (await runtime.reload(given)).ok
        assert await who(runtime) == "e"
        assert (await runtime.reload()).added == ("a",)  # what it was opened from
        assert runtime.explain(chat(model="")).generation == 6


async def test_nothing_to_read_again(kind):
    async with opened(kind, config(played("a"))) as runtime:
        with pytest.raises(ValueError, match="opened with a Config"):
            await runtime.reload()
        with pytest.raises(TypeError, match="a Config, a path or a mapping, not int"):
            await runtime.reload(3)
        assert (await runtime.reload(runtime.config)).unchanged == ("a",)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("[[spear.backends]\n", "spear.toml:1"),
        (toml("b", extra="[spear]\nhedge = true\n"), "hedge"),
        (toml("b").replace("played", "unheard"), "unheard"),
        (toml("b", "b"), "each needs its own"),
        (toml("b", extra='[spear]\ndefault_policy = "mine"\n'), "is no policy"),
        (toml("b") + "options = { wrong = 1 }\n", "options.wrong: cannot be"),
        (None, "cannot be read"),
        ("x" * 2_000_000, "larger than"),
    ],
    ids=["syntax", "later", "kind", "twice", "policy", "check", "gone", "large"],
)
async def test_a_bad_file_keeps_the_old_one(kind, log, tmp_path, text, says):
    file = tmp_path / "spear.toml"
    file.write_text(toml("a"))
    async with opened(kind, file) as runtime:
        if text is None:
            file.unlink()
        else:
            file.write_text(text)
        before = runtime.config
        report = await runtime.reload()
        assert not report.ok
        assert says in report.error
        assert report.problems
        assert report.generation == 1
        assert str(report).startswith("not reloaded, generation 1 goes on: ")
        assert runtime.config is before
        assert await who(runtime) == "a"
        assert kind.opened == ["a"]
        assert counted(runtime, "config_reloads_total", outcome="failed") == 1
        assert "config_not_reloaded" in log.getvalue()
        assert says in log.getvalue()
        file.write_text(toml("b"))
        assert (await runtime.reload()).generation == 2
        assert counted(runtime, "config_reloads_total", outcome="ok") == 1
        assert runtime.counters.snapshot()["config_generation"] == 2


async def test_a_bug_of_a_kind_keeps_the_old_one(kind, log):
    async with opened(kind, config(played("a"))) as runtime:
        report = await runtime.reload(config(played("a"), played("b", bug=1)))
        assert report.error is not None
        assert report.error.endswith("spear.backends[1]: the check of kind 'played' failed: ZeroDivisionError")
        assert await who(runtime) == "a"


# --- starting and stopping --------------------------------------------------------------------------------------


async def test_one_that_does_not_start_keeps_the_old_ones(kind):
    secret = "http://localhost:7/marked-address"
    async with nothing_left(), opened(kind, config(played("a"), played("b"))) as runtime:
        new = config(played("a", model="new"), played("c", fails=True, base_url=secret), played("d"))
        for _ in range(3):
            report = await runtime.reload(new)
            assert report.error.startswith("backend c did not start: ")
            assert "no door" in report.error
            assert "marked-address" not in report.error
            assert MASK in report.error
            assert report.problems == ()
        await until_true(lambda: sorted(kind.open_now) == ["a", "b"])
        assert [row["name"] for row in runtime.backends()] == ["a", "b"]
        assert runtime.snapshot().children[0].state == {"generation": 1, "leaving": 0}
        assert await who(runtime) in {"a", "b"}
        report = await runtime.reload(config(played("a", model="new"), played("d")))
        assert (report.generation, report.changed, report.added, report.removed) == (2, ("a",), ("d",), ("b",))


async def test_one_that_never_opens_is_given_up(kind, autojump_clock):
    async with opened(kind, config(played("a"))) as runtime:
        report = await runtime.reload(config(played("a"), played("b", opening_s=3600)))
        assert report.error == "backend b did not start within 30 s"
        assert trio.current_time() < 40
        assert await who(runtime) == "a"
        assert kind.open_now == ["a"]


async def test_what_leaves_finishes_first(kind, autojump_clock):
    """Much longer than an orderly end of the runtime would wait, and with its queue."""
    slow = played("a", takes_s=100) | {"limits": {"max_inflight": 1}}
    texts = []
    async with opened(kind, config(slow)) as runtime, trio.open_nursery() as nursery:

        async def ask():
            texts.append((await who(runtime), trio.current_time()))

        start = trio.current_time()
        for _ in range(3):
            nursery.start_soon(ask)
        await trio.sleep(1)
        assert (await runtime.reload(config(played("b")))).removed == ("a",)
        assert trio.current_time() - start == 1  # it waits for nobody
        assert await who(runtime) == "b"
        assert tree(runtime)["a"].status == "stopping"
        assert runtime.snapshot().children[0].state == {"generation": 2, "leaving": 1}
        await trio.sleep(310)
        assert [text for text, _ in texts] == ["a"] * 3
        assert [round(at - start) for _, at in texts] == [100, 200, 300]
        assert "a" not in tree(runtime)
        assert runtime.snapshot().children[0].state == {"generation": 2, "leaving": 0}
        assert kind.open_now == ["b"]


async def test_streams_go_on_where_they_began(kind, autojump_clock):
    async with opened(kind, config(played("a", takes_s=2, words=20))) as runtime, trio.open_nursery() as nursery:
        ends = []

        async def read():
            async with runtime.stream(chat(model="")) as events:
                seen = [event async for event in events]
            text = "".join(event.delta for event in seen if isinstance(event, ContentDelta))
            assert isinstance(seen[-1], Completed)
            ends.append((text.split(), seen[-1].response.backend.name, seen[-1].response.backend.generation))

        nursery.start_soon(read)
        await trio.sleep(5)  # committed
        await runtime.reload(config(played("a", takes_s=2, words=20, other=1)))
        nursery.start_soon(read)
        await trio.sleep(1)  # not committed
        await runtime.reload(config(played("b")))
        await trio.sleep(60)
        words = [str(number) for number in range(20)]
        assert ends == [(words, "a", 1), (words, "a", 2)]


async def test_leaving_ones_do_not_hold_up_the_end(kind, autojump_clock):
    async with trio.open_nursery() as nursery:
        outcomes = []
        async with opened(kind, config(played("a", takes_s=500))) as runtime:

            async def ask():
                outcomes.append((await runtime.invoke(chat(model=""))).result.error)

            nursery.start_soon(ask)
            await trio.sleep(1)
            await runtime.reload(config(played("b")))
            start = trio.current_time()
        assert trio.current_time() - start < 45
        await trio.sleep(1)
        assert outcomes[0] is not None
        assert kind.open_now == []


async def test_while_an_instance_backs_off(kind, autojump_clock):
    """Unchanged, it comes back by itself; changed, its successor serves at once; removed, it does not come back."""
    given = [played("a"), played("b", crashes_s=5), played("c", crashes_s=5), played("d", crashes_s=5)]
    async with opened(kind, config(*given)) as runtime:
        with trio.fail_after(60):
            while any(tree(runtime)[name].status != "backing_off" for name in "bcd"):  # noqa: ASYNC110 - the clock is ours
                await trio.sleep(0.001)
        new = [played("a"), played("b", crashes_s=5), played("c", crashes_s=5, model="new")]
        report = await runtime.reload(config(*new))
        assert (report.unchanged, report.changed, report.removed) == (("a", "b"), ("c",), ("d",))
        assert tree(runtime)["b"].status == "backing_off"
        assert {row["name"]: row["state"] for row in runtime.backends()} == {
            "a": "running",
            "b": "backing_off",
            "c": "running",
        }
        await trio.sleep(30)
        assert sorted(kind.open_now) == ["a", "b", "c"]
        assert kind.opened.count("d") == 1
        assert {row["state"] for row in runtime.backends()} == {"running"}


async def test_a_restart_of_all_backends_keeps_the_generation(kind, autojump_clock):
    """Too many crashes end the node above them; what comes back is what holds now."""
    async with opened(kind, config(played("a"))) as runtime:
        assert (await runtime.reload(config(played("b", model="two"), played("c")))).ok
        before = kind.opened.count("b")
        backends = runtime._reloader.backends._cell
        backends.crashed_by(RuntimeError("by the test"))
        with trio.fail_after(60):
            while kind.opened.count("b") == before or tree(runtime)["b"].status != "running":  # noqa: ASYNC110
                await trio.sleep(0.1)
        assert sorted(kind.open_now) == ["b", "c"]
        assert await who(runtime, routing={"backend": "b"}) == "b two"
        assert (await runtime.reload(config(played("d")))).ok
        assert await who(runtime) == "d"


async def test_the_end_of_the_runtime_is_also_that_of_a_reload(kind, autojump_clock):
    reports = []
    async with trio.open_nursery() as nursery:
        async with opened(kind, config(played("a"))) as runtime:

            async def reload():
                reports.append(await runtime.reload(config(played("b", opening_s=20))))

            nursery.start_soon(reload)
            await trio.sleep(1)
        await reload()
    assert [each.error for each in reports] == ["the backends were stopping or restarting"] * 2
    assert kind.open_now == []
    assert len(runtime._reloader._announced) == 0


async def test_a_guest_goes_on(kind):
    """What it asks is decided by what holds when it asks."""
    async with opened(kind, source(played("a"), guests={"module_cache": False})) as runtime:
        first = await runtime.run_guest(GUESTS, entry="chat_any")
        assert (await runtime.reload(source(played("b"), guests={"module_cache": False}))).ok
        second = await runtime.run_guest(GUESTS, entry="chat_any")
        texts = [json.loads(each.stdout)["choices"][0]["message"]["content"] for each in (first, second)]
        assert texts == ["a", "b"]


async def test_calls_take_turns(kind, autojump_clock):
    async with opened(kind, config(played("a"))) as runtime, trio.open_nursery() as nursery:
        reports = []

        async def reload(number):
            await trio.sleep(number / 100)
            reports.append(await runtime.reload(config(played(f"n{number}", opening_s=5))))

        for number in range(4):
            nursery.start_soon(reload, number)
        await trio.sleep(30)
        assert [(each.generation, each.added, each.removed) for each in reports] == [
            (2, ("n0",), ("a",)),
            (3, ("n1",), ("n0",)),
            (4, ("n2",), ("n1",)),
            (5, ("n3",), ("n2",)),
        ]


async def test_cancelled_it_has_not_happened(kind, autojump_clock):
    async with opened(kind, config(played("a"))) as runtime:
        new = config(played("b"), played("c", opening_s=5))
        with trio.move_on_after(2) as scope:
            await runtime.reload(new)
        assert scope.cancelled_caught
        await trio.sleep(10)
        assert kind.open_now == ["a"]
        assert await who(runtime) == "a"
        assert runtime.counters.snapshot()["config_generation"] == 1
        assert (await runtime.reload(new)).generation == 2
        await trio.sleep(1)
        assert sorted(kind.open_now) == ["b", "c"]


@pytest.mark.parametrize("seed", range(40))
async def test_cancelled_at_any_moment_it_is_whole_or_not(kind, seed):
    """Cancelled after any number of steps of the scheduler."""
    async with opened(kind, config(played("a"))) as runtime, trio.open_nursery() as nursery:

        async def reload():
            with scope:
                await runtime.reload(config(played("b"), played("c")))

        scope = trio.CancelScope()
        nursery.start_soon(reload)
        for _ in range(seed // 2):
            await trio.lowlevel.checkpoint()
        scope.cancel()
        await until_true(lambda: sorted(kind.open_now) in (["a"], ["b", "c"]))
        await trio.testing.wait_all_tasks_blocked(0.01)
        generation = runtime._desk.generation
        assert sorted(kind.open_now) == sorted(generation.by_name)
        assert runtime.counters.snapshot()["config_generation"] == generation.number
        assert len(runtime._reloader._announced) <= generation.number
        assert (await who(runtime)) in generation.by_name


# --- keys and secrets -------------------------------------------------------------------------------------------


async def test_keys_are_read_again(kind, tmp_path, monkeypatch):
    file = tmp_path / "key"
    file.write_text("key-one")
    monkeypatch.setenv("OTHER_KEY", "other-one")
    given = source(
        played("a", credentials=["k"]),
        played("b", credentials=["other"], weight=0),
        credentials=[{"name": "k", "file": str(file)}, {"name": "other", "env": "OTHER_KEY"}],
    )
    async with opened(kind, given) as runtime:
        await who(runtime)
        assert (await runtime.reload()).unchanged == ("a", "b")
        file.write_text("key-two")
        assert (await runtime.reload()).changed == ("a",)
        await who(runtime)
        monkeypatch.setenv("OTHER_KEY", "other-two")
        report = await runtime.reload()
        assert (report.changed, report.unchanged) == (("b",), ("a",))
        assert kind.keys == ["key-one", "key-two"]
        file.unlink()
        report = await runtime.reload()
        assert report.changed == ("a",)
        assert {row["name"]: row["state"] for row in runtime.backends()}["a"] == "missing_credential"
        file.write_text("key-three")
        await runtime.reload()
        await who(runtime)
        assert kind.keys[-1] == "key-three"


async def test_new_secrets_are_not_said_and_old_ones_while_they_are_in_use(kind, log, monkeypatch, autojump_clock):
    def said(text):
        log.seek(0)
        log.truncate()
        get_logger("test").warning("said", text=f"<{text}>")
        return text in log.getvalue()

    def keyed(value, **more):
        monkeypatch.setenv("RELOAD_TEST_KEY", value)
        backend = played("a", credentials=["k"], takes_s=50, **more)
        return config(backend, credentials=[{"name": "k", "env": "RELOAD_TEST_KEY"}])

    first, second, third, never = (f"{number}-word-of-mouth" for number in ("first", "second", "third", "never"))
    async with opened(kind, keyed(first)) as runtime, trio.open_nursery() as nursery:
        assert said(second)
        nursery.start_soon(who, runtime)
        await trio.sleep(1)
        assert (await runtime.reload(keyed(second))).ok
        assert not said(first)
        assert not said(second)
        assert not (await runtime.reload(keyed(never, fails=True))).ok
        assert said(never)  # it is nobody's key here
        await trio.sleep(60)
        assert (await runtime.reload(keyed(third))).ok
        assert [said(each) for each in (first, second, third)] == [True, False, False]
        await trio.sleep(1)
        for _ in range(50):
            assert (await runtime.reload(keyed(third))).ok
            assert len(runtime._reloader._announced) <= 2
    assert said(third)


# --- what stays -----------------------------------------------------------------------------------------------


async def test_settings_that_hold_from_the_next_start(kind):
    async with opened(kind, source(played("a"), guests={"module_cache": False})) as runtime:
        new = source(
            played("a"), router={"max_requests": 7, "max_attempts": 1}, guests={"module_cache": False, "timeout_s": 9}
        )
        for _ in range(2):  # it is still so the next time
            report = await runtime.reload(new)
            assert report.ok
            assert report.not_applied == ("router.max_requests stays 8192 until the next start, which makes it 7",)
        assert report.settings == ()
        assert runtime.config.guests.timeout_s == 9
        new["spear"]["tracing"] = True
        assert "tracing stays false until the next start" in (await runtime.reload(new)).not_applied
        del new["spear"]["tracing"]
        assert "tracing" in (await runtime.reload(new)).settings
        new["spear"]["guests"]["max_executions"] = 3
        del new["spear"]["router"]
        report = await runtime.reload(new)
        assert report.not_applied == ()  # no guest has run yet
        assert report.settings == ("router", "guests")
        await runtime.run_guest(NOTHING)
        new["spear"]["guests"]["max_executions"] = 4
        report = await runtime.reload(new)
        assert report.not_applied == ("guests.max_executions stays 3 until the next start, which makes it 4",)


async def test_rights_and_routes_hold_at_once(kind):
    async with opened(kind, source(played("a"), played("b"), tasks=[{"id": "t"}])) as runtime:
        new = source(
            played("a"),
            played("b"),
            tasks=[{"id": "t", "allow_backends": ["b"]}],
            routes=[{"match": {"operation": "chat_completions"}, "policy": "least_inflight"}],
        )
        report = await runtime.reload(new)
        assert (report.settings, report.unchanged) == (("routes", "tasks"), ("a", "b"))
        assert {await who(runtime, task_id="t") for _ in range(6)} == {"b"}
        assert runtime.explain(chat(model="")).policy == "least_inflight"


async def test_one_series_for_an_instance_and_its_successors(kind):
    async with opened(kind, config(played("a"))) as runtime:
        for number in range(5):
            await runtime.reload(config(played("a", model=f"m{number}")))
            await who(runtime)
        assert counted(runtime, "actor_turns_total", actor="runtime/backends/instances/a", outcome="ok") == 5
        assert "#" not in "".join(
            line for line in runtime.counters.prometheus().splitlines() if not line.startswith("#")
        )
        assert runtime.snapshot().children[1].state["generation"] == 6


# --- under load -------------------------------------------------------------------------------------------------


def any_config(rng):
    """Some of four backends, at least one; some with another model, weight or key; always one that serves."""
    names = rng.sample("abcd", rng.randint(1, 4))
    backends = [
        played(name, weight=rng.choice([1, 50]), priority=rng.choice([0, 1]), tag=rng.randint(0, 2), takes_s=0.001)
        for name in names
    ]
    return config(*backends, default_policy=rng.choice(["weighted_round_robin", "least_inflight", "priority"]))


async def test_a_thousand_reloads_lose_no_request(kind, log):
    """Every configuration is another one, and one in five is bad. The two kinds of callers never stop."""
    rng = Random(1)
    configs = [any_config(rng) for _ in range(40)]
    bad = config(played("a", tag=1), played("x", fails=True))
    done = False
    answered = {"invoke": 0, "stream": 0}
    wrong = []
    async with nothing_left(), opened(kind, configs[0]) as runtime, trio.open_nursery() as nursery:

        async def ask():
            while not done:
                response = await runtime.invoke(chat(model=""))
                answered["invoke"] += 1
                if response.result.error is not None:
                    wrong.append(response.result.error)

        async def read():
            while not done:
                async with runtime.stream(chat(model="")) as events:
                    seen = [event async for event in events]
                answered["stream"] += 1
                if not isinstance(seen[-1], Completed) or len(seen) != 5:
                    wrong.append(seen)

        for _ in range(8):
            nursery.start_soon(ask)
            nursery.start_soon(read)
        succeeded = 0
        with trio.fail_after(60):
            for number in range(1000):
                report = await runtime.reload(bad if number % 5 == 4 else configs[number % len(configs)])
                assert report.ok == (number % 5 != 4), report
                succeeded += report.ok
        done = True
        assert wrong == []
        assert succeeded == 800
        assert runtime.counters.snapshot()["config_generation"] == 801
        assert min(answered.values()) > 100, answered
        await until_true(lambda: sorted(kind.open_now) == sorted(runtime._desk.generation.by_name))
    assert sum(answered.values()) == counted(runtime, "requests_total", code="ok")
    assert counted(runtime, "requests_total") == counted(runtime, "requests_total", code="ok")
    assert kind.open_now == []


async def test_old_generations_are_forgotten(kind):
    """Neither they nor their instances nor their actors pile up."""

    def alive():
        gc.collect()
        found = Counter(type(each).__name__ for each in gc.get_objects() if type(each).__module__ != "builtins")
        return {name: found[name] for name in ("Generation", "Instance", "Cell", "Config", "Played", "CancelScope")}

    def configs(number):
        return source(played("a"), played("b", tag=number), played(f"c{number % 2}"))

    async with opened(kind, configs(0)) as runtime:
        await trio.to_thread.run_sync(lambda: None)
        before = {}
        for number in range(1, 301):
            assert (await runtime.reload(configs(number))).ok
            await who(runtime)
            if number == 20:
                before = alive()
        await trio.testing.wait_all_tasks_blocked()
        for name, count in alive().items():
            assert count <= before[name] + 3, (name, before[name], count)
        assert len(runtime.snapshot().children[0].children[0].children) == 3


async def test_a_full_runtime_reloads(kind, autojump_clock):
    """No place is free anywhere, and nothing is refused that would not have been."""
    limits = {"limits": {"max_inflight": 2, "max_queue": 2}}
    codes = []
    async with opened(kind, config(played("a", takes_s=10) | limits)) as runtime, trio.open_nursery() as nursery:

        async def ask():
            error = (await runtime.invoke(chat(model=""))).result.error
            codes.append(error and error.code)

        for _ in range(5):
            nursery.start_soon(ask)
        await trio.sleep(1)
        assert codes == [ErrorCode.OVERLOADED]
        await runtime.reload(config(played("a", takes_s=10) | limits, default_policy="round_robin"))
        nursery.start_soon(ask)
        await trio.sleep(1)
        assert codes == [ErrorCode.OVERLOADED] * 2  # the same instance, as full as before
        await runtime.reload(config(played("a", takes_s=10, tag=1) | limits))
        nursery.start_soon(ask)
        await trio.sleep(30)
        assert codes == [ErrorCode.OVERLOADED] * 2 + [None] * 5
