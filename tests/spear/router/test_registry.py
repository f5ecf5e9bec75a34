"""Building a generation: what is resolved, and that everything wrong is listed with its place."""

from __future__ import annotations

import pickle

import pytest

from spear.backends import find_kind
from spear.config import Config, Credential, InstanceConfig, Origin, Price, Route, RouterLimits, TaskConfig
from spear.ir import ConfigError, Feature, Hosting, Limits, Operation, Transport
from spear.router import Generation, build_generation
from spear.secrets import Secret
from tests.spear.router.world import CHAT, ScriptedKind, generation_of, instance


def build(*instances: InstanceConfig, **config: object) -> Generation:
    """With the kinds that there really are, and `scripted`."""
    kind = ScriptedKind()
    return build_generation(
        Config(backends=instances, **config), find_kind=lambda n: kind if n == "scripted" else find_kind(n)
    )


def problems(*instances: InstanceConfig, **config: object) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        build(*instances, **config)
    return [str(problem) for problem in caught.value.problems]


def test_the_stub_with_defaults() -> None:
    (view,) = build(instance("s", kind="stub")).instances
    assert view.ops == {CHAT}
    assert {Feature.STREAM, Feature.TOOLS, Feature.SYSTEM_ROLE} <= view.features
    assert view.transports == {Transport.IN_PROCESS}
    assert (view.weight, view.priority, view.reason, view.kind_name) == (100, 0, None, "stub")
    assert (view.max_inflight, view.max_queue, view.room) == (64, 64, 128)
    assert not view.answers_to
    assert view.status == "not_started"


def test_given_lists_are_literal() -> None:
    config = instance("a", ops=(CHAT,), features=("supports_odd",), transports=(Transport.HTTP,))
    (view,) = generation_of(config).instances
    assert (view.ops, view.features, view.transports) == ({CHAT}, {"supports_odd"}, {Transport.HTTP})
    (none,) = generation_of(instance("a", features=(), transports=())).instances
    assert not none.features
    assert not none.transports


@pytest.mark.parametrize(
    ("fields", "answers_to", "own"),
    [
        ({}, set(), ""),
        ({"model": " m "}, {"m"}, "m"),
        ({"model_class": "c"}, {"c"}, "c"),
        ({"model": "m", "model_class": "c"}, {"m", "c"}, "m"),
        ({"model": "  "}, set(), ""),
    ],
)
def test_names(fields: dict[str, str], answers_to: set[str], own: str) -> None:
    (view,) = generation_of(instance("a", **fields)).instances
    assert view.answers_to == answers_to
    assert view.own_model == own


def test_limits_of_the_instance_come_before_those_of_the_router() -> None:
    router = RouterLimits(max_inflight=7, max_queue=3)
    own = Limits(max_inflight=2, max_queue=0)
    plain, limited = generation_of(instance("a"), instance("b", limits=own), router=router).instances
    assert (plain.max_inflight, plain.max_queue) == (7, 3)
    assert (limited.max_inflight, limited.max_queue, limited.room) == (2, 0, 2)


def test_a_missing_credential_keeps_the_instance_with_a_reason() -> None:
    credentials = (Credential(name="k", source="env:K"), Credential(name="l", source="env:L", value=Secret("v")))
    missing, one_of_two, none = build(
        instance("a", credentials=("k",)),
        instance("b", credentials=("k", "l")),
        instance("c"),
        credentials=credentials,
    ).instances
    assert missing.reason == "missing_credential"
    assert one_of_two.reason is None
    assert [each.id for each in one_of_two.keys] == ["l"]
    assert none.keys == ()
    assert none.reason is None


def test_a_host_lends_an_adapter_its_own_secrets_only() -> None:
    credentials = tuple(Credential(name=n, source="env:X", value=Secret(n * 8)) for n in "kl")
    generation = build(
        instance("a", credentials=("k",), base_url=Secret("https://a.example/v1")),
        instance("b", credentials=("l",)),
        credentials=credentials,
    )
    assert [s.reveal() for s in generation.instances[0].host(debug_raw=True).redact] == [
        "kkkkkkkk",
        "https://a.example/v1",
    ]
    assert [s.reveal() for s in generation.instances[1].host(debug_raw=True).redact] == ["llllllll"]


