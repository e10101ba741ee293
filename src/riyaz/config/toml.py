"""The settings of a riyaz.toml, and how they, the defaults and the flags are combined."""

import dataclasses
import difflib
import re
import tomllib
from collections.abc import Mapping
from pathlib import Path

from riyaz.config.checking import Seconds, checked, typed_fields
from riyaz.config.comparison import SELF, CompareConfig
from riyaz.config.data import TOOLS, DataConfig
from riyaz.errors import RiyazError, brief, listed

CONFIGS: tuple[type[DataConfig | CompareConfig], ...] = (DataConfig, CompareConfig)  # whose options a file may set
MAX_TOML = 2**20  # bytes of a riyaz.toml
MAX_DOTS = 500  # in a line before its "=": the time that tomllib needs for a key grows with the square of its parts


def _content(path: Path) -> bytes:
    """The bytes of a file of settings. Raises RiyazError for a large one: it may be a device without an end."""
    with open(path, "rb") as file:
        content = file.read(MAX_TOML + 1)
    if len(content) > MAX_TOML:
        raise RiyazError(f"has more than {MAX_TOML:,} bytes", str(path), "give a file of settings")
    if any(part.count(b".") > MAX_DOTS for part in re.split(rb"[=\n]", content)):
        raise RiyazError(f"a key has more than {MAX_DOTS} parts", str(path), "write one key in each line")
    return content


def read_toml(path: str | Path) -> dict[str, object]:
    """The checked settings of a riyaz.toml, its paths relative to its folder. Raises RiyazError naming file and key."""
    path = Path(path)
    try:
        table = tomllib.loads(_content(path).decode("utf-8-sig"))
    except OSError as error:
        raise RiyazError(f"cannot be read ({error.strerror})", str(path), "check the path") from None
    except UnicodeDecodeError:
        raise RiyazError("not UTF-8", str(path), "save the file as UTF-8") from None
    except tomllib.TOMLDecodeError as error:
        raise RiyazError(f"not TOML: {error}", str(path), "correct that line") from None
    except RecursionError:
        raise RiyazError("nested too deeply", str(path), "give one value for each key") from None
    except ValueError:  # Python reads no whole number of more than 4,300 digits
        raise RiyazError("holds a number with too many digits", str(path), "correct the number") from None
    options = {f.name: (f, hint) for config in CONFIGS for f, hint in typed_fields(config)}
    unknown = [key for key in table if key not in options]
    if unknown:
        near = difflib.get_close_matches(unknown[0], options, 1)
        hint = f"did you mean {near[0]!r}?" if near else "known keys: " + ", ".join(options)
        names = listed([brief(key) for key in unknown])
        raise RiyazError(f"unknown key{'s' if len(unknown) > 1 else ''} {names}", str(path), hint)
    settings = {}
    for key, value in table.items():
        where = f"{path}: {key}"
        option, kind = options[key]
        if option.metadata.get("by_hand"):
            raise RiyazError("is for the command line alone", where, f"give --{key.replace('_', '-')} there")
        if kind is Seconds and not isinstance(value, str):
            raise RiyazError(f"{brief(value)} is not a duration", where, 'write it with its unit, such as "20m"')
        settings[key] = _relative_to(key, checked(option, kind, value, where), path.parent)
    return settings


def resolve(settings: Mapping[str, object], options: Mapping[str, object]) -> tuple[DataConfig, CompareConfig]:
    """Combines defaults, a file's `settings` and the user's `options` (None: not given); later ones take precedence,
    and `steps` that are given take the place of a file's `epochs`, or the other way round."""
    flags = {key: value for key, value in options.items() if value is not None}
    values = {**settings, **flags}
    for length, other in (("steps", "epochs"), ("epochs", "steps")):
        if length in flags and other not in flags:
            values.pop(other, None)
    data_names = {f.name for f in dataclasses.fields(DataConfig)}
    data = {key: value for key, value in values.items() if key in data_names}
    compare = {key: value for key, value in values.items() if key not in data_names}
    return DataConfig(**data), CompareConfig(**compare)  # type: ignore[arg-type]


def _relative_to(key: str, value: object, folder: Path) -> object:
    """A path, resolved against the file's folder; other values, model names included, unchanged."""
    if isinstance(value, Path):
        words = {"schema": TOOLS, "replay_from": SELF}
        return value if str(value) == words.get(key) else folder / value
    if key == "model" and isinstance(value, tuple):
        return tuple(str(folder / name) if name.startswith(("./", "../")) else name for name in value)
    return value
