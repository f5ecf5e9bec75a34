"""Key pools: which of its keys an instance uses, and what becomes of a key that a backend limits or refuses.

    _state   one key and one quota group: ok, cooling, dead, on trial
    _pick    which of several: by session, else in turn
    _pool    the keys of one instance
    _trail   the keys that one request has used
    _ring    the keys of all instances; outlives reloads

Times are on Trio's clock. What the filter asks (`reason`, `ready_at`) changes nothing; what the attempt loop reports
does.
"""

from ._pool import KEYS_COOLING as KEYS_COOLING
from ._pool import KEYS_DEAD as KEYS_DEAD
from ._pool import Pool as Pool
from ._ring import Ring as Ring
from ._state import KeyState as KeyState
from ._trail import Trail as Trail
