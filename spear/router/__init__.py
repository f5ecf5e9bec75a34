"""The router: from a request envelope to a response, through a decision that can be explained.

    policies/    who of the candidates: one pure module for each policy
    _verdict     what an external filter said, clamped
    _draws       the random numbers of one decision
    _latency     how long an instance takes
    _instance    the live view of one configured instance
    _affinity    what requests can be kept together by
    _facts       what a decision may know of a request
    _case        what the filter's steps read
    _moment      those steps that depend on the moment
    _filter      the hard constraints, with reasons
    _reweigh     what a verdict does beside that
    _hedge       when an attempt is late, and what pays for a second one
    _routes      which route, hence which policy and fallback
    _decide      facts -> Plan
    _probe       what an active probe asks
    _registry    a configuration -> Generation
    _question    what a filter is asked
    _succession  a generation and the next one -> what starts, stays and leaves
    _explain     Plan -> Explanation
    _failures    what follows from which failure: the table
    _counts      what is counted
    _usage       tokens and costs, also where nobody said
    _retry       backoff, throttle and budget of repetitions
    limits/      rates and budgets: meters, reservations
    _no_room     the error where nobody has room
    _settle      what an attempt came to, in the quantities of its limits
    record/      decisions recorded, and replayed
    health/      breakers, outlier ejection, slow start: pure state
    keys/        which of its keys an instance uses; cooling and dead ones
    _bell        rings when somebody may have recovered
    _desk        what outlives the router's actor
    probes/      active probes, and the actor that sends them
    _respond     envelopes that it makes
    _leg         one attempt, and a pause between two
    _external    asking an external filter
    _again       which instances one request may be sent to again
    _attempts    what a request's attempts hold and came to
    _course      which of them comes next, without I/O
    _pause       waiting between them
    _continuation  what a stream that broke off has said, and the request for the rest
    _race        several attempts side by side
    _invoke      attempts for one answer
    _relay       attempts for a stream, up to the commit and after it
    _actor       the actor, and asking it
    mirrors/     some requests once more, to compare

Everything up to `_explain` is pure: no clock, no I/O, no randomness of its own. Nothing else in the system retries
or falls back.
"""

from ._actor import Route as Route
from ._actor import Router as Router
from ._actor import RouterMessage as RouterMessage
from ._actor import RouteStream as RouteStream
from ._actor import invoke as invoke
from ._actor import router_spec as router_spec
from ._actor import stream as stream
from ._decide import Plan as Plan
from ._decide import decide as decide
from ._desk import Desk as Desk
from ._explain import COLUMNS as COLUMNS
from ._explain import Considered as Considered
from ._explain import Explanation as Explanation
from ._explain import explain as explain
from ._external import ExternalFilter as ExternalFilter
from ._external import FilterFailed as FilterFailed
from ._facts import Facts as Facts
from ._facts import facts_of as facts_of
from ._instance import Instance as Instance
from ._registry import Generation as Generation
from ._registry import build_generation as build_generation
from ._respond import failed_response as failed_response
from ._succession import Succession as Succession
from ._succession import succeed as succeed
from .mirrors import Mirroring as Mirroring
from .mirrors import MirrorRecord as MirrorRecord
from .mirrors import mirrors_spec as mirrors_spec
from .policies import POLICIES as POLICIES
from .policies import Memory as Memory
from .record import Decisions as Decisions
from .record import DecisionWriter as DecisionWriter
from .record import flush_decisions as flush_decisions
