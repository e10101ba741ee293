"""Every option a user can set, in `options`; how values are checked, in `checking`; riyaz.toml, in `toml`.

`resolve(read_toml(path), flags)` combines them: a flag takes precedence over the file, the file over the default.
Unknown keys and invalid values raise RiyazError naming file and key.
"""

from riyaz.config.checking import Seconds, parse_budget
from riyaz.config.limits import LimitsConfig
from riyaz.config.options import (
    CONFIGS,
    METRICS,
    MIN_ROWS,
    CompareConfig,
    DataConfig,
    Kv,
    Metric,
    Precision,
    PretrainConfig,
    SamplingConfig,
    ServeConfig,
    TaskKind,
)
from riyaz.config.toml import MAX_TOML, read_toml, resolve

__all__ = [
    "CONFIGS",
    "MAX_TOML",
    "METRICS",
    "MIN_ROWS",
    "CompareConfig",
    "DataConfig",
    "Kv",
    "LimitsConfig",
    "Metric",
    "Precision",
    "PretrainConfig",
    "SamplingConfig",
    "Seconds",
    "ServeConfig",
    "TaskKind",
    "parse_budget",
    "read_toml",
    "resolve",
]
