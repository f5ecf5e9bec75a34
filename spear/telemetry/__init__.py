"""Logs and counters.

_redact     secrets out of what is about to be written
_late_logger  a logger that imports structlog when it must
_log        structured logs, without touching anyone's global logging
_counters   counters, gauges, histograms; their text for Prometheus
_actors     an instrument that counts what actors do
_requests   an observer that counts requests and attempts
_spans      an observer that makes OpenTelemetry spans; imported by name, because it needs the extra `otel`
"""

from ._actors import ActorCounters as ActorCounters
from ._counters import SECONDS as SECONDS
from ._counters import Counter as Counter
from ._counters import Counters as Counters
from ._counters import Gauge as Gauge
from ._counters import Histogram as Histogram
from ._counters import HistogramValue as HistogramValue
from ._log import LogOutput as LogOutput
from ._log import configure_logging as configure_logging
from ._log import get_logger as get_logger
from ._log import redacting as redacting
from ._redact import LogRedactor as LogRedactor
from ._requests import RequestCounters as RequestCounters
