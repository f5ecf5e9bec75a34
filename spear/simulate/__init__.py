"""Simulation: the real router, its actors, breakers, retries and limits, in virtual time over modelled backends.

    _scenario       what a scenario says, with _distribution
    _compare        the variants that it compares
    _read           from TOML to a scenario
    _shipped        the scenarios that come with the package
    _traffic        when requests arrive: open loop
    _weather        what holds at a backend at a time
    _model          a modelled backend, as a kind
    _histogram      a distribution in constant space
    _tally          what a run came to
    _drive          sends the traffic and counts
    _clock          virtual time
    _determinism    Trio's private switch: the same seed, the same course
    _run            one variant, from its start to its end
    _worker         that in a process of its own, which `python -m spear.simulate` is
    _workers        several of these side by side
    _report         tables
    _plot           a figure; needs matplotlib

Nothing here is imported by the runtime. Nothing here looks at the wall clock.
"""

from ._determinism import NotDeterministic as NotDeterministic
from ._plot import check_plot as check_plot
from ._read import parse_scenario as parse_scenario
from ._read import read_scenario as read_scenario
from ._report import COLUMNS as COLUMNS
from ._report import shares as shares
from ._report import summary as summary
from ._report import troubles as troubles
from ._run import run_variant as run_variant
from ._scenario import Scenario as Scenario
from ._shipped import find_scenario as find_scenario
from ._shipped import shipped as shipped
from ._workers import Job as Job
from ._workers import WorkerFailed as WorkerFailed
from ._workers import run_jobs as run_jobs
