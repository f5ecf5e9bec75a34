"""Configuration: from TOML in either layout, a dict, or nothing, to a frozen `Config`.

_model            what a configuration says
_positions        where each key of a TOML document stands
_report           problems and warnings: their place and their words
_read             from a file or a mapping to plain values
_sections         from a plain table to a section of the model
_urls             addresses
_credentials      reading keys from variables and files
_budgets          the tables of budgets
_hedge            the hedge of a route
_redis            where limits are shared
_media            the media store
_references       names used twice, names that nothing has
_filters          external filters
_mcp              MCP servers, and the folder that they may be in
_later            settings that this version does not have
_spear            the layout `[spear]`
_spearlet         the layout `[spearlet.llm]`, with _spearlet_extras
_load             the way in

Each module imports only those above it. Nothing here imports a backend: whether a kind exists, what it can do and
whether an address may be used is judged when the registry is built.
"""

from ._discovery import DISCOVERED as DISCOVERED
from ._discovery import asked_at as asked_at
from ._discovery import with_models as with_models
from ._discovery import without_discovered as without_discovered
from ._hedge import NEVER_HEDGED as NEVER_HEDGED
from ._load import FILE_NAME as FILE_NAME
from ._load import default_config as default_config
from ._load import find_config as find_config
from ._load import load_config as load_config
from ._mcp import MAX_MCP_SERVERS as MAX_MCP_SERVERS
from ._model import ALL_STEPS as ALL_STEPS
from ._model import Budget as Budget
from ._model import BudgetMatch as BudgetMatch
from ._model import Config as Config
from ._model import Credential as Credential
from ._model import DecisionsConfig as DecisionsConfig
from ._model import Discovery as Discovery
from ._model import FilterConfig as FilterConfig
from ._model import FilterContent as FilterContent
from ._model import GuestLimits as GuestLimits
from ._model import HealthConfig as HealthConfig
from ._model import Hedge as Hedge
from ._model import InstanceConfig as InstanceConfig
from ._model import KeyLimits as KeyLimits
from ._model import KeysConfig as KeysConfig
from ._model import LogConfig as LogConfig
from ._model import McpConfig as McpConfig
from ._model import McpHttp as McpHttp
from ._model import McpServer as McpServer
from ._model import McpStdio as McpStdio
from ._model import MediaConfig as MediaConfig
from ._model import Mirror as Mirror
from ._model import MirrorLimits as MirrorLimits
from ._model import OllamaDiscovery as OllamaDiscovery
from ._model import OnExhausted as OnExhausted
from ._model import Origin as Origin
from ._model import Price as Price
from ._model import Probe as Probe
from ._model import RedisConfig as RedisConfig
from ._model import RetryConfig as RetryConfig
from ._model import Route as Route
from ._model import RouteMatch as RouteMatch
from ._model import RouterLimits as RouterLimits
from ._model import S3Config as S3Config
from ._model import Seconds as Seconds
from ._model import Section as Section
from ._model import SkippedInstance as SkippedInstance
from ._model import TaskConfig as TaskConfig
from ._model import Timeouts as Timeouts
from ._positions import Path as Path
from ._read import Document as Document
from ._read import parse as parse
from ._read import read_file as read_file
from ._report import Report as Report
from ._report import did_you_mean as did_you_mean
from ._sections import build as build
from ._sections import durations as durations
from ._sections import only_known as only_known
from ._sections import table as table
from ._sections import tables as tables
from ._spear import POLICIES as POLICIES
from ._spear import read as read