def test_the_spec_of_an_instance() -> None:
    generation = generation_of(instance("a", limits=Limits(max_inflight=5, max_queue=9)))
    spec = generation.spec(generation.instances[0], drain=2.0)
    assert (spec.name, spec.concurrency, spec.mailbox, spec.drain) == ("a", 5, 9, 2.0)


WHERE = Origin(file="spear.toml", line=14, key="backends[2]")


def test_every_problem_is_listed_with_its_place() -> None:
    found = problems(
        instance("a", kind="no_such", origin=WHERE),
        instance("b", ops=(Operation.IMAGE_GENERATION, CHAT), origin=WHERE),
        instance("c", ops=(), origin=WHERE),
        instance("d", credentials=("gone", "k"), origin=WHERE),
        instance("e", options={"wrong": 1}, origin=WHERE),
        instance("f", origin=WHERE),
        instance("f", origin=WHERE),
        instance("g", base_url=Secret("http://canary.example"), hosting=Hosting.REMOTE, origin=WHERE),
        credentials=(Credential(name="k", source="env:K"),),
        default_policy="fastest",
        routes=(
            Route(policy="nope", allow_policies=("neither",), origin=Origin(file="x", line=3, key="routes[0]")),
            Route(policy="priority", within_level="priority"),
            Route(fallback=("nobody",)),
        ),
        tasks=(TaskConfig(id="t", allow_backends=("a", "zz")),),
    )
    expected = [
        ("spear.toml:14: backends[2].kind: ", "no_such"),
        ("spear.toml:14: backends[2].ops: ", "image_generation; it does chat_completions, embeddings"),
        ("spear.toml:14: backends[2].ops: ", "empty"),
        ("spear.toml:14: backends[2].credentials: ", "'gone'; there are: k"),
        ("spear.toml:14: backends[2]: ", "nothing is right"),
        ("spear.toml:14: backends[2].name: ", "'f'"),
        ("spear.toml:14: backends[2].base_url: ", "allow_plaintext"),
        ("configuration: default_policy: ", "'fastest'; there are: cheapest, consistent_hash"),
        ("x:3: routes[0].policy: ", "'nope'"),
        ("x:3: routes[0].allow_policies: ", "'neither'"),
        ("configuration: within_level: ", "'priority'; there are: cheapest, consistent_hash"),
        ("configuration: fallback: ", "'nobody'; there are: none"),
        ("configuration: allow_backends: ", "'zz'; there are: a, b"),
    ]
    assert len(found) == len(expected)
    for text, (start, part) in zip(found, expected, strict=True):
        assert text.startswith(start)
        assert part in text
        assert "canary" not in text


def test_kinds_that_come_later_say_so() -> None:
    (problem,) = problems(instance("a", kind="openai_realtime_ws"))
    assert "not built in" in problem


def test_the_legacy_layout_leaves_out_what_it_cannot_use() -> None:
    generation = build(
        instance("a", kind="no_such"),
        instance("b", ops=(Operation.IMAGE_GENERATION,)),
        instance("c", ops=(Operation.IMAGE_GENERATION, CHAT)),
        instance("d", ops=(CHAT,)),
        layout="spearlet",
    )
    assert [(each.name, each.index) for each in generation.instances] == [("c", 0), ("d", 1)]
    assert generation.by_name["c"].ops == {CHAT}
    assert [(each.name, each.reason) for each in generation.skipped] == [
        ("a", "unknown_kind"),
        ("b", "no_operations"),
    ]


def test_an_empty_configuration_is_one() -> None:
    assert build().instances == ()


def test_a_generation_shows_no_secret() -> None:
    credentials = (Credential(name="k", source="env:K", value=Secret("sk-canary")),)
    generation = build(
        instance("a", credentials=("k",), base_url=Secret("https://canary.example")),
        credentials=credentials,
    )
    assert "canary" not in repr(generation) + repr(generation.instances[0])
    with pytest.raises(TypeError):
        pickle.dumps(generation)


def test_prices_and_clocks_stay_with_the_instance() -> None:
    price = Price(input=1.0)
    assert generation_of(instance("a", price=price)).instances[0].config.price == price
