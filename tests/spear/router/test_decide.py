"""The pure decision: filter order and codes, narrowing, routes, policies of requests, replay, explanation."""

from __future__ import annotations

import json
import pickle
from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from spear.config import Credential, InstanceConfig, Route, RouteMatch, SkippedInstance, TaskConfig
from spear.ir import (
    AudioPart,
    ChatMessage,
    ChatRequest,
    EmbeddingsRequest,
    ErrorCode,
    FunctionCall,
    Hosting,
    ImageRequest,
    InlineMedia,
    Limits,
    Operation,
    RealtimeRequest,
    RealtimeSession,
    RequestEnvelope,
    SpeechToTextRequest,
    StoredMedia,
    TextPart,
    TextToSpeechRequest,
    ToolCall,
    Transport,
)
from spear.ir import Generation as ChatGeneration
from spear.router import COLUMNS, POLICIES, Facts, Generation, Memory, Plan, decide, explain, facts_of
from spear.router._facts import Affinity
from spear.router._filter import _limit
from spear.router._respond import send_model
from tests.spear.router.world import CHAT, StillRef, chat, instance, occupy, still_generation


def plan_for(generation: Generation, request: RequestEnvelope | Facts, seed: int = 1, **kwargs: object) -> Plan:
    facts = request if isinstance(request, Facts) else facts_of(request)
    memory = kwargs.pop("memory", None) or Memory()
    return decide(generation, generation.instances, facts, memory, seed, 0.0, **kwargs)[0]


def embeddings(*texts: str) -> RequestEnvelope:
    return RequestEnvelope(operation=Operation.EMBEDDINGS, payload=EmbeddingsRequest(input=texts))


# --- the code is that of the step which removed the last candidate ----------------------------------------------

missing_key = {"credentials": ("k",)}
NO_KEY = (Credential(name="k", source="env:K"),)


def code_of(plan: Plan) -> tuple[ErrorCode | None, dict[str, str]]:
    if plan.error is None:
        return None, plan.rejected
    assert plan.error.rejected_reasons == plan.rejected
    return plan.error.code, plan.rejected


def test_no_backend_at_all() -> None:
    plan = plan_for(still_generation(), chat())
    assert code_of(plan) == (ErrorCode.NO_CANDIDATE_BACKEND, {})
    assert "no backend is configured" in plan.error.message


def test_an_unknown_named_backend() -> None:
    plan = plan_for(still_generation(instance("a")), chat(routing={"backend": "b"}))
    assert code_of(plan) == (ErrorCode.BACKEND_NOT_ENABLED, {})


def test_a_named_backend_that_was_left_out_says_why() -> None:
    skipped = (SkippedInstance(name="b", kind="x", reason="unknown_kind", detail="x"),)
    plan = plan_for(still_generation(instance("a"), skipped=skipped), chat(routing={"backend": "b"}))
    assert plan.error.code is ErrorCode.BACKEND_NOT_ENABLED
    assert "unknown_kind" in plan.error.message


