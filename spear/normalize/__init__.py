"""Normalization: from what guests and clients say to the canonical IR, and back. Pure functions.

    _requirements           what a payload requires of a backend; the only place where that is derived
    _parameters             chat parameters to their typed fields, where they fit
    _limits                 what one request may hold
    _media_type             what bytes are, by their first ones
    _stored                 bytes to references, large ones into the media store
    _subtitles              a transcript as srt and vtt
    _chat_session           a guest's chat session to a request
    _chat_body              a response to the body and the metrics that a guest reads
    _audio                  MIME types of sound by its format
    _family_request         a guest's request of the families emb, img, asr, tts to a request
    _family_body            a response and the events of a stream to what such a guest reads
    _operation_request      embeddings, images and speech, as a program asks for them, to a request
    _openai_checks          what all OpenAI-shaped ways in check
    _openai_request         an OpenAI chat request to a request
    _openai_answer          a response to OpenAI's body or error object; stream events to chunks
    _openai_ways            what the following four share: who asks, forms, replies
    _openai_embeddings      `/v1/embeddings`, both ways
    _openai_images          `/v1/images/generations` and `/edits`
    _openai_transcriptions  `/v1/audio/transcriptions` and `/translations`
    _openai_speech          `/v1/audio/speech`

The wire shapes themselves are in `spear.dialects`; here is what each kind of caller may say and gets to see.
"""

from ._audio import MIME_OF_FORMAT as MIME_OF_FORMAT
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
from ._openai_embeddings import openai_embeddings_reply as openai_embeddings_reply
from ._openai_embeddings import request_from_openai_embeddings as request_from_openai_embeddings
from ._openai_embeddings import unpacked as unpacked
from ._openai_images import openai_images_reply as openai_images_reply
from ._openai_images import request_from_openai_image as request_from_openai_image
from ._openai_images import request_from_openai_image_edit as request_from_openai_image_edit
from ._openai_request import request_from_openai as request_from_openai
from ._openai_speech import Speech as Speech
from ._openai_speech import openai_speech_bytes as openai_speech_bytes
from ._openai_speech import openai_speech_events as openai_speech_events
from ._openai_speech import openai_speech_reply as openai_speech_reply
from ._openai_speech import openai_speech_type as openai_speech_type
from ._openai_speech import request_from_openai_speech as request_from_openai_speech
from ._openai_transcriptions import TRANSLATE as TRANSLATE
from ._openai_transcriptions import Transcription as Transcription
from ._openai_transcriptions import openai_transcription_events as openai_transcription_events
from ._openai_transcriptions import openai_transcription_reply as openai_transcription_reply
from ._openai_transcriptions import request_from_openai_transcription as request_from_openai_transcription
from ._openai_ways import Form as Form
from ._openai_ways import FormFile as FormFile
from ._openai_ways import OpenAIReply as OpenAIReply
from ._operation_request import request_from_params as request_from_params
from ._requirements import requirements_of as requirements_of
from ._requirements import with_requirements as with_requirements
from ._stored import reference as reference
from ._stored import with_stored_media as with_stored_media
from ._subtitles import as_srt as as_srt
from ._subtitles import as_vtt as as_vtt
