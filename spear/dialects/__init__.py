"""Wire dialects: pure translations between what providers and their clients write and the canonical IR.

    openai_chat        the door: everything of OpenAI's chat dialect
    _openai_message    one message, its tool calls and its content parts, both ways
    _openai_body       a chat.completion object, both ways; usage and its estimate
    _openai_request    a ChatRequest as the body of a request
    _openai_assembly   the chunks of a stream put together to the body that a plain request would have given
    _openai_limits     how many parts, choices and calls an answer may have
    _openai_stream     chunks to IR events; what a complete end is
    openai_embeddings  embeddings: requests, and answers that are checked
    openai_images      images: requests, and answers that are looked at (_picture: by their first and last bytes)
    openai_audio       speech both ways: forms, transcripts whole and streamed (_recording: formats by first bytes)
    ollama             the door of Ollama's own dialect (_ollama_request, _ollama_answer)
    anthropic          the door of Anthropic's (_anthropic_request, _anthropic_answer, _anthropic_stream)
    _chat_parts        what a message says, for dialects that do not take OpenAI's words
    _ndjson            bytes to lines of JSON
    _sse               bytes to the payloads of server-sent events
    _broken            the error of an answer that cannot be used
    _provider_text     a provider's error, told in one line
    wav                reading and writing WAV, strictly

Nothing here does I/O, and everything stands on spear.ir alone. Backends use it towards providers, normalization
towards guests and clients. A value to translate must be JSON by the rules of `spear.ir.parse_json`; the result shares
its nested values, so neither is to be changed.
"""