CODES = [
    ("missing credential", [{"credentials": ("k",)}], chat(), ErrorCode.NO_CANDIDATE_BACKEND, "missing_credential"),
    ("operation", [{"ops": (CHAT,)}], embeddings("x"), ErrorCode.MISSING_CAPABILITIES, "operation:embeddings"),
    (
        "further operation",
        [{"ops": (CHAT,)}],
        chat(requirements={"required_ops": (Operation.EMBEDDINGS,)}),
        ErrorCode.MISSING_CAPABILITIES,
        "operation:embeddings",
    ),
    (
        "feature",
        [{"features": ("supports_stream",)}],
        chat(requirements={"required_features": ("supports_stream", "supports_tools")}),
        ErrorCode.MISSING_CAPABILITIES,
        "feature:supports_tools",
    ),
    (
        "transport",
        [{}],
        chat(requirements={"required_transports": (Transport.HTTP, Transport.WEBSOCKET)}),
        ErrorCode.MISSING_CAPABILITIES,
        "transport:http|websocket",
    ),
    (
        "limit",
        [{"limits": Limits(max_chars=3)}],
        chat("four"),
        ErrorCode.MISSING_CAPABILITIES,
        "limit:max_chars",
    ),
    (
        "named backend",
        [{}, {"ops": (Operation.EMBEDDINGS,)}],
        chat(routing={"backend": "b1"}),
        ErrorCode.NO_CANDIDATE_BACKEND,
        "not_the_named_backend",
    ),
    (
        "allowlist",
        [{}],
        chat(routing={"allowlist": ("other",)}),
        ErrorCode.NO_CANDIDATE_BACKEND,
        "not_in_allowlist",
    ),
    ("denylist", [{}], chat(routing={"denylist": ("b0",)}), ErrorCode.NO_CANDIDATE_BACKEND, "in_denylist"),
    ("task operation", [{}], chat(task_id="t1"), ErrorCode.NO_CANDIDATE_BACKEND, "task_operation_not_allowed"),
    ("task backend", [{}], chat(task_id="t2"), ErrorCode.NO_CANDIDATE_BACKEND, "task_backend_not_allowed"),
    ("model", [{"model": "m"}], chat(model="other"), ErrorCode.NO_CANDIDATE_BACKEND, "model_mismatch"),
    ("drained", [{"weight": 0}], chat(), ErrorCode.BACKEND_UNAVAILABLE, "drained"),
]


@pytest.mark.parametrize(("backends", "request_", "code", "reason"), [c[1:] for c in CODES], ids=[c[0] for c in CODES])
def test_the_code_of_each_step(
    backends: list[dict[str, object]], request_: RequestEnvelope, code: ErrorCode, reason: str
) -> None:
    tasks = (
        TaskConfig(id="t1", allow_operations=(Operation.EMBEDDINGS,)),
        TaskConfig(id="t2", allow_backends=()),
    )
    configs = [instance(f"b{i}", **fields) for i, fields in enumerate(backends)]
    found, rejected = code_of(plan_for(still_generation(*configs, tasks=tasks, credentials=NO_KEY), request_))
    assert (found, rejected["b0"]) == (code, reason)


@pytest.mark.parametrize("status", ["starting", "backing_off", "stopping", "hung", "exited"])
def test_an_actor_that_does_not_run_is_unavailable(status: str) -> None:
    generation = still_generation(instance("a"))
    generation.instances[0].ref = StillRef(status)
    plan = plan_for(generation, chat())
    assert code_of(plan) == (ErrorCode.BACKEND_UNAVAILABLE, {"a": f"actor:{status}"})
    assert plan.error.retry_after_ms


def test_no_room_is_overloaded() -> None:
    generation = still_generation(instance("a", limits=Limits(max_inflight=2, max_queue=3)))
    occupy(generation.instances[0], 2 + 2)
    assert plan_for(generation, chat()).chosen is not None
    occupy(generation.instances[0], 2 + 3)
    assert code_of(plan_for(generation, chat())) == (ErrorCode.OVERLOADED, {"a": "full"})


def test_the_last_step_that_removed_somebody_gives_the_code() -> None:
    backends = [
        instance("key", credentials=("k",)),
        instance("op", ops=(Operation.EMBEDDINGS,)),
        instance("feature", features=()),
        instance("model", model="m"),
        instance("drained", model="n", weight=0),
    ]
    request = chat(model="n", requirements={"required_features": ("supports_tools",)})
    expected = {
        "key": "missing_credential",
        "op": "operation:chat_completions",
        "feature": "feature:supports_tools",
        "model": "model_mismatch",
        "drained": "drained",
    }
    codes = [
        ErrorCode.NO_CANDIDATE_BACKEND,
        ErrorCode.MISSING_CAPABILITIES,
        ErrorCode.MISSING_CAPABILITIES,
        ErrorCode.NO_CANDIDATE_BACKEND,
        ErrorCode.BACKEND_UNAVAILABLE,
    ]
    for count, code in enumerate(codes, 1):
        plan = plan_for(still_generation(*backends[:count], credentials=NO_KEY), request)
        assert code_of(plan) == (code, dict(list(expected.items())[:count]))
        assert plan.error.candidates_checked == tuple(expected)[:count]


