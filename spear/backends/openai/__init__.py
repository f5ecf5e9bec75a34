"""Kinds `openai` (all operations), `openai_chat_completion` (alias `openai_chat`) and `azure_openai`.

Servers that speak OpenAI's dialect over HTTP.

_kind           the Kind objects: what they can do, what they check, how they open
_adapter        an operation by its payload
_chat           a chat request to one exchange, and its answer to the IR
_embeddings     the same for embeddings,
_images         … images,
_transcription  … speech to text,
_speech         … text to speech
_told           errors that come with status 200
_operation      what they share: client, options, model, bytes to send
_options        what an instance's options say
_places         where an operation is: OpenAI's paths, Azure's deployments

Each imports only those below it.
"""

from ._kind import AZURE_KIND as AZURE_KIND
from ._kind import CHAT_KIND as CHAT_KIND
from ._kind import KIND as KIND
