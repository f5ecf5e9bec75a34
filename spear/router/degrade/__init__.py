"""What may be done less well rather than refused: steps that rewrite a request so that a requirement falls away.

    _steps   the steps, by operation
    _chat    system messages merged, tools by prompt
    _search  the fewest steps after which somebody can take the request

A step is taken only where nobody could take the request as it stands, and where the request and the host both allow
it; the response names it. Pure functions.
"""

from ._chat import restored as restored
from ._search import lessened as lessened
from ._search import narrowed as narrowed