def test_an_error_says_what_was_required() -> None:
    request = chat(requirements={"required_features": ("supports_mask",), "required_transports": (Transport.GRPC,)})
    error = plan_for(still_generation(instance("a")), request).error
    assert error.required == ("chat_completions", "supports_mask", "grpc")
    assert error.operation is CHAT


# --- model binding ----------------------------------------------------------------------------------------------


def names(plan: Plan) -> set[str]:
    return {each.name for each in plan.candidates}


BOUND = [
    instance("class", model_class="small", model="m-1"),
    instance("model", model="m-1"),
    instance("free"),
]


@pytest.mark.parametrize(
    ("model", "expected"),
    [
        ("small", {"class"}),
        ("m-1", {"class", "model"}),
        (" m-1 ", {"class", "model"}),
        ("M-1", set()),
        ("", {"class", "model", "free"}),
    ],
)
def test_binding(model: str, expected: set[str]) -> None:
    assert names(plan_for(still_generation(*BOUND), chat(model=model))) == expected


def test_unbound_instances_take_any_model_where_nobody_is_bound() -> None:
    assert names(plan_for(still_generation(BOUND[2]), chat(model="any"))) == {"free"}


def test_binding_looks_only_at_those_that_remain() -> None:
    request = chat(model="any", routing={"denylist": ("class", "model")})
    assert names(plan_for(still_generation(*BOUND), request)) == {"free"}


def test_those_tried_still_bind() -> None:
    plan = plan_for(still_generation(*BOUND), chat(model="m-1"), exclude={"class", "model"})
    assert plan.chosen is None
    assert plan.rejected == {"class": "already_tried", "model": "already_tried", "free": "model_mismatch"}


def test_what_is_missing_is_said_without_those_who_do_other_things() -> None:
    generation = still_generation(instance("a", features=()), instance("b", ops=(Operation.EMBEDDINGS,)))
    error = plan_for(generation, chat(requirements={"required_features": ("supports_tools",)})).error
    assert error is not None
    assert error.message == "no backend has all that the request needs: 1 feature:supports_tools"
    assert error.rejected_reasons == {"a": "feature:supports_tools", "b": "operation:chat_completions"}


def test_the_error_of_an_unknown_model_names_those_there_are() -> None:
    message = plan_for(still_generation(*BOUND[:2]), chat(model="gone")).error.message
    assert "m-1, small" in message


# --- limits -----------------------------------------------------------------------------------------------------

ASK = ChatMessage(role="user", content="x")
CLIP = InlineMedia(mime="audio/wav", data="QUJD" * 100)
LIMITS = [
    (Limits(max_input_tokens=2), chat("123456789"), "max_input_tokens"),
    (
        Limits(max_output_tokens=5),
        RequestEnvelope(
            operation=CHAT,
            payload=ChatRequest(
                messages=(ChatMessage(role="user", content="x"),), generation=ChatGeneration(max_tokens=6)
            ),
        ),
        "max_output_tokens",
    ),
    (Limits(max_payload_bytes=200), embeddings("a" * 201), "max_payload_bytes"),
]


@pytest.mark.parametrize(("limits", "request_", "name"), LIMITS, ids=[row[2] for row in LIMITS])
def test_limits(limits: Limits, request_: RequestEnvelope, name: str) -> None:
    plan = plan_for(still_generation(instance("a", limits=limits), instance("b")), request_)
    assert plan.rejected == {"a": f"limit:{name}"}


SPLIT = [
    (Limits(max_batch=1), EmbeddingsRequest(input=("a", "b"))),
    (Limits(max_chars=3), EmbeddingsRequest(input=("ab", "cd"))),
    (Limits(max_chars=3), TextToSpeechRequest(input="four")),
]


@pytest.mark.parametrize(("limits", "payload"), SPLIT)
def test_what_can_be_sent_in_several_calls_is_not_refused(limits: Limits, payload: object) -> None:
    assert _limit(facts_of(RequestEnvelope(operation=Operation(payload.kind), payload=payload)), limits) is None


