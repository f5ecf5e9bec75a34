"""The selection policies, by name. A new one is a module here and a line in `_table`.

    _policy                what a policy is
    _weighted_random       weighted_random
    _weighted_round_robin  weighted_round_robin, round_robin
    _least_inflight        least_inflight
    _ewma_latency          ewma_latency
    _peak_ewma             peak_ewma
    _race                  what these two share
    _consistent_hash       consistent_hash
    _cheapest              cheapest
    _priority              priority, over the others
    _pair                  power of two choices
    _table                 the table
    _memory                what policies remember, bounded

All are pure: the same candidates, facts, state and seed give the same choice.
"""

from ._cheapest import OUTPUT_GUESS as OUTPUT_GUESS
from ._cheapest import expected_costs as expected_costs
from ._memory import Change as Change
from ._memory import Memory as Memory
from ._policy import Candidate as Candidate
from ._policy import Choice as Choice
from ._policy import Options as Options
from ._policy import Policy as Policy
from ._policy import State as State
from ._priority import Level as Level
from ._table import POLICIES as POLICIES
from ._table import WITHIN_LEVEL as WITHIN_LEVEL
from ._weighted_round_robin import Wheel as Wheel
