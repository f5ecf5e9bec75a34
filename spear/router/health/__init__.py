"""Health: who is left out for a while because of how it has answered.

    _window     outcomes of the last seconds, counted
    _breaker    closed, open, half-open: one instance and operation
    _outlier    who stands out in a group of instances, and for how long it is ejected
    _standing   all of it for one instance: what the filter asks and the attempt loop reports to

All of it is state and arithmetic: no clock (the time is given), no I/O, no randomness of its own (a jitter is given).
"""

from ._breaker import Breaker as Breaker
from ._breaker import Trial as Trial
from ._outlier import Ejection as Ejection
from ._outlier import Group as Group
from ._outlier import Tally as Tally
from ._outlier import outliers as outliers
from ._standing import BREAKER_OPEN as BREAKER_OPEN
from ._standing import EJECTED as EJECTED
from ._standing import HALF_OPEN as HALF_OPEN
from ._standing import Health as Health
from ._standing import Verdict as Verdict
from ._standing import form_groups as form_groups
from ._window import Window as Window