OTHER_LIMITS = [
    (Limits(max_images_per_request=1), ImageRequest(prompt="x", n=2), "max_images_per_request"),
    (Limits(max_image_size=512), ImageRequest(prompt="x", size="256x1024"), "max_image_size"),
    (Limits(supported_formats=("wav",)), TextToSpeechRequest(input="x", format="mp3"), "supported_formats"),
    (Limits(supported_voices=("eve",)), TextToSpeechRequest(input="x", voice="bob"), "supported_voices"),
    (Limits(max_chars=3), TextToSpeechRequest(input="four", format="opus"), "max_chars"),
    (Limits(max_payload_bytes=100), SpeechToTextRequest(audio=CLIP), "max_payload_bytes"),
]


@pytest.mark.parametrize(("limits", "payload", "name"), OTHER_LIMITS, ids=[row[2] for row in OTHER_LIMITS])
def test_limits_of_other_operations(limits: Limits, payload: object, name: str) -> None:
    facts = facts_of(RequestEnvelope(operation=Operation(payload.kind), payload=payload))
    assert _limit(facts, limits) == f"limit:{name}"
    assert _limit(facts, Limits()) is None


# --- a request can only narrow ------------------------------------------------------------------------------------

ALL = ("a", "b", "c", "d")
lists = st.lists(st.sampled_from((*ALL, "nobody")), max_size=4).map(tuple)


@given(
    backend=st.none() | st.sampled_from(ALL),
    allow=lists,
    deny=lists,
    preferred=lists,
    model=st.sampled_from(["", "m", "n", "o"]),
    features=st.lists(st.sampled_from(["supports_tools", "supports_stream", "x"]), max_size=2).map(tuple),
    rights=st.none() | st.lists(st.sampled_from(ALL), max_size=3).map(tuple),
    exclude=st.frozensets(st.sampled_from(ALL)),
)
@settings(max_examples=150, deadline=None)
def test_a_request_can_only_narrow(
    backend: str | None,
    allow: tuple[str, ...],
    deny: tuple[str, ...],
    preferred: tuple[str, ...],
    model: str,
    features: tuple[str, ...],
    rights: tuple[str, ...] | None,
    exclude: frozenset[str],
) -> None:
    backends = [instance("a", model="m"), instance("b", model="n"), instance("c"), instance("d", weight=0)]
    generation = still_generation(*backends, tasks=(TaskConfig(id="t", allow_backends=rights),))
    request = chat(
        model=model,
        task_id="t",
        routing={"backend": backend, "allowlist": allow, "denylist": deny},
        requirements={"required_features": features, "preferred_backends": preferred},
    )
    plain = plan_for(generation, chat(model="", task_id="t"))
    plan = plan_for(generation, request, exclude=exclude)
    assert names(plan) <= names(plain)
    for each in plan.candidates:
        assert rights is None or each.name in rights
        assert backend in (None, each.name)
        assert not allow or each.name in allow
        assert each.name not in deny
        assert each.name not in exclude
        assert each.weight > 0
        assert set(features) <= each.features
    assert (plan.chosen is None) == (plan.error is not None)
    rejected = set(plan.rejected) | names(plan)
    assert plan.error is not None or preferred or rejected == set(ALL)


SHAPES = st.builds(
    chat,
    model=st.sampled_from(["", "m", "n"]),
    task_id=st.sampled_from([None, "t", "unknown"]),
    routing=st.fixed_dictionaries(
        {"backend": st.none() | st.sampled_from(ALL[:2]), "allowlist": lists, "denylist": lists}
    ),
    requirements=st.fixed_dictionaries(
        {
            "required_ops": st.sampled_from([(), (Operation.EMBEDDINGS,)]),
            "required_features": st.sampled_from([(), ("supports_tools",), ("x",)]),
            "required_transports": st.sampled_from([(), (Transport.HTTP,), (Transport.IN_PROCESS,)]),
        }
    ),
)


