"""What one request may hold, by whichever way it came in; the same as for guests."""

from __future__ import annotations

from typing import Final

MAX_EMBEDDING_INPUTS: Final = 2048
MAX_EMBEDDING_INPUT_BYTES: Final = 1024 * 1024
"""Of one text, in UTF-8."""
MAX_EMBEDDING_BYTES: Final = 16 * 1024 * 1024
"""Of all texts of one request."""
MAX_PROMPT_BYTES: Final = 128 * 1024
"""Of the prompt of an image."""
MAX_SPEECH_BYTES: Final = 256 * 1024
"""Of a text to be spoken."""
MAX_HINT_BYTES: Final = 16 * 1024
"""Of the prompt of a transcription."""
MAX_IMAGES: Final = 10
MAX_FORM_FIELDS: Final = 64
