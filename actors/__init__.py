"""Supervised actors on Trio.

Map, from low to high; at run time each module imports only what stands before it:

    _errors       every error, with the tree          _backoff    delays between restarts (pure)
    _plan         who stops and starts (pure)         _failures   what an incarnation died of (pure)
    _snapshot     Exit and Node: frozen views         _instrument hooks for observers
    _mailbox      the bounded queue and its loops     _reply      what an asker waits on
    _accepts      message classes of a class header   _actor      Request, Actor, Context, Spec
    _ref          Ref and Stream: the sender's side   _watch      monitors
    _loop         one loop and its turns              _cell       one child across its incarnations
    _stopping     drain, cancel, wait                 _repair     carries out restarts
    _supervisor   Supervisor, open_supervisor         testing     (public) helpers for tests
"""

from __future__ import annotations

from ._actor import Actor as Actor
from ._actor import Context as Context
from ._actor import Request as Request
from ._actor import Sink as Sink
from ._actor import Spec as Spec
from ._actor import StreamRequest as StreamRequest
from ._backoff import Backoff as Backoff
from ._errors import ActorCrashed as ActorCrashed
from ._errors import ActorError as ActorError
from ._errors import ActorStopped as ActorStopped
from ._errors import LifespanEnded as LifespanEnded
from ._errors import MailboxFull as MailboxFull
from ._errors import NameTaken as NameTaken
from ._errors import RestartLimitExceeded as RestartLimitExceeded
from ._errors import SelfAsk as SelfAsk
from ._errors import SelfStop as SelfStop
from ._errors import StartFailed as StartFailed
from ._errors import SupervisorClosed as SupervisorClosed
from ._errors import UnknownMessage as UnknownMessage
from ._instrument import Instrument as Instrument
from ._ref import Ref as Ref
from ._ref import Stream as Stream
from ._snapshot import Exit as Exit
from ._snapshot import Node as Node
from ._supervisor import Supervisor as Supervisor
from ._supervisor import open_supervisor as open_supervisor

__all__ = [
    "Actor",
    "ActorCrashed",
    "ActorError",
    "ActorStopped",
    "Backoff",
    "Context",
    "Exit",
    "Instrument",
    "LifespanEnded",
    "MailboxFull",
    "NameTaken",
    "Node",
    "Ref",
    "Request",
    "RestartLimitExceeded",
    "SelfAsk",
    "SelfStop",
    "Sink",
    "Spec",
    "StartFailed",
    "Stream",
    "StreamRequest",
    "Supervisor",
    "SupervisorClosed",
    "UnknownMessage",
    "open_supervisor",
]