@given(requests=st.lists(SHAPES, min_size=2, max_size=30))
@settings(max_examples=60, deadline=None)
def test_what_is_remembered_changes_no_decision(requests: list[RequestEnvelope]) -> None:
    def build() -> Generation:
        backends = [
            instance("a", model="m"),
            instance("b", model="n", features=("supports_tools", "x")),
            instance("c", ops=(CHAT,)),
            instance("d", transports=(Transport.HTTP,)),
        ]
        return still_generation(*backends, tasks=(TaskConfig(id="t", allow_backends=("b", "c")),))

    used = build()
    for request in requests:
        plan, fresh = plan_for(used, request), plan_for(build(), request)
        assert (plan.order, plan.rejected, plan.error) == (fresh.order, fresh.rejected, fresh.error)


def test_the_filter_remembers_a_bounded_number_of_requests() -> None:
    generation = still_generation(instance("a"))
    for number in range(300):
        plan_for(generation, chat(model=f"m{number}"))
    assert len(generation.remembered) == 256


def test_preferences_are_wishes() -> None:
    generation = still_generation(instance("a"), instance("b", features=("supports_tools", "supports_batch")))
    wish = chat(requirements={"preferred_features": ("supports_batch",)})
    assert names(plan_for(generation, wish)) == {"b"}
    assert names(plan_for(generation, wish, exclude={"b"})) == {"a"}
    named = chat(requirements={"preferred_backends": ("a", "gone")})
    assert names(plan_for(generation, named)) == {"a"}


# --- routes and policies --------------------------------------------------------------------------------------------


def policy_of(generation: Generation, request: RequestEnvelope) -> str:
    return plan_for(generation, request).policy


def test_the_first_route_that_matches() -> None:
    routes = (
        Route(match=RouteMatch(operation=Operation.EMBEDDINGS), policy="round_robin"),
        Route(match=RouteMatch(model_class="small"), policy="least_inflight"),
        Route(match=RouteMatch(operation=CHAT, model_class="big")),
    )
    generation = still_generation(instance("a"), routes=routes, default_policy="weighted_random")
    assert policy_of(generation, embeddings("x")) == "round_robin"
    assert policy_of(generation, chat(model="small")) == "least_inflight"
    assert policy_of(generation, chat(model="big")) == "weighted_random"
    assert policy_of(generation, chat()) == "weighted_random"


def test_defaults_by_operation_and_layout() -> None:
    generation = still_generation(instance("a"))
    clip = SpeechToTextRequest(audio=StoredMedia(uri="smsfile://a", size=1))
    payloads = {
        "weighted_round_robin": [EmbeddingsRequest(input=("x",)), TextToSpeechRequest(input="x")],
        "priority": [ImageRequest(prompt="x")],
        "least_inflight": [clip, RealtimeRequest(session=RealtimeSession())],
    }
    for policy, those in payloads.items():
        for payload in those:
            request = RequestEnvelope(operation=Operation(payload.kind), payload=payload)
            assert policy_of(generation, request) == policy
    assert policy_of(generation, chat()) == "peak_ewma"
    legacy = still_generation(instance("a", ops=(CHAT,)), layout="spearlet")
    assert policy_of(legacy, chat()) == "weighted_random"


def test_a_requests_own_policy_within_the_hosts_bounds() -> None:
    routes = (Route(policy="round_robin", allow_policies=("least_inflight",)),)
    generation = still_generation(instance("a"), routes=routes)
    for name in ("least_inflight", "round_robin"):
        assert plan_for(generation, chat(policy={"name": name})).policy == name
    for name in ("weighted_random", "no_such"):
        error = plan_for(generation, chat(policy={"name": name})).error
        assert error.code is ErrorCode.INVALID_REQUEST
        assert "policy.name" in error.message
        assert "least_inflight, round_robin" in error.message
    options = plan_for(generation, chat(policy={"name": "round_robin", "options": {"x": 1}})).error
    assert options.code is ErrorCode.INVALID_REQUEST
    assert "policy.options" in options.message


