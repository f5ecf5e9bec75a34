"""Spear: an embeddable actor runtime for AI operations, on Trio.

    async with spear.open_runtime("spear.toml") as runtime:
        reply = await runtime.chat("small-chat", messages=[{"role": "user", "content": "Hello"}])
        print(reply.text)

Public doors: this module, `spear.ir` (the contract: requests, responses, events, errors), `spear.backends` (for kinds
of one's own), `spear.blocking` (for programs that are not on Trio), `spear.testing`, and `actors`. Everything else
may change without notice.

Below this line, from the caller to the wire: `hostcall` (guests) → `normalize` → `router` → `backends`; `_open`
builds the tree of actors from them. Names are loaded when they are first used, so that importing this module is quick
and neither an HTTP client nor the WebAssembly engine is loaded before a configuration needs it.
"""

from typing import TYPE_CHECKING

from ._about import __version__

if TYPE_CHECKING:
    from ._open import open_runtime
    from ._operations import EmbedReply, ImageReply, SpeakReply, TranscribeReply
    from ._reload import ReloadReport
    from ._runtime import ChatReply, Runtime
    from .config import Config, load_config
    from .config import TaskConfig as Task
    from .ir import RequestEnvelope, ResponseEnvelope, SpearError
else:
    from ._late import late_names

    __getattr__ = late_names(
        __name__,
        {
            "_operations": {name: name for name in ("EmbedReply", "ImageReply", "SpeakReply", "TranscribeReply")},
            "_reload": {"ReloadReport": "ReloadReport"},
            "_open": {"open_runtime": "open_runtime"},
            "_runtime": {"ChatReply": "ChatReply", "Runtime": "Runtime"},
            "config": {"Config": "Config", "Task": "TaskConfig", "load_config": "load_config"},
            "ir": {name: name for name in ("RequestEnvelope", "ResponseEnvelope", "SpearError")},
        },
        doors=("backends", "blocking", "ir", "testing"),
    )

__all__ = [
    "ChatReply",
    "Config",
    "EmbedReply",
    "ImageReply",
    "ReloadReport",
    "RequestEnvelope",
    "ResponseEnvelope",
    "Runtime",
    "SpeakReply",
    "SpearError",
    "Task",
    "TranscribeReply",
    "__version__",
    "load_config",
    "open_runtime",
]
