"""Active probes: small requests of the router's own to backends that nobody has just shown to be well.

    _rhythm     when the next one is due: arithmetic
    _asking     one probe, and what its end says
    _actor      the actor that asks

They go to the same actor of the instance as requests do, with its key, and take a place there. They are no requests:
policies, latencies, usage, retries and ejection know nothing of them. Only breakers do.
"""

from ._actor import Prober as Prober
from ._actor import has_probes as has_probes
from ._actor import prober_spec as prober_spec