@pytest.mark.parametrize("spill", ["strict", "proportional"])
@pytest.mark.parametrize("policy", POLICIES)
def test_a_drained_instance_gets_nothing_under_any_policy(policy: str, spill: str) -> None:
    backends = [instance("a", weight=0, priority=-1), instance("b"), instance("c")]
    generation = still_generation(*backends, routes=(Route(policy=policy, spill=spill),))
    memory = Memory()
    chosen = Counter()
    for seed in range(100):
        request = chat(meta={"session_id": str(seed)})
        plan, change = decide(generation, generation.instances, facts_of(request), memory, seed, 0.0)
        if change is not None:
            memory.apply(change)
        chosen[plan.chosen.name] += 1
    assert set(chosen) == {"b", "c"}


def test_within_level_comes_from_the_route() -> None:
    routes = (Route(policy="priority", within_level="least_inflight"),)
    generation = still_generation(instance("a"), instance("b"), instance("c", priority=1), routes=routes)
    occupy(generation.by_name["a"], 3)
    plan = plan_for(generation, chat())
    assert plan.chosen.name == "b"
    assert plan.order == ("b", "a", "c")


# --- pure, repeatable -------------------------------------------------------------------------------------------------


@given(
    loads=st.lists(st.integers(0, 5), min_size=6, max_size=6),
    weights=st.lists(st.integers(0, 9), min_size=6, max_size=6),
    policy=st.sampled_from(list(POLICIES)),
    spill=st.sampled_from(["strict", "proportional"]),
    times=st.lists(st.none() | st.floats(0, 9), min_size=6, max_size=6),
    seeds=st.lists(st.integers(0, 2**64 - 1), min_size=1, max_size=8),
)
@settings(max_examples=60, deadline=None)
def test_a_decision_can_be_replayed(
    loads: list[int], weights: list[int], policy: str, spill: str, times: list[float | None], seeds: list[int]
) -> None:
    """From what a record would hold: configuration, loads, latencies, facts, what the policy remembered, seed, time."""

    def build() -> Generation:
        backends = [instance(f"i{i}", weight=w, priority=i % 2) for i, w in enumerate(weights)]
        generation = still_generation(*backends, routes=(Route(policy=policy, spill=spill),))
        for each, load, time in zip(generation.instances, loads, times, strict=True):
            occupy(each, load)
            if time is not None:
                each.latency((CHAT, False)).answered(time, -time)
        return generation

    first, again = build(), build()
    memory = Memory()
    for seed in seeds:
        plan, change = decide(first, first.instances, facts_of(chat()), memory, seed, 0.0)
        recorded = Memory()
        if change is not None and (state := memory.get(change.key)) is not None:
            recorded.apply(change._replace(state=state))
        replayed, change_again = decide(again, again.instances, facts_of(chat()), recorded, seed, 0.0)
        assert change == change_again
        assert plan.order == replayed.order
        assert plan.rejected == replayed.rejected
        assert plan.error == replayed.error
        assert (plan.chosen and plan.chosen.name) == (replayed.chosen and replayed.chosen.name)
        if change is not None:
            memory.apply(change)


def test_other_views_than_the_live_ones_are_not_mixed_with_what_is_remembered() -> None:
    """A replay decides over recorded views of the same generation."""
    live = still_generation(instance("a"), instance("b"))
    recorded = still_generation(instance("a"), instance("b")).instances
    plan_for(live, chat())
    occupy(recorded[0], recorded[0].room)
    plan, _ = decide(live, recorded, facts_of(chat()), Memory(), 1, 0.0)
    assert plan.chosen is recorded[1]
    assert plan.rejected == {"a": "full"}


def test_deciding_changes_nothing() -> None:
    generation = still_generation(instance("a"), instance("b"))
    memory = Memory()
    assert len({plan_for(generation, chat(), memory=memory).chosen.name for _ in range(5)}) == 1
    assert len(memory) == 0


# --- facts ---


