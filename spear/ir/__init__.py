"""The canonical IR: the one contract between the layers.

    _model         the base model, the enumerations
    _json          strict, lossless JSON at the borders
    _media         references to bytes
    _payloads      what is asked for, by operation
    _results       what is answered, by operation; usage
    _errors        the error codes, CanonicalError, and the tree of exceptions
    _envelope      RequestEnvelope, ResponseEnvelope, and reading them from JSON
    _events        the events of a stream
    _capabilities  what a backend instance can do
    _trusted       models of values that need no check
    _schema        all of it as JSON Schema

Each module imports only those above it. Nothing here imports the rest of spear, Trio or the network.
"""

from ._capabilities import Capabilities as Capabilities
from ._capabilities import Limits as Limits
from ._envelope import BackendInfo as BackendInfo
from ._envelope import Degradation as Degradation
from ._envelope import Meta as Meta
from ._envelope import PolicySpec as PolicySpec
from ._envelope import RequestEnvelope as RequestEnvelope
from ._envelope import Requirements as Requirements
from ._envelope import ResponseEnvelope as ResponseEnvelope
from ._envelope import Result as Result
from ._envelope import Routing as Routing
from ._envelope import new_request_id as new_request_id
from ._envelope import parse_request as parse_request
from ._envelope import validate_request as validate_request
from ._errors import HTTP_STATUS as HTTP_STATUS
from ._errors import RETRYABLE as RETRYABLE
from ._errors import Attempt as Attempt
from ._errors import BackendError as BackendError
from ._errors import CallerError as CallerError
from ._errors import CanonicalError as CanonicalError
from ._errors import Clock as Clock
from ._errors import ConfigError as ConfigError
from ._errors import ErrorCode as ErrorCode
from ._errors import Failure as Failure
from ._errors import GuestError as GuestError
from ._errors import InternalError as InternalError
from ._errors import Problem as Problem
from ._errors import RoutingError as RoutingError
from ._errors import SpearError as SpearError
from ._errors import error_to_exception as error_to_exception
from ._errors import invalid_request as invalid_request
from ._errors import make_error as make_error
from ._events import AudioDelta as AudioDelta
from ._events import Completed as Completed
from ._events import ContentDelta as ContentDelta
from ._events import ErrorEvent as ErrorEvent
from ._events import ReasoningDelta as ReasoningDelta
from ._events import SegmentEvent as SegmentEvent
from ._events import Started as Started
from ._events import StreamEvent as StreamEvent
from ._events import ToolCallDelta as ToolCallDelta
from ._events import UsageEvent as UsageEvent
from ._events import bears_content as bears_content
from ._json import Json as Json
from ._json import MalformedJson as MalformedJson
from ._json import check_json as check_json
from ._json import dump_json as dump_json
from ._json import parse_json as parse_json
from ._media import InlineMedia as InlineMedia
from ._media import MediaRef as MediaRef
from ._media import StoredMedia as StoredMedia
from ._media import UrlMedia as UrlMedia
from ._model import VERSION as VERSION
from ._model import Feature as Feature
from ._model import Hosting as Hosting
from ._model import Model as Model
from ._model import Operation as Operation
from ._model import Transport as Transport
from ._payloads import AudioPart as AudioPart
from ._payloads import ChatMessage as ChatMessage
from ._payloads import ChatRequest as ChatRequest
from ._payloads import ContentPart as ContentPart
from ._payloads import EmbeddingsRequest as EmbeddingsRequest
from ._payloads import FunctionCall as FunctionCall
from ._payloads import Generation as Generation
from ._payloads import ImagePart as ImagePart
from ._payloads import ImageRequest as ImageRequest
from ._payloads import RealtimeRequest as RealtimeRequest
from ._payloads import RealtimeSession as RealtimeSession
from ._payloads import RequestPayload as RequestPayload
from ._payloads import ResponseFormat as ResponseFormat
from ._payloads import SpeechToTextRequest as SpeechToTextRequest
from ._payloads import TextPart as TextPart
from ._payloads import TextToSpeechRequest as TextToSpeechRequest
from ._payloads import ToolCall as ToolCall
from ._results import ChatChoice as ChatChoice
from ._results import ChatResult as ChatResult
from ._results import EmbeddingsResult as EmbeddingsResult
from ._results import ImageResult as ImageResult
from ._results import ResultPayload as ResultPayload
from ._results import SpeechSegment as SpeechSegment
from ._results import SpeechToTextResult as SpeechToTextResult
from ._results import TextToSpeechResult as TextToSpeechResult
from ._results import Usage as Usage
from ._schema import json_schema as json_schema
from ._trusted import trusted as trusted
