"""Configuration: from TOML in either layout, a dict, or nothing, to a frozen `Config`.

_model   what a configuration says
"""

from ._model import Config as Config
from ._model import Credential as Credential
from ._model import GuestLimits as GuestLimits
from ._model import InstanceConfig as InstanceConfig
from ._model import LogConfig as LogConfig
from ._model import Origin as Origin
from ._model import Price as Price
from ._model import Route as Route
from ._model import RouteMatch as RouteMatch
from ._model import RouterLimits as RouterLimits
from ._model import SkippedInstance as SkippedInstance
from ._model import TaskConfig as TaskConfig
from ._model import Timeouts as Timeouts
