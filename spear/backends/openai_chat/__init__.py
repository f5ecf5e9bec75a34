"""Kind `openai_chat_completion` (alias `openai_chat`): any server that speaks OpenAI's chat completions over HTTP.

    _kind       the Kind object: what it can do, what it checks, how it opens
    _adapter    an IR request to one exchange, and its answer to the IR
    _exchange   one POST and its answer, under the clocks of an attempt
    _failures   what a failure means, and how it is told (pure)
    _transport  an httpx transport over httpcore2's pool, for one origin
    _network    its sockets on Trio

Each imports only those below it. There are no options.
"""

from ._kind import KIND as KIND
from ._transport import PoolTransport as PoolTransport
