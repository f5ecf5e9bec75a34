"""`python -m spear.simulate`: a worker of `spear simulate`."""

from ._worker import work

work()
