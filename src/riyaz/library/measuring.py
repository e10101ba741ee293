"""Measures the limits of an open model, as `riyaz limits` does of a name or path."""

from collections.abc import Mapping

from riyaz.config import LimitsConfig
from riyaz.events import Listen, both
from riyaz.extras import require
from riyaz.library.measured_limits import MeasuredLimits
from riyaz.library.options import Place, as_path, called
from riyaz.predictor import Predictor

SEVERAL, PATHS = ("suite", "pairs", "questions"), ("rows", "documents")


def measure(
    name: str, predictor: Predictor, options: Mapping[str, object], out: Place | None, listen: Listen
) -> MeasuredLimits:
    """Measure the limits of the model called `name`, which `predictor` is, and write limits.json as the command does.
    Another `precision` opens the model again. Raises RiyazError."""
    require("compare")
    from riyaz.limits.limits_file import comparison_of, recorder, write_limits
    from riyaz.limits.run import measure_target
    from riyaz.report import write

    config = LimitsConfig(**{key: _typed(key, value) for key, value in options.items()})  # type: ignore[arg-type]
    command = called("open", name) + called("limits", out=out, **options).removeprefix("riyaz")
    place = None if out is None else as_path(out, "out")
    with recorder(place, command) as record:
        opened = predictor if config.precision == "auto" else None
        document = measure_target(name, config, command=command, listen=both(record, listen), opened=opened)
        path, document = write_limits(document, name, place)
    if path is not None:
        compared = comparison_of(path)
        if compared:
            write.write(compared)
        elif place:
            write.write_limits(document, path.parent)
    return MeasuredLimits(document)


def _typed(name: str, value: object) -> object:
    """A value in the type of the configuration's field: names separated by commas, or a list, as a tuple."""
    if name in SEVERAL:
        listed = value if isinstance(value, (list, tuple)) else str(value).split(",")
        return tuple(str(each).strip() for each in listed)
    if name in PATHS:
        return as_path(value, name)  # type: ignore[arg-type]
    return value
