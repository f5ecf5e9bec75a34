"""Counters against what is counted; their text against the format's rules."""

from __future__ import annotations

import re

import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st

from actors import Actor, ActorCrashed, Context, Request, Spec, open_supervisor
from spear.telemetry import ActorCounters, Counters, HistogramValue
from spear.telemetry._counters import MAX_SERIES


def test_the_same_name_and_labels_are_the_same_child() -> None:
    counters = Counters()
    child = counters.counter("requests_total", "Requests.", backend="a", op="chat")
    child.add()
    counters.counter("requests_total", op="chat", backend="a").add(2)
    counters.counter("requests_total", backend="b", op="chat").add()
    counters.gauge("inflight").set(7)
    assert counters.snapshot() == {
        "inflight": 7,
        'requests_total{backend="a",op="chat"}': 3,
        'requests_total{backend="b",op="chat"}': 1,
    }


def test_a_histogram_counts_up_to_each_bound() -> None:
    counters = Counters()
    child = counters.histogram("seconds", bounds=(0.1, 1.0))
    for value in (0.05, 0.1, 0.5, 3.0):
        child.observe(value)
    assert child.value == HistogramValue(4, pytest.approx(3.65), {0.1: 2, 1.0: 3})


@given(st.lists(st.floats(0, 1000), max_size=50), st.lists(st.floats(0, 100), min_size=1, max_size=6, unique=True))
def test_the_law_of_the_histogram(values: list[float], bounds: list[float]) -> None:
    child = Counters().histogram("x", bounds=sorted(bounds))
    for value in values:
        child.observe(value)
    assert child.value.count == len(values)
    for bound, count in child.value.buckets.items():
        assert count == sum(value <= bound for value in values)


def test_what_is_refused() -> None:
    counters = Counters()
    counters.counter("a_total")
    with pytest.raises(ValueError, match="is a counter already"):
        counters.gauge("a_total")
    with pytest.raises(ValueError, match="only grows"):
        counters.counter("a_total").add(-1)
    with pytest.raises(ValueError, match="is no name"):
        counters.counter("a b")
    with pytest.raises(ValueError, match="label's name"):
        counters.counter("b_total", le="1")
    with pytest.raises(ValueError, match="ascending"):
        counters.histogram("h", bounds=(2.0, 1.0))


def test_labels_cannot_fill_the_memory() -> None:
    counters = Counters()
    for number in range(MAX_SERIES + 50):
        counters.counter("x_total", id=str(number)).add()
    found = counters.snapshot()
    assert len(found) == MAX_SERIES + 1
    assert found['x_total{overflow="true"}'] == 50


def test_the_text_for_prometheus() -> None:
    counters = Counters()
    counters.counter("b_total", "Two\nlines.", name='q"\\\n').add(5)
    counters.histogram("a_seconds", bounds=(0.5, 2.0), op="x").observe(1.25)
    assert counters.prometheus() == (
        "# TYPE a_seconds histogram\n"
        'a_seconds_bucket{op="x",le="0.5"} 0\n'
        'a_seconds_bucket{op="x",le="2"} 1\n'
        'a_seconds_bucket{op="x",le="+Inf"} 1\n'
        'a_seconds_sum{op="x"} 1.25\n'
        'a_seconds_count{op="x"} 1\n'
        "# HELP b_total Two\\nlines.\n"
        "# TYPE b_total counter\n"
        'b_total{name="q\\"\\\\\\n"} 5\n'
    )


SAMPLE = re.compile(
    r'[a-zA-Z_:][a-zA-Z0-9_:]*(\{[a-z_]+="([^"\\\n]|\\[\\"n])*"(,[a-z_]+="([^"\\\n]|\\[\\"n])*")*\})? \S+'
)


@given(st.lists(st.tuples(st.sampled_from(["a", "b"]), st.text(max_size=5), st.floats(0, 1e9)), max_size=20))
def test_every_line_is_well_formed(samples: list[tuple[str, str, float]]) -> None:
    counters = Counters()
    for name, label, value in samples:
        counters.counter(name, label=label).add(value)
    # Only \n ends a line of the format.
    for line in counters.prometheus().split("\n")[:-1]:
        assert line.startswith("# TYPE") or SAMPLE.fullmatch(line), line


class Do(Request[int]):
    pass


class Fail(Request[int]):
    pass


class Wait(Request[int]):
    pass


class Worker(Actor[Do | Fail | Wait]):
    async def handle(self, msg: Do | Fail | Wait, ctx: Context[Do | Fail | Wait]) -> object:
        if isinstance(msg, Fail):
            raise RuntimeError("planned")
        if isinstance(msg, Wait):
            await trio.sleep_forever()
        return 1


async def test_actors_are_counted(autojump_clock: object) -> None:
    counters = Counters()
    async with open_supervisor(instruments=(ActorCounters(counters),)) as supervisor:
        worker = await supervisor.start(Spec(name="worker", factory=Worker))
        for _ in range(3):
            await worker.ask(Do())
        with trio.move_on_after(1):
            await worker.ask(Wait())
        with pytest.raises(ActorCrashed):
            await worker.ask(Fail())
        await worker.ask(Do())
    found = counters.snapshot()
    (path,) = {m[1] for key in found if (m := re.search(r'actor="([^"]*)"', key))}
    assert path.endswith("worker")
    assert found[f'actor_turns_total{{actor="{path}",outcome="ok"}}'] == 4
    assert found[f'actor_turns_total{{actor="{path}",outcome="cancelled"}}'] == 1
    assert found[f'actor_turns_total{{actor="{path}",outcome="error"}}'] == 1
    assert found[f'actor_turns_running{{actor="{path}"}}'] == 0
    assert found[f'actor_restarts_total{{actor="{path}",error="RuntimeError"}}'] == 1
    assert found['actor_exits_total{reason="stopped"}'] == 1


async def test_actors_that_come_and_go_share_a_label(autojump_clock: object) -> None:
    counters = Counters()
    instrument = ActorCounters(counters, label=lambda path: path.rstrip("0123456789") + "*")
    async with open_supervisor(instruments=(instrument,)) as supervisor:
        for number in range(5):
            worker = await supervisor.start(Spec(name=f"w{number}", factory=Worker))
            await worker.ask(Do())
            await supervisor.stop(worker)
    turns = {key: value for key, value in counters.snapshot().items() if 'outcome="ok"' in key}
    assert list(turns.values()) == [5]
    assert instrument._paths == {}
