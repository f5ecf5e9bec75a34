"""Spear: an embeddable actor runtime for AI operations, on Trio.

    async with spear.open_runtime("spear.toml") as runtime:
        reply = await runtime.chat("small-chat", messages=[{"role": "user", "content": "Hello"}])
        print(reply.text)

Public doors: this module, `spear.ir` (the contract: requests, responses, events, errors), `spear.backends` (for kinds
of one's own), `spear.blocking` (for programs that are not on Trio), `spear.testing`, and `actors`. Everything else
may change without notice.

Below this line, from the caller to the wire: `hostcall` (guests) → `normalize` → `router` → `backends`; `_runtime`
builds the tree of actors from them. Importing this module loads neither an HTTP client nor the WebAssembly engine:
what a configuration does not need is not loaded.
"""

from ._about import __version__
from ._runtime import ChatReply, Runtime, open_runtime
from .config import Config, load_config
from .config import TaskConfig as Task
from .ir import RequestEnvelope, ResponseEnvelope, SpearError

__all__ = [
    "ChatReply",
    "Config",
    "RequestEnvelope",
    "ResponseEnvelope",
    "Runtime",
    "SpearError",
    "Task",
    "__version__",
    "load_config",
    "open_runtime",
]
