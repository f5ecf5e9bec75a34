"""Kind `json_http`: an odd server that takes JSON over HTTP and answers JSON; the configuration says in which words.

_kind       the Kind object: what it can do, what it checks, how it opens
_settings   the options of an instance, checked
_adapter    a request to one exchange, and its answer to the IR
_values     what a template may ask of a request (pure)
_template   the body of a request, with places to be filled (pure)
_pointer    where in an answer something stands (pure)
"""

from ._kind import KIND as KIND
