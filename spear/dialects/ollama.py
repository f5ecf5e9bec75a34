"""Ollama's own dialect: /api/chat, plain and streamed, and /api/embed."""

from __future__ import annotations

from ._ndjson import LineDecoder as LineDecoder
from ._ollama_answer import OllamaStreamDecoder as OllamaStreamDecoder
from ._ollama_answer import embeddings_from_ollama as embeddings_from_ollama
from ._ollama_answer import result_from_ollama as result_from_ollama
from ._ollama_request import ollama_body as ollama_body
from ._ollama_request import ollama_embed_body as ollama_embed_body
