"""Every option a user can set: its type, default, range and help text, in the file of its command.

`checking` converts and checks values; `toml` reads riyaz.toml: `resolve(read_toml(path), flags)` combines them: a flag
takes precedence over the file, the file over the default. Unknown keys and invalid values raise RiyazError naming file
and key.
"""

from riyaz.config.adapting import AdaptConfig
from riyaz.config.checking import Seconds, parse_budget
from riyaz.config.comparison import DEFAULT_MODEL, SELF, CompareConfig
from riyaz.config.data import LIKELIHOODS, METRICS, MIN_ROWS, TOOLS, DataConfig, Kind, Measure, Metric, TaskKind, Turns
from riyaz.config.limits import LimitsConfig
from riyaz.config.option import Kv, Lookup, Precision
from riyaz.config.pretraining import FreshFamily, PretrainConfig
from riyaz.config.sampling import SamplingConfig
from riyaz.config.serving import ServeConfig
from riyaz.config.ternarizing import TernarizeConfig
from riyaz.config.toml import CONFIGS, MAX_TOML, read_toml, resolve

__all__ = [
    "CONFIGS",
    "DEFAULT_MODEL",
    "LIKELIHOODS",
    "MAX_TOML",
    "METRICS",
    "MIN_ROWS",
    "SELF",
    "TOOLS",
    "AdaptConfig",
    "CompareConfig",
    "DataConfig",
    "FreshFamily",
    "Kind",
    "Kv",
    "LimitsConfig",
    "Lookup",
    "Measure",
    "Metric",
    "Precision",
    "PretrainConfig",
    "SamplingConfig",
    "Seconds",
    "ServeConfig",
    "TaskKind",
    "TernarizeConfig",
    "Turns",
    "parse_budget",
    "read_toml",
    "resolve",
]
