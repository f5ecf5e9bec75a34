"""Backends: kinds, adapters, and the actor around each configured instance.

    _protocol    what a kind and an adapter are
    _kinds       kinds by name, imported on look-up
    _actor       the actor around one configured instance
    _resolve     references to bytes, just before they are sent
    _whole       a whole answer, told as a stream
    _several     requests that are larger than their backend takes at once
    _split       how embeddings are cut and joined; _split_speech, speech and audio
    stub         kind `stub`
    _http        what the kinds that call over HTTP share
    openai       kinds `openai`, `azure_openai` and `openai_chat_completion`, alias `openai_chat`
    ollama       kind `ollama_chat`, alias `ollama`
    anthropic    kind `anthropic`
    json_http    kind `json_http`
    _lacking     parameters that a dialect has no word for
    _local       what the kinds that compute on this machine share
    hashed_ngrams  kind `hashed_ngrams`
    prompt_card  kind `prompt_card`
    espeak       kind `espeak`
    pocketsphinx kind `pocketsphinx`
    sentence_model kind `sentence_model`

Kinds, and what they share, are imported by `find_kind` only.
"""

from ._actor import BackendActor as BackendActor
from ._actor import BackendMessage as BackendMessage
from ._actor import Invoke as Invoke
from ._actor import OpenStream as OpenStream
from ._actor import backend_spec as backend_spec
from ._kinds import KnownKind as KnownKind
from ._kinds import canonical_kind as canonical_kind
from ._kinds import find_kind as find_kind
from ._kinds import known_kinds as known_kinds
from ._protocol import Adapter as Adapter
from ._protocol import Answer as Answer
from ._protocol import Call as Call
from ._protocol import Finished as Finished
from ._protocol import Host as Host
from ._protocol import Key as Key
from ._protocol import Kind as Kind
from ._protocol import StreamItem as StreamItem
