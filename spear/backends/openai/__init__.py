"""Kind `openai_chat_completion` (alias `openai_chat`): any server that speaks OpenAI's chat completions over HTTP.

_kind       the Kind object: what it can do, what it checks, how it opens
_chat       a chat request to one exchange, and its answer to the IR
"""

from ._kind import KIND as KIND
