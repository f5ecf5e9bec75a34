"""Mirroring: some requests go to one more backend, whose answers nobody gets, to be compared.

_similarity  how alike two texts are
_conform     whether an answer is the JSON that was asked for
_side        how one of the two calls went
_compare     two answers -> what differs
_record      what is kept of it, as a line
_summary     many lines -> a report
_journal     a file of lines that stays within its bound
_purse       what mirroring may spend
_counts      what is counted
_gate        who may be mirrored to
_mirroring   what outlives the actor; where the router hands over
_actor       the actor
"""

from ._actor import Mirrors as Mirrors
from ._actor import mirrors_spec as mirrors_spec
from ._journal import Journal as Journal
from ._mirroring import Mirroring as Mirroring
from ._record import BadRecord as BadRecord
from ._record import MirrorRecord as MirrorRecord
from ._record import read_record as read_record
from ._record import write_record as write_record
from ._side import Primary as Primary
from ._summary import Bad as Bad
from ._summary import Group as Group
from ._summary import Summary as Summary
from ._summary import read_lines as read_lines
