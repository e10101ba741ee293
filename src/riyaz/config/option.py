"""What the options of several commands have in common.

`option` makes a field of a configuration. Flags, the reference and the keys of a riyaz.toml come from these fields.
"""

import dataclasses
from typing import Any, Literal

Kv = Literal["auto", "bf16", "int8"]  # how keys and values of an answer are held
Lookup = Literal["on", "off", "auto"]  # drafts of an answer from what it may repeat; auto: where that is faster
# how weights are served; auto: as the file stores them, float32 as bf16
Precision = Literal["auto", "fp32", "bf16", "int8", "int4"]
LARGEST_SEED = 2**31 - 1


def option(default: Any, help: str, common: bool = False, **limits: float | bool) -> Any:
    """A field of a configuration. `common`: where a verb has many options, its short help shows this one. `limits` are
    `minimum` and `maximum` (inclusive), `above` and `below` (exclusive), `by_method` where the value may be one for
    every method or one for each by name, `tables` where a riyaz.toml may hold a list of tables, `paths` where one of
    several values may be a path, and `by_hand` where a riyaz.toml, which may be a stranger's, sets it not. Choices are
    a Literal."""
    return dataclasses.field(default=default, metadata={"help": help, "common": common, **limits})


def flag_of(name: str) -> str:
    """The flag of a field: `limit_test` is --limit-test, and `from_`, which Python does not allow as `from`, --from."""
    return "--" + name.rstrip("_").replace("_", "-")


def thread_count() -> Any:
    """The field of the number of threads; torch crashes with millions."""
    return option(None, "threads to compute with; OMP_NUM_THREADS or all cores if not given", minimum=1, maximum=1024)
