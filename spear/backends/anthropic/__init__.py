"""Kind `anthropic`: a server that speaks the dialect of Anthropic's Messages API; chat.

_kind       the Kind object: what it can do, what it checks, how it opens
_adapter    a request to one exchange, and its answer to the IR
"""

from ._kind import KIND as KIND
