"""The hard constraints: who may take a request, and why each of the others may not.

The steps stand in order in `_LASTING` and `_NOW`; the code of the error is that of the step which removed the last
candidate. Each fallback passes the same steps. Those already tried are taken out only after the model binding: were
they taken out before, a request for a bound model could slip to an unbound instance once the bound ones had failed.

The steps up to the model binding depend on nothing that changes within a generation. What they leave is remembered by
what they read of the request, unless an instance limits sizes. Where an external filter was asked, what it said stands
before the model binding, and only what the steps before that leave is remembered.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from typing import Final, NamedTuple

from spear.ir import ErrorCode, Limits

from ._case import Case, Instances, Reject, keep
from ._facts import Facts
from ._instance import Instance
from ._moment import admission, health, keys, slow_start, untried

FILTERED: Final = "filtered"
FORCED_OTHER: Final = "filtered:forced_other"
_MOST_NAMES: Final = 128
_MOST_CHARS: Final = 4096


class Filtered(NamedTuple):
    """`code` and `step` are those of the step that left nobody; None where candidates are left. `able`: those whom
    only the moment kept out are among them."""

    candidates: Instances
    rejected: Mapping[str, str]
    code: ErrorCode | None = None
    step: str | None = None
    able: Instances = ()


class _Step(NamedTuple):
    name: str
    code: ErrorCode
    sift: Callable[[Instances, Case, Reject], Instances]


class Remembered:
    """What the lasting steps left, for the requests seen last; belongs to one tuple of instances. Not for those that
    name very much: their callers could fill the memory with it."""

    __slots__ = ("_found", "_most", "usable")

    def __init__(self, instances: Instances, most: int = 256) -> None:
        self.usable = not any(each.checks_limits for each in instances)
        self._found: OrderedDict[object, Filtered] = OrderedDict()
        self._most = most

    def __len__(self) -> int:
        return len(self._found)

    def get(self, key: object) -> Filtered | None:
        found = self._found.get(key)
        if found is not None:
            self._found.move_to_end(key)
        return found

    def put(self, key: object, found: Filtered) -> None:
        self._found[key] = found
        if len(self._found) > self._most:
            self._found.popitem(last=False)


def admit(instances: Instances, case: Case, remembered: Remembered | None = None) -> Filtered:
    """`remembered` is for these very instances."""
    if case.facts.verdict is None:
        lasting = _lasting(instances, case, remembered)
    else:
        lasting = considered(instances, case, remembered)
        if lasting.code is None:
            lasting = _run(_SAID, lasting.candidates, case, dict(lasting.rejected))
    if lasting.code is not None:
        return lasting
    return _run(_NOW, lasting.candidates, case, dict(lasting.rejected), lasting.candidates)


def refusal_of(instance: Instance, case: Case) -> str | None:
    """Why the lasting steps, or an external filter, keep the request from `instance`, whatever its model; None = they
    do not."""
    rejected: Reject = {}
    for step in _BEFORE if case.facts.verdict is None else (*_BEFORE, _SAID[0]):
        if not step.sift((instance,), case, rejected):
            return rejected[instance.name]
    return None


def considered(instances: Instances, case: Case, remembered: Remembered | None = None) -> Filtered:
    """Whom an external filter may speak of: those that pass all steps before it."""
    return _lasting(instances, case, remembered, _BEFORE)


def _lasting(
    instances: Instances, case: Case, remembered: Remembered | None, steps: tuple[_Step, ...] | None = None
) -> Filtered:
    """By default all steps up to the binding."""
    if remembered is None or not remembered.usable:
        return _run(steps or _LASTING, instances, case, {})
    facts = case.facts
    key = (
        facts.operation, facts.model, facts.task_id if case.task is not None else None, facts.backend,
        facts.allowlist, facts.denylist, facts.ops, facts.features, facts.transports, steps is None,
    )  # fmt: skip
    found = remembered.get(key)
    if found is None:
        found = _run(steps or _LASTING, instances, case, {})
        if _names_little(facts):
            remembered.put(key, found)
    return found


def _names_little(facts: Facts) -> bool:
    own = facts.model, facts.backend or ""
    lists: tuple[Sequence[str], ...] = (
        own, facts.allowlist, facts.denylist, facts.ops, facts.features, facts.transports,
    )  # fmt: skip
    return sum(map(len, lists)) <= _MOST_NAMES and sum(len(name) for names in lists for name in names) <= _MOST_CHARS


def _run(steps: Sequence[_Step], left: Instances, case: Case, rejected: Reject, able: Instances = ()) -> Filtered:
    for step in steps:
        left = step.sift(left, case, rejected)
        if not left:
            return Filtered((), rejected, step.code, step.name, able)
    return Filtered(left, rejected, None, None, able)


def _keep_named(left: Instances, rejected: Reject, names: Iterable[str], reason: str) -> Instances:
    wanted = frozenset(names)
    return keep(left, rejected, lambda each: None if each.name in wanted else reason)


def _configured(left: Instances, case: Case, rejected: Reject) -> Instances:
    return keep(left, rejected, lambda each: each.reason)


def _operation(left: Instances, case: Case, rejected: Reject) -> Instances:
    operation = case.facts.operation
    kept = []
    for each in left:
        if operation in each.ops:
            kept.append(each)
        else:
            rejected[each.name] = f"operation:{operation.value}"
    if not case.facts.ops:
        return kept
    return keep(kept, rejected, lambda each: _missing("operation", case.facts.ops, each.ops))


def _capabilities(left: Instances, case: Case, rejected: Reject) -> Instances:
    facts = case.facts
    if facts.features:
        left = keep(left, rejected, lambda each: _missing("feature", facts.features, each.features))
    if facts.transports:
        wanted = frozenset(facts.transports)
        reason = f"transport:{'|'.join(facts.transports)}"
        left = keep(left, rejected, lambda each: None if wanted & each.transports else reason)
    if any(each.checks_limits for each in left):
        left = keep(left, rejected, lambda each: _limit(facts, each.capabilities.limits))
    return left


def _missing(what: str, wanted: Sequence[str], has: AbstractSet[str]) -> str | None:
    for each in wanted:
        if each not in has:
            return f"{what}:{each}"
    return None


def _limit(facts: Facts, limits: Limits) -> str | None:
    sizes = facts.sizes
    for name, most, value in (
        ("max_input_tokens", limits.max_input_tokens, facts.input_tokens),
        ("max_output_tokens", limits.max_output_tokens, sizes.output_tokens),
        ("max_chars", None if sizes.splits else limits.max_chars, sizes.chars),
        ("max_payload_bytes", limits.max_payload_bytes, facts.payload_bytes),
        ("max_images_per_request", limits.max_images_per_request, sizes.images),
        ("max_image_size", limits.max_image_size, sizes.size),
    ):
        if most is not None and value > most:
            return f"limit:{name}"
    for name, known, wanted in (
        ("supported_formats", limits.supported_formats, sizes.format),
        ("supported_voices", limits.supported_voices, sizes.voice),
    ):
        if known is not None and wanted is not None and wanted not in known:
            return f"limit:{name}"
    return None


def _lists(left: Instances, case: Case, rejected: Reject) -> Instances:
    facts = case.facts
    if facts.backend is not None:
        left = _keep_named(left, rejected, (facts.backend,), "not_the_named_backend")
    if facts.allowlist:
        left = _keep_named(left, rejected, facts.allowlist, "not_in_allowlist")
    if facts.denylist:
        denied = frozenset(facts.denylist)
        left = keep(left, rejected, lambda each: "in_denylist" if each.name in denied else None)
    return left


def _rights(left: Instances, case: Case, rejected: Reject) -> Instances:
    """What the task may do. The egress policy has judged the instances when the configuration was loaded."""
    task = case.task
    if task is None:
        return left
    if task.allow_operations is not None and case.facts.operation not in task.allow_operations:
        return keep(left, rejected, lambda each: "task_operation_not_allowed")
    if task.allow_backends is not None:
        return _keep_named(left, rejected, task.allow_backends, "task_backend_not_allowed")
    return left


def external(left: Instances, case: Case, rejected: Reject) -> Instances:
    """What the external filter said."""
    verdict = case.facts.verdict
    if verdict is None:
        return left
    if verdict.dropped:
        left = keep(left, rejected, lambda each: FILTERED if each.name in verdict.dropped else None)
    if verdict.forced is not None:
        left = keep(left, rejected, lambda each: None if each.name == verdict.forced else FORCED_OTHER)
    return left


def _binding(left: Instances, case: Case, rejected: Reject) -> Instances:
    model = case.facts.model
    if not model or not any(each.answers_to for each in left):
        return left
    return keep(left, rejected, lambda each: None if model in each.answers_to else "model_mismatch")


_NOBODY, _MISSING = ErrorCode.NO_CANDIDATE_BACKEND, ErrorCode.MISSING_CAPABILITIES
_LASTING: Final = (
    _Step("configured", _NOBODY, _configured),
    _Step("operation", _MISSING, _operation),
    _Step("capabilities", _MISSING, _capabilities),
    _Step("lists", _NOBODY, _lists),
    _Step("rights", _NOBODY, _rights),
    _Step("binding", _NOBODY, _binding),
)
_BEFORE: Final = _LASTING[:-1]
_SAID: Final = (_Step("filter", _NOBODY, external), _LASTING[-1])
_NOW: Final = (
    _Step("untried", ErrorCode.BACKEND_UNAVAILABLE, untried),
    # Before health: while somebody is merely unwell, there is a recovery to wait for.
    _Step("keys", ErrorCode.CREDENTIALS_EXHAUSTED, keys),
    _Step("health", ErrorCode.BACKEND_UNAVAILABLE, health),
    _Step("admission", ErrorCode.OVERLOADED, admission),
    _Step("slow start", ErrorCode.BACKEND_UNAVAILABLE, slow_start),
)