def test_facts_never_hold_content() -> None:
    message = ChatMessage(
        role="user",
        content_parts=(TextPart(text="canary"), AudioPart(media=CLIP)),
        tool_calls=(ToolCall(id="canary", function=FunctionCall(name="canary", arguments="canary")),),
    )
    request = RequestEnvelope(
        operation=CHAT,
        payload=ChatRequest(messages=(message,), tools=({"type": "function", "canary": ["canary", 1]},)),
        meta={"session_id": "canary"},
        extra={"canary": "canary"},
    )
    facts = facts_of(request)
    assert "canary" not in repr(facts)
    assert facts.sizes.chars == 18
    assert facts.sizes.media_bytes == 300
    assert facts.sizes.tool_chars == len("typefunctioncanarycanary") + 4
    assert facts.input_tokens == -(-(18 + facts.sizes.tool_chars) // 4)


def test_requests_can_be_kept_together_by_session_task_and_prompt() -> None:
    def affinity(text: str = "hello", **fields: object) -> Affinity:
        return facts_of(chat(text, **fields)).affinity

    session, task, prompt = affinity(meta={"session_id": "s"}, task_id="t").hashes
    assert len({session, task, prompt}) == 3
    assert affinity() == Affinity(prompt=prompt)
    assert affinity("bye", task_id="t").hashes[:2] == (None, task)
    assert affinity("bye").prompt != prompt
    assert affinity("x" * 1024 + "a") == affinity("x" * 1024 + "b"), "its beginning only"
    assert facts_of(embeddings("x")).affinity == Affinity()


def test_what_is_recorded_of_a_request_is_hashes_only() -> None:
    facts = facts_of(chat("canary", meta={"session_id": "canary"}))
    recorded = pickle.dumps(facts)
    assert b"canary" not in recorded
    assert pickle.loads(recorded) == facts
    assert "canary" not in repr(facts)


def test_sessions_stay_with_an_instance_and_a_fallback_is_the_next_in_order() -> None:
    backends = [instance(f"i{number}") for number in range(6)]
    generation = still_generation(*backends, default_policy="consistent_hash")
    owners = {}
    for session in map(str, range(60)):
        request = chat(meta={"session_id": session})
        plans = [plan_for(generation, request, seed) for seed in range(3)]
        (owners[session],) = {plan.chosen.name for plan in plans}
        second = plan_for(generation, request, exclude={owners[session]})
        assert second.chosen.name == plans[0].order[1]
    assert set(owners.values()) == {each.name for each in backends}


def test_the_options_of_a_route_reach_its_policy() -> None:
    written = {"hash_key": ("task",), "load_bound": 2.0, "tau": 7.0, "spill": "proportional"}
    route, last = still_generation(instance("a"), routes=(Route(policy="consistent_hash", **written),)).routes
    assert {name: getattr(route.options, name) for name in written} == written
    assert (last.options.hash_key, last.options.load_bound) == (("session", "task", "prompt"), 1.25)
    generation = still_generation(instance("a"), routes=(Route(policy="consistent_hash", **written),))
    request = chat(meta={"session_id": "s"})
    assert plan_for(generation, request).note == "no task to hash: least_inflight"
    assert plan_for(generation, chat(task_id="t")).note == "by task"


@given(st.recursive(st.none() | st.booleans() | st.integers() | st.text(),
                    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner)))  # fmt: skip
@settings(deadline=None)
def test_any_content_has_a_size(content: object) -> None:
    payload = ChatRequest(messages=(ChatMessage(role="user", content=content),))
    facts = facts_of(RequestEnvelope(operation=CHAT, payload=payload))
    assert facts.sizes.chars >= 0
    assert facts.tokens >= facts.input_tokens


@pytest.mark.parametrize("size", ["auto", "", "1x", "x", "-1x5", "²x3", "1x2x3", None])
def test_odd_image_sizes(size: str | None) -> None:
    facts = facts_of(RequestEnvelope(operation=Operation.IMAGE_GENERATION, payload=ImageRequest(prompt="", size=size)))
    assert facts.sizes.size in (0, 3)


def test_stored_media_count_by_their_size() -> None:
    audio = StoredMedia(uri="smsfile://a", size=5000)
    facts = facts_of(RequestEnvelope(operation=Operation.SPEECH_TO_TEXT, payload=SpeechToTextRequest(audio=audio)))
    assert facts.payload_bytes == 5000


