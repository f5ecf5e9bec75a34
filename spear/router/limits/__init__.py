"""Limits and budgets: who may still take how much.

    _meter         what a limit is made of: admits, reserve, settle
    _gcra          a rate, in this process
    _window        a budget's window, in this process
    _amounts       how much an attempt takes, and what has been learned of that
    _reservation   what one attempt has taken, settled once
    _allowance     one limit as an attempt meets it, for one subject or for each of many
    _budget        a budget of the configuration
    _bounds        all of it for one instance: what the filter asks and the attempt loop takes from
    _counts        what limits have done
    _book          all meters of a runtime, across reloads

All of it is state and arithmetic: no clock (the time is given), no I/O, no randomness.
"""

from ._amounts import ASKED as ASKED
from ._amounts import NOTHING as NOTHING
from ._amounts import Amounts as Amounts
from ._amounts import Outputs as Outputs
from ._amounts import amounts_of as amounts_of
from ._book import RATE_REASONS as RATE_REASONS
from ._book import RATES as RATES
from ._book import Book as Book
from ._book import local_meter as local_meter
from ._bounds import Bounds as Bounds
from ._budget import BUDGET as BUDGET
from ._budget import Budget as Budget
from ._counts import LimitCounts as LimitCounts
from ._gcra import Gcra as Gcra
from ._meter import Meter as Meter
from ._meter import MeterFactory as MeterFactory
from ._meter import Quota as Quota
from ._reservation import Reservation as Reservation
from ._window import Window as Window
