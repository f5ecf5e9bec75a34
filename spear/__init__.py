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

from ._about import __version__ as __version__
from ._runtime import ChatReply as ChatReply
from ._runtime import Runtime as Runtime
from ._runtime import Task as Task
from ._runtime import open_runtime as open_runtime
from .config import Config as Config
from .config import load_config as load_config
from .ir import RequestEnvelope as RequestEnvelope
from .ir import ResponseEnvelope as ResponseEnvelope
from .ir import SpearError as SpearError
