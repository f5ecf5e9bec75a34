"""Decisions, recorded so that they can be replayed.

    _state       what a decision reads of an instance at its moment, and an instance that stands still in it
    _remembered  what a policy remembered, as JSON
    _generation  a generation as a record, without secrets, and back
    _decision    one decision as a record, and back into the arguments of `decide`
    _trail       what one request's course leaves: its decisions and what became of them
    _log         which of them are kept: the ring in memory, and what waits for the file
    _file        the rotating file
    _writer      the actor that writes it
    _reader      the lines of files, whatever stands there
    _replay      deciding again: the same way, or as another policy or configuration would
    _tally       what that comes to, counted

The format is version 1: one JSON object a line, `kind` "generation" or "decision".
"""

from ._generation import still as still
from ._log import Decisions as Decisions
from ._log import Ending as Ending
from ._reader import Place as Place
from ._reader import Unreadable as Unreadable
from ._reader import in_order as in_order
from ._reader import read_records as read_records
from ._replay import Replay as Replay
from ._replay import Skipped as Skipped
from ._replay import Verdict as Verdict
from ._tally import NOBODY as NOBODY
from ._tally import Tally as Tally
from ._trail import Step as Step
from ._trail import Trail as Trail
from ._writer import DecisionWriter as DecisionWriter
from ._writer import flush_decisions as flush_decisions
