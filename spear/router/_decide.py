"""`decide`: who takes a request. Pure: no I/O, no clock, no randomness of its own.

The same generation, instance states, facts, memory, seed and time give the same plan, so any recorded decision can be
replayed. Nothing is changed here: the caller applies the `Change` that comes with a plan.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from collections.abc import Set as AbstractSet
from math import ceil, inf
from typing import TYPE_CHECKING, Final, NamedTuple

from spear.ir import CanonicalError, ErrorCode, invalid_request, make_error

from ._case import Case
from ._draws import Draws
from ._facts import Facts
from ._filter import Filtered, admit
from ._instance import Instance
from ._no_room import RETRY_HINT_MS as RETRY_HINT_MS
from ._no_room import no_room
from ._reweigh import refuse_filtered, reweighted
from ._routes import Route, find_route
from .health import BREAKER_OPEN, EJECTED, HALF_OPEN
from .keys import KEYS_COOLING
from .policies import POLICIES, Candidate, Change, Choice, Memory

if TYPE_CHECKING:
    from ._registry import Generation
    from .record import Step

_NAMES_SHOWN: Final = 8
_NOBODY: Final[frozenset[str]] = frozenset()
_UNWELL: Final = frozenset({BREAKER_OPEN, HALF_OPEN, EJECTED})


class Plan(NamedTuple):
    """Refers to the live instances; make an explanation of it at once if it is to be kept. Either `chosen` or `error`
    is None."""

    generation: int
    seed: int
    facts: Facts
    policy: str
    candidates: Sequence[Instance]
    rejected: Mapping[str, str]
    chosen: Instance | None = None
    choice: Choice | None = None
    change: Change | None = None
    note: str = ""
    error: CanonicalError | None = None
    refused: bool = False
    """The request asks for what it may not have; no other model class makes that right."""
    recovery: float | None = None
    """Where nobody was left because nobody is well: when to look again, on Trio's clock."""
    step: Step | None = None
    """Where it is to be recorded."""

    @property
    def order(self) -> tuple[str, ...]:
        """The candidates' names: the chosen one, then the others by their scores, those without a score last."""
        choice = self.choice
        if choice is None:
            return ()
        sign = 1 if choice.best == "lowest" else -1
        scores = choice.scores

        def rank(position: int) -> tuple[bool, bool, float]:
            score = scores[position]
            return position != choice.position, score is None, sign * (score or 0)

        return tuple(self.candidates[p].name for p in sorted(range(len(self.candidates)), key=rank))


def decide(
    generation: Generation,
    instances: Sequence[Instance],
    facts: Facts,
    memory: Memory,
    seed: int,
    now: float,
    *,
    exclude: AbstractSet[str] = _NOBODY,
    panic: bool = False,
) -> tuple[Plan, Change | None]:
    """A plan, and what the policy's memory is to become. `exclude` names instances that were tried already. `now` is
    Trio's clock. `panic` makes candidates of those that are unwell, where nobody is well."""
    route = find_route(generation.routes, facts)
    policy = facts.policy or route.policy_for(facts.operation)
    refusal = None
    if facts.policy is not None:
        refusal = _refuse_policy(facts.policy, facts, route)
    if refusal is None and facts.backend is not None:
        refusal = _refuse_backend(generation, facts.backend, facts)
    if refusal is None and facts.verdict is not None:
        refusal = refuse_filtered(facts.verdict, facts)
    if refusal is not None:
        return Plan(generation.number, seed, facts, policy, (), {}, error=refusal, refused=True), None
    task = None if facts.task_id is None else generation.tasks.get(facts.task_id)
    remembered = generation.remembered if instances is generation.instances else None
    found = admit(instances, Case(facts, task, exclude, now, seed, panic), remembered)
    if found.code is not None:
        recovery = _recovery(instances, facts, found, now)
        error = _nobody(generation, instances, facts, found, recovery, now)
        return Plan(generation.number, seed, facts, policy, (), found.rejected, error=error, recovery=recovery), None
    candidates, note = found.candidates, ""
    if facts.preferred_backends or facts.preferred_features:
        candidates, note = _prefer(candidates, facts)
    options, name = route.options, policy
    if policy == "priority":
        name = f"{policy}/{options.spill}/{options.within_level}"
        if options.spill == "proportional":
            options = options._replace(standing=_standing(found, candidates, facts, exclude))
    views: Sequence[Candidate] = candidates
    if facts.verdict is not None:
        note = "; ".join(part for part in (note, facts.verdict.note) if part)
        if facts.verdict.weights:
            views = reweighted(candidates, facts.verdict.weights)
            name = f"{name}/{','.join([str(each.weight) for each in views])}"
    key, state = None, None
    if POLICIES[policy].remembers:
        key = (name, tuple([each.index for each in candidates]))
        state = memory.get(key)
    choice = POLICIES[policy].choose(views, facts, state, Draws(seed), now, options)
    change = None if key is None or choice.state is None else Change(key, choice.state)
    chosen = candidates[choice.position]
    note = choice.note if not note else f"{note}; {choice.note}" if choice.note else note
    return Plan(
        generation.number, seed, facts, policy, candidates, found.rejected, chosen, choice, change, note
    ), change


def _standing(
    found: Filtered, candidates: Sequence[Instance], facts: Facts, exclude: AbstractSet[str]
) -> Mapping[int, int]:
    """By level, the weight of all that could be candidates if they were up and had room."""
    able = found.able if candidates is found.candidates else _prefer(found.able, facts)[0]
    standing: dict[int, int] = {}
    weights = {} if facts.verdict is None else facts.verdict.weights
    for each in able if not weights else reweighted(able, weights):
        if each.name not in exclude:
            standing[each.priority] = standing.get(each.priority, 0) + each.weight
    return standing


