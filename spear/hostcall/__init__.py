"""Layer 1: WebAssembly guests as Trio tasks, and the hostcalls they make. Loads wasmtime; import it late.

Map, from the outside in:

    _engine        GuestEngine: load, run; modules in memory; what is shared by all guests
    _module        bytes -> Module (checks, compile, imports)          _cache        compiled modules on disk
    _run           one execution, entry rules, outcome                 _execution    its result; GuestTask
    _filter_call   asking a routing filter
    _termination   the handle that ends a guest                        _errors       what load and run raise
    _guest         the state of one guest; _endings how it ends        _limits       what it may use

    _table         every import: name, signature, function             _linker       its C callbacks
    _basic         time, random, sleep, log                            _log          log ring
    _about         version, capabilities and last error                _guest_error  an error as a guest reads it
    _offer         what the host offers to a guest                     _chat_parts   messages of several parts
    _chat          cchat_* that build a session                        _session      its state
    _chat_send     cchat_send and cchat_recv; _chat_events             _chat_response what a send gave; the due tool
    _requests      requests that go on in the background               _response     what all response fds share
    _event_queue   events of a stream                                  _last_error   the latest failure of a guest
    _family        emb_ img_ asr_ tts_: their table, a request          _family_params what may be set
    _family_calls  the calls of all four; _family_send sending them     _media         media_*
    _large_body    bodies with many numbers as JSON
    _media_ref     references to media as guests write them             _media_port    MediaPort
    _operation_port  OperationPort: what the runtime gives for them
    _tool_loop     automatic tool calls; _tool_plan its pure part      _guest_tool   calling a tool in the guest
    _mcp           tools of MCP servers
    _tool_schema   a tool's name and size                              _usage        counting tokens
    _holdings      what a guest has the host hold
    _chat_port     ChatPort: what the runtime gives                    _unavailable  families switched off
    _fds           descriptor table                                    _epoll        spear_epoll_*, spear_fd_ctl
    _wasi_files, _wasi_process, _wasi_poll, _wasi_errno                _capture      stdout and stderr
    _outbuf, _json, _errno                                             conventions of the border

    _fiber         guest calls awaited from a task; _call one of them  _memory       checked access
    _slices        who runs next among spinners                        _epoch        the clock that interrupts
    _watchdog      ends who cannot be interrupted
    _binding       the raw C functions of wasmtime                     _platform     the check before all else

Upper rows import lower ones. `_binding`, `_fiber` and `_linker` are the only places that deal in addresses.
"""

from __future__ import annotations

from spear.hostcall import _platform as _platform

# isort: split
from spear.hostcall._capture import ByteSink as ByteSink
from spear.hostcall._chat_port import ChatPort as ChatPort
from spear.hostcall._chat_port import ChatReply as ChatReply
from spear.hostcall._chat_port import ChatSnapshot as ChatSnapshot
from spear.hostcall._chat_port import Emit as Emit
from spear.hostcall._engine import GuestEngine as GuestEngine
from spear.hostcall._errors import EngineClosed as EngineClosed
from spear.hostcall._errors import LinkError as LinkError
from spear.hostcall._errors import ModuleTooLarge as ModuleTooLarge
from spear.hostcall._errors import NotAModule as NotAModule
from spear.hostcall._errors import PlatformUnsupported as PlatformUnsupported
from spear.hostcall._execution import Execution as Execution
from spear.hostcall._execution import GuestTask as GuestTask
from spear.hostcall._execution import Status as Status
from spear.hostcall._filter_call import FilterCallFailed as FilterCallFailed
from spear.hostcall._filter_call import check_filter as check_filter
from spear.hostcall._limits import Limits as Limits
from spear.hostcall._log import LogRecord as LogRecord
from spear.hostcall._log import LogSink as LogSink
from spear.hostcall._media_port import MediaPort as MediaPort
from spear.hostcall._media_port import MediaReader as MediaReader
from spear.hostcall._media_port import MediaWriter as MediaWriter
from spear.hostcall._media_port import NoMediaPort as NoMediaPort
from spear.hostcall._module import Module as Module
from spear.hostcall._offer import Offer as Offer
from spear.hostcall._operation_port import FamilyEvent as FamilyEvent
from spear.hostcall._operation_port import FamilyName as FamilyName
from spear.hostcall._operation_port import FamilyReply as FamilyReply
from spear.hostcall._operation_port import FamilySnapshot as FamilySnapshot
from spear.hostcall._operation_port import NoOperations as NoOperations
from spear.hostcall._operation_port import OperationPort as OperationPort
from spear.hostcall._termination import Termination as Termination
from spear.hostcall._usage import Usage as Usage
from spear.ir import GuestError as GuestError
