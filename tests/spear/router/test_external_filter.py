"""The filter in the course of a request: asked once, in time, and what it said holds for everything that follows."""

from __future__ import annotations

import pytest
import trio

from spear.config import Config, FilterConfig, Route, RouteMatch
from spear.ir import ConfigError, ErrorCode, Failure, SpearError
from spear.router import FilterFailed, build_generation, invoke, stream, succeed
from tests.spear.router.world import Script, answer, broken, chat, instance, world

FILTER = FilterConfig(name="f", kind="python", timeout=1.0)
EVERYTHING = (Route(filter="f"),)


class Said:
    """A filter that says what the test says: a value, an exception to raise, or a number of seconds to sleep first."""

    def __init__(self, *steps: object) -> None:
        self.steps = list(steps)
        self.questions: list[dict] = []
        self.cancelled = 0

    async def ask(self, question):
        self.questions.append(question)
        step = self.steps[min(len(self.questions), len(self.steps)) - 1]
        try:
            await trio.sleep(step if isinstance(step, float) else 0)
        except trio.Cancelled:
            self.cancelled += 1
            raise
        if isinstance(step, Exception):
            raise step
        return {} if isinstance(step, float) else step


def filtered(*instances, filters=(FILTER,), routes=EVERYTHING, **more):
    return world(*instances, filters=filters, routes=routes, **more)


async def ask(at, said, request=None, **ports):
    at.desk.generation.ports.update({"f": said, **ports})
    return await invoke(at.router, request or chat())


A, B, C = instance("a"), instance("b"), instance("c")


async def test_it_drops_forces_and_reweighs(autojump_clock):
    for said, expected in (
        ({"drop": ["a", "b"]}, "c"),
        ({"force": "b"}, "b"),
        ({"weights": {"a": 0, "b": 0}}, "c"),
        ({"drop": ["nobody"]}, "a"),
        (None, "a"),
    ):
        async with filtered(A, B, C) as at:
            response = await ask(at, Said(said))
            assert response.backend.name == expected


async def test_nobody_is_left(autojump_clock):
    async with filtered(A, B) as at:
        response = await ask(at, Said({"drop": ["a", "b"]}))
    error = response.result.error
    assert error.code is ErrorCode.NO_CANDIDATE_BACKEND
    assert error.rejected_reasons == {"a": "filtered", "b": "filtered"}
    assert error.message == "no backend is left by the external filter: 2 filtered"


async def test_a_rejected_request_reaches_nobody(autojump_clock):
    async with filtered(A) as at:
        response = await ask(at, Said({"reject": {"message": "not on Sundays"}}))
        with pytest.raises(SpearError) as caught:
            async with stream(at.router, chat()):
                raise AssertionError("it began")
        counts = at.counts()
    error = response.result.error
    assert error.code is caught.value.code is ErrorCode.CONTENT_REFUSED
    assert error.message == "refused by the filter f: not on Sundays"
    assert not error.retryable
    assert at.scripts["a"].requests == []
    assert (counts["filtered"], counts["filter_rejections"], counts["filter_failures"]) == (2, 2, 0)


FAILING = [
    (FilterFailed("cannot be reached"), "cannot be reached"),
    (5.0, "timeout after 1 s"),
    ({"dorp": []}, "its answer has an unknown key; known are drop, weights, force, reject"),
    ({"force": "stranger"}, "its answer forces one that is no candidate"),
]


@pytest.mark.parametrize(("step", "reason"), FAILING)
async def test_a_filter_that_fails_lets_pass_or_refuses(autojump_clock, step, reason):
    async with filtered(A) as at:
        response = await ask(at, Said(step))
        assert response.backend.name == "a"
        assert at.counts()["filter_failures"] == 1
    closed = FILTER.model_copy(update={"on_error": "closed"})
    async with filtered(A, filters=(closed,)) as at:
        response = await ask(at, Said(step))
    error = response.result.error
    assert error.code is ErrorCode.BACKEND_UNAVAILABLE
    assert error.message == f"the filter f has to be asked, and failed ({reason})"
    assert error.retryable
    assert error.retry_after_ms == 1000
    assert at.scripts["a"].requests == []


async def test_a_filter_that_does_not_run_is_one_that_failed(autojump_clock):
    closed = FILTER.model_copy(update={"on_error": "closed"})
    async with filtered(A, filters=(closed,)) as at:
        response = await invoke(at.router, chat())
    assert response.result.error.message == "the filter f has to be asked, and failed (not running)"


async def test_what_it_said_holds_for_fallbacks_and_repeats(autojump_clock):
    scripts = {name: Script([broken(), broken(), answer()]) for name in "abc"}
    said = Said({"drop": ["b"]})
    async with filtered(A, B, C, scripts=scripts) as at:
        response = await ask(at, said)
    assert len(said.questions) == 1
    sent = [each.backend for each in response.result.error.attempts]
    assert sorted(set(sent)) == ["a", "c"]
    assert len(sent) == 3  # two instances, then one of them again


async def test_a_forced_one_is_the_only_one(autojump_clock):
    scripts = {"a": Script([broken(Failure.CONNECT)])}
    async with filtered(A, B, scripts=scripts, on_exhausted="fail") as at:
        response = await ask(at, Said({"force": "a"}))
    error = response.result.error
    assert {each.backend for each in error.attempts} == {"a"}
    assert error.rejected_reasons["b"] == "filtered:forced_other"