def _prefer(candidates: Sequence[Instance], facts: Facts) -> tuple[Sequence[Instance], str]:
    """Those the request would rather have, if there are any: by name, then by features."""
    note = ""
    if facts.preferred_backends:
        named = [each for each in candidates if each.name in facts.preferred_backends]
        if named:
            candidates, note = named, "preferred backends"
    if facts.preferred_features:
        able = [each for each in candidates if each.features.issuperset(facts.preferred_features)]
        if able:
            candidates, note = able, f"{note} and features" if note else "preferred features"
    return candidates, note


def _refuse_policy(name: str, facts: Facts, route: Route) -> CanonicalError | None:
    """A request's own policy outside the host's bounds is an error, not ignored: whoever names one relies on it."""
    allowed = sorted({*route.allow_policies, route.policy_for(facts.operation)})
    if name not in allowed:
        return invalid_request("policy.name", f"not allowed here; allowed: {', '.join(allowed)}").error
    if facts.policy_options:
        return invalid_request("policy.options", f"{name} has no options that a request may set").error
    return None


def _refuse_backend(generation: Generation, name: str, facts: Facts) -> CanonicalError | None:
    if name in generation.by_name:
        return None
    skipped = next((each for each in generation.skipped if each.name == name), None)
    message = (
        "the named backend is not configured"
        if skipped is None
        else f"the named backend was left out of the configuration: {skipped.reason}"
    )
    return make_error(ErrorCode.BACKEND_NOT_ENABLED, message, operation=facts.operation)


def _recovery(instances: Sequence[Instance], facts: Facts, found: Filtered, now: float) -> float | None:
    """When the first of those recovers that were the last to be taken out, or has a key again."""
    if found.step != "health":
        return None
    unwell = [each for each in instances if found.rejected.get(each.name) in _UNWELL]
    if not unwell:
        return None
    first = min(each.health.recovers_at(facts.operation, now) for each in unwell)
    return min(first, _cooled(instances, found, now))


def _cooled(instances: Sequence[Instance], found: Filtered, now: float) -> float:
    """When the first of those may be asked again that have nothing but cooling keys."""
    cooling = [each for each in instances if found.rejected.get(each.name) == KEYS_COOLING]
    return min((each.keys_ready_at(now) for each in cooling), default=inf)


def _nobody(
    generation: Generation,
    instances: Sequence[Instance],
    facts: Facts,
    found: Filtered,
    recovery: float | None,
    now: float,
) -> CanonicalError:
    if found.step == "admission":
        return no_room(generation, instances, facts, found.rejected, now)
    if found.step == "keys" and KEYS_COOLING in found.rejected.values():
        found, recovery = found._replace(code=ErrorCode.RATE_LIMITED), _cooled(instances, found, now)
    assert found.code is not None
    hint = RETRY_HINT_MS if recovery is None else ceil((recovery - now) * 1000)
    unavailable = found.code in (ErrorCode.BACKEND_UNAVAILABLE, ErrorCode.RATE_LIMITED)
    return make_error(
        found.code,
        _message(generation, facts, found),
        operation=facts.operation,
        required=(facts.operation.value, *facts.ops, *facts.features, *facts.transports),
        candidates_checked=tuple(generation.by_name),
        rejected_reasons=found.rejected,
        retry_after_ms=hint if unavailable else None,
    )


def _message(generation: Generation, facts: Facts, found: Filtered) -> str:
    match found.step:
        case _ if not found.rejected:
            return "no backend is configured"
        case "configured":
            return "no backend is in service: " + _counted(found.rejected)
        case "operation":
            return f"no backend does {facts.operation.value}"
        case "capabilities":
            others = f"operation:{facts.operation.value}"  # who does something else says nothing about what is missing
            able = {name: reason for name, reason in found.rejected.items() if reason != others}
            return "no backend has all that the request needs: " + _counted(able)
        case "lists" | "rights" if facts.backend is not None:
            return f"the named backend cannot take it: {found.rejected[facts.backend]}"
        case "lists" | "rights":
            return "no backend is left by the lists of the request and the rights of its task: " + _counted(
                found.rejected
            )
        case "filter":
            return "no backend is left by the external filter: " + _counted(found.rejected)
        case "binding":
            bound = (each for each in generation.instances if found.rejected[each.name] == "model_mismatch")
            names = sorted({name for each in bound for name in each.answers_to})
            more = ", …" if len(names) > _NAMES_SHOWN else ""
            there = f"there are: {', '.join(names[:_NAMES_SHOWN])}{more}"
            out = {
                each.name: found.rejected[each.name]
                for each in generation.instances
                if facts.model in each.answers_to and each.name in found.rejected
            }
            if out:  # it is configured, and taken out before its model was looked at
                return f"no backend that has this model can take the request: {_counted(out)}; {there}"
            return f"no backend has this model; {there}"
        case "keys" if found.code is ErrorCode.RATE_LIMITED:
            return "every key of the backends that could take the request has reached its rate limit"
        case "keys":
            return "no backend that could take the request has a usable key left: " + _counted(found.rejected)
        case _:
            return "every backend that could take the request is unavailable: " + _counted(found.rejected)


def _counted(rejected: Mapping[str, str]) -> str:
    """`2 missing_credential, 1 operation:embeddings`."""
    counts: dict[str, int] = {}
    for reason in rejected.values():
        counts[reason] = counts.get(reason, 0) + 1
    return ", ".join(f"{count} {reason}" for reason, count in sorted(counts.items()))
