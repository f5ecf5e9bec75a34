"""Tools of MCP servers: long-lived connections, each owned by an actor, and what a session may use of them.

    _port        what guests and programs go through; the texts of refusals
    _policy      who may use which tool (pure)           _names    under which name a model sees it (pure)
    _tools       a server's list, checked (pure)         _results  from an answer to a content (pure)

    _registry    the configured servers, and the way to each: timeouts, caches, reload
    _actor       the actors: one that owns them all, one per server
    _state       what is known of a server across its connections
    _client      handshake, listing, calls, over either transport
    _stdio       a process of ours; _process its start and end, _stderr its log
    _http        streamable HTTP
    _messages    JSON-RPC, lines, floods (pure)          _failures

What stands in the second part is loaded where a server is configured.
"""

from ._failures import McpFailed as McpFailed
from ._names import is_mcp_name as is_mcp_name
from ._policy import NO_TASK_POLICY as NO_TASK_POLICY
from ._policy import Access as Access
from ._policy import TaskPolicy as TaskPolicy
from ._policy import task_policy as task_policy
from ._port import NO_REGISTRY as NO_REGISTRY
from ._port import McpPort as McpPort
from ._port import Names as Names
from ._port import named as named
from ._results import arguments_of as arguments_of
from ._tools import Tool as Tool