async def test_it_cannot_force_its_way_past_the_model(autojump_clock):
    async with filtered(instance("a", model="m"), instance("b", model="n")) as at:
        response = await ask(at, Said({"force": "b"}), chat(model="m"))
    assert response.result.error.rejected_reasons == {"a": "filtered:forced_other", "b": "model_mismatch"}


async def test_a_fallback_class_asks_the_filter_of_its_own_route(autojump_clock):
    routes = (
        Route(match=RouteMatch(model_class="m"), fallback=("n", "o"), filter="f"),
        Route(match=RouteMatch(model_class="n"), filter="g"),
        Route(match=RouteMatch(model_class="o"), filter="f"),
    )
    first, second = Said({"drop": ["spare"]}), Said({"drop": ["n"]})
    filters = (FILTER, FILTER.model_copy(update={"name": "g"}))
    instances = [instance(name, model=name) for name in "mno"]
    spare = instance("spare", model="o")
    scripts = {"m": Script([broken()])}
    async with filtered(*instances, spare, scripts=scripts, routes=routes, filters=filters) as at:
        response = await ask(at, first, chat(model="m"), g=second)
    assert response.backend.name == "o"
    assert (len(first.questions), len(second.questions)) == (1, 1)
    assert second.questions[0]["request"]["model"] == "n"


async def test_a_route_without_a_filter_asks_nobody(autojump_clock):
    said = Said({"drop": ["a"]})
    routes = (Route(match=RouteMatch(model_class="m"), filter="f"),)
    async with filtered(A, instance("b", model="m"), routes=routes) as at:
        response = await ask(at, said)
        assert response.backend.name in {"a", "b"}
        assert said.questions == []
        assert at.counts()["filtered"] == 0


async def test_nobody_is_asked_of_where_nobody_can_take_it(autojump_clock):
    said = Said({})
    async with filtered(A) as at:
        response = await ask(at, said, chat(routing={"denylist": ("a",)}))
    assert said.questions == []
    assert response.result.error.rejected_reasons == {"a": "in_denylist"}


async def test_it_sees_only_those_that_the_lists_and_rights_leave(autojump_clock):
    said = Said({"drop": ["b"], "weights": {"b": 5}})
    async with filtered(A, B, C) as at:
        response = await ask(at, said, chat(routing={"allowlist": ("a", "c")}))
        assert [each["name"] for each in said.questions[0]["candidates"]] == ["a", "c"]
        assert response.backend.name in {"a", "c"}


async def test_a_stream_asks_first_too(autojump_clock):
    async with filtered(A, B) as at:
        at.desk.generation.ports["f"] = Said({"drop": ["a"]})
        async with stream(at.router, chat()) as events:
            found = [event async for event in events]
    assert found[-1].response.backend.name == "b"


async def test_the_request_runs_out_of_time_before_the_filter_does(autojump_clock):
    async with filtered(A) as at:
        response = await ask(at, Said(0.9), chat(timeout_ms=300))
        assert trio.current_time() < 1
    assert response.result.error.code is ErrorCode.TIMEOUT
    assert at.scripts["a"].requests == []


@pytest.mark.parametrize("streamed", [False, True])
async def test_a_caller_that_leaves_ends_the_call_of_the_filter(autojump_clock, streamed):
    said = Said(0.9)
    async with filtered(A) as at:
        at.desk.generation.ports["f"] = said
        with trio.move_on_after(0.2):
            if streamed:
                async with stream(at.router, chat()):
                    raise AssertionError("it began")
            else:
                await invoke(at.router, chat())
        await trio.testing.wait_all_tasks_blocked()
        assert said.cancelled == 1
        assert (at.counts()["cancelled"], at.counts()["requests"]) == (1, 1)
        assert at.desk.counts.active == 0


async def test_after_a_reload_it_is_asked_anew(autojump_clock):
    """A request in its backoff meets another generation: the filter speaks of that one's instances."""
    scripts = {"a": Script([broken(), answer()])}
    said = Said({"drop": ["b"]}, {"drop": []})
    async with filtered(A, B, scripts=scripts) as at, trio.open_nursery() as nursery:
        responses = []

        async def one() -> None:
            responses.append(await ask(at, said))

        nursery.start_soon(one)
        await trio.sleep(0.01)  # its one attempt has failed; it waits to ask `a` again
        old = at.desk.generation
        built = build_generation(old.config, find_kind=lambda _: old.instances[0].kind)
        succession = succeed(old, built)
        succession.generation.ports["f"] = said
        at.desk.switch(succession)
    assert len(said.questions) == 2
    assert responses[0].backend.name == "b"


async def test_an_explanation_says_that_nobody_was_asked(autojump_clock):
    async with filtered(A, B) as at:
        said = at.desk.generation.ports["f"] = Said({"drop": ["a"]})
        explanation = at.desk.explain(chat())
        assert explanation.note.endswith("filter f not consulted")
        assert said.questions == []


def test_a_route_with_an_unknown_filter_is_an_error():
    with pytest.raises(ConfigError, match="there is no filter 'x'; there are: f"):
        build_generation(Config(routes=(Route(filter="x"),), filters=(FILTER,)))
