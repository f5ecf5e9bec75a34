"""Limits and budgets: who may still take how much.

    _meter    what a limit is made of: admits, reserve, settle
"""

from ._meter import Meter as Meter
from ._meter import MeterFactory as MeterFactory
from ._meter import Quota as Quota
