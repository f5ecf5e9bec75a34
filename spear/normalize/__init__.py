"""Normalization: from what guests and clients say to the canonical IR, and back. Pure functions.

    _requirements    what a payload requires of a backend; the only place where that is derived
    _parameters      chat parameters to their typed fields, where they fit
    _chat_session    a guest's chat session to a request
    _chat_body       a response to the body and the metrics that a guest reads
    _audio           WAV around bare samples
    _family_request  a guest's request of the families emb, img, asr, tts to a request
    _family_body     a response and the events of a stream to what such a guest reads
    _openai_request  an OpenAI chat request to a request
    _limits             what one request may hold
    _media_type         what bytes are, by their first ones
    _stored             bytes to references, large ones into the media store
    _operation_request  embeddings, images and speech, as a program asks for them, to a request
    _openai_checks      what all OpenAI-shaped ways in check
    _subtitles          a transcript as srt and vtt
    _openai_answer   a response to OpenAI's body or error object; stream events to chunks

The wire shapes themselves are in `spear.dialects`; here is what each kind of caller may say and gets to see.
"""

from ._audio import MIME_OF_FORMAT as MIME_OF_FORMAT
from ._audio import wav_header as wav_header
from ._chat_body import body_from_error as body_from_error
from ._chat_body import body_from_response as body_from_response
from ._chat_body import metrics_from_response as metrics_from_response
from ._chat_session import ChatSession as ChatSession
from ._chat_session import request_from_session as request_from_session
from ._family_body import Unusable as Unusable
from ._family_body import family_body as family_body
from ._family_body import family_events as family_events
from ._family_body import family_metrics as family_metrics
from ._family_request import OPERATION_OF_FAMILY as OPERATION_OF_FAMILY
from ._family_request import FamilyInputs as FamilyInputs
from ._family_request import request_from_family as request_from_family
from ._media_type import media_type as media_type
from ._media_type import seen_type as seen_type
from ._media_type import suffix_of as suffix_of
from ._openai_answer import OpenAIChunks as OpenAIChunks
from ._openai_answer import openai_body_from_response as openai_body_from_response
from ._openai_answer import openai_error as openai_error
from ._openai_request import request_from_openai as request_from_openai
from ._operation_request import request_from_params as request_from_params
from ._requirements import requirements_of as requirements_of
from ._requirements import with_requirements as with_requirements
from ._stored import reference as reference
from ._stored import with_stored_media as with_stored_media
from ._subtitles import as_srt as as_srt
from ._subtitles import as_vtt as as_vtt