def test_realtime_sessions_have_facts_and_a_model() -> None:
    session = RealtimeSession(model=" v ", instructions="four", voice="eve", output_audio_format="pcm16")
    request = RequestEnvelope(operation=Operation.REALTIME_VOICE, payload=RealtimeRequest(session=session))
    facts = facts_of(request)
    assert (facts.model, facts.sizes.chars, facts.sizes.voice, facts.sizes.format) == ("v", 4, "eve", "pcm16")
    sent = send_model(request, "own")
    assert sent.payload.session.model == "own"
    assert request.payload.session.model == " v "


# --- explanation ---


def test_an_explanation_has_everybody_and_is_json() -> None:
    backends = [
        instance("a", weight=5, model="m"),
        instance("b", weight=1, model="m"),
        instance("c", model="m", weight=0),
        instance("d", model="n"),
    ]
    generation = still_generation(*backends, default_policy="weighted_round_robin")
    occupy(generation.by_name["b"], 2)
    explanation = explain(generation, plan_for(generation, chat(model="m"), seed=99), "r1")
    value = json.loads(json.dumps(explanation.as_json()))
    assert value["chosen"] == "a"
    assert (value["policy"], value["seed"], value["generation"]) == ("weighted_round_robin", 99, 1)
    assert {each["backend"]: each["rejected"] for each in value["candidates"]} == {
        "a": None,
        "b": None,
        "c": "drained",
        "d": "model_mismatch",
    }
    assert value["candidates"][1]["inflight"] == 2
    rows = list(explanation.rows())
    assert [row[0] for row in rows] == ["a", "b", "c", "d"]
    assert [row[3] for row in rows] == ["chosen", "candidate", "drained", "model_mismatch"]
    assert all(len(row) == len(COLUMNS) for row in rows)


def test_an_explanation_of_a_refusal() -> None:
    generation = still_generation(instance("a"))
    explanation = explain(generation, plan_for(generation, chat(routing={"backend": "x"})), "r1")
    assert explanation.as_json()["error"]["code"] == "backend_not_enabled"
    assert [row[3] for row in explanation.rows()] == ["not_considered"]


def test_an_explanation_shows_no_secret(monkeypatch: pytest.MonkeyPatch) -> None:
    config = InstanceConfig(name="a", kind="scripted", hosting=Hosting.LOCAL, base_url="http://canary.example/")
    generation = still_generation(config)
    explanation = explain(generation, plan_for(generation, chat("canary")), "r1")
    assert "canary" not in json.dumps(explanation.as_json()) + repr(explanation)


def test_what_is_remembered_of_the_filter_stays_clean() -> None:
    """The rejections of one moment must not stick to the next decision of the same shape."""
    generation = still_generation(instance("a"), instance("b"), instance("c", ops=(Operation.EMBEDDINGS,)))
    occupy(generation.by_name["a"], generation.by_name["a"].room)
    assert set(plan_for(generation, chat()).rejected) == {"a", "c"}
    occupy(generation.by_name["a"], 0)
    assert set(plan_for(generation, chat()).rejected) == {"c"}
    generation.by_name["b"].ref = StillRef("exited")
    assert set(plan_for(generation, chat()).rejected) == {"b", "c"}


def test_load_counts_what_still_cleans_up_until_it_has_ended() -> None:
    generation = still_generation(instance("a"))
    view = generation.by_name["a"]
    view.ref = StillRef(running=2, queued=1)
    assert view.load == 0, "only turns that were left are asked for"
    view.turns.update({"x", "y"})
    view.leave("x")
    assert [view.load, view.load] == [3, 3]
    view.ref = StillRef(running=1)
    assert view.load == 1
    assert not view.lingers


def test_a_model_whose_only_backend_has_no_key_is_not_said_to_be_unknown() -> None:
    generation = still_generation(
        instance("keyless", model="big", credentials=("k",)), instance("other", model="small"), credentials=NO_KEY
    )
    error = plan_for(generation, chat(model="big")).error
    assert error is not None
    assert error.message == (
        "no backend that has this model can take the request: 1 missing_credential; there are: small"
    )
