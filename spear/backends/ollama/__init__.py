"""Kind `ollama_chat` (alias `ollama`): a server that speaks Ollama's own dialect; chat and embeddings.

_kind       the Kind object: what it can do, what it checks, how it opens
_adapter    a request to one exchange, and its answer to the IR
_models     which models a server has
"""

from ._kind import KIND as KIND
from ._models import ask_models as ask_models
