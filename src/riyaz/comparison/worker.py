"""The child process: `python -m riyaz.comparison.worker index|measure|fit|evaluate FOLDER [METHOD PART]`.

Reads the comparison's folder, does one piece of work, writes its files. Events go to stdout as JSON lines. A
mistake of the user or of the data is one event with its reason; anything else leaves its traceback in the log.
"""

import os
import signal
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from riyaz.comparison.folder import KEPT, ComparisonFolder, Settings
from riyaz.comparison.plan import ComparisonPlan
from riyaz.comparison.processes import PARENT
from riyaz.errors import RiyazError
from riyaz.events import Event, Failed, to_json
from riyaz.files import write_json
from riyaz.results import FIT
from riyaz.sources import Source, open_source


def main(arguments: list[str]) -> int:
    """Do the work named by the arguments; 0 when it went well."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # Ctrl-C ends it at once: every file is written atomically
    work, folder, *rest = arguments
    threading.Thread(target=_leave_with, args=(int(os.environ.get(PARENT, os.getppid())),), daemon=True).start()
    jobs: dict[str, Callable[..., None]] = {"index": index, "measure": measure, "fit": fit, "evaluate": evaluate}
    try:
        jobs[work](ComparisonFolder(Path(folder)), *rest)
    except RiyazError as error:
        say(Failed(str(error)))
        return 3
    except (MemoryError, RuntimeError, OSError) as error:
        reason = _resource_reason(error)
        if not reason:
            raise
        say(Failed(reason))
        return 3
    return 0


def index(folder: ComparisonFolder) -> None:
    """Cut the user's documents into chunks and embed them: `collection.sqlite`."""
    from riyaz.comparison.documents import index as write_index

    write_index(folder, folder.settings(), say)


def measure(folder: ComparisonFolder) -> None:
    """Measure what the plan needs: `measured.json`, and the base's facts beside it."""
    from riyaz.comparison.measure import measure_speeds

    settings = folder.settings()
    measured = measure_speeds(folder, settings, _source(settings), settings.task, say)
    folder.write("measured.json", measured)


def fit(folder: ComparisonFolder, method: str, part: str) -> None:
    """Fit one method on one part's rows: `artifact/`, then `fit.json`."""
    from riyaz.comparison.fit_part import fit_part

    settings, plan = folder.settings(), ComparisonPlan.read(folder.path / "plan.json")
    _use_threads(plan.threads)
    began = time.monotonic()
    fitted = fit_part(folder, settings, plan, method, part, _source(settings), settings.task, say)
    write_json(folder.run(method, part) / FIT, replace(fitted, seconds=time.monotonic() - began))


def evaluate(folder: ComparisonFolder, method: str, part: str) -> None:
    """Open the artifact in this fresh process and judge it on the part's test rows: `result.json`."""
    from riyaz.comparison.extra_runs import read_part
    from riyaz.data.split import FOLDS
    from riyaz.evaluate import BaseFacts, evaluate_artifact

    settings, plan = folder.settings(), ComparisonPlan.read(folder.path / "plan.json")
    _use_threads(plan.threads)
    run = folder.run(method, part)
    extra = read_part(folder, method, part) is not None
    rows = KEPT if extra else part
    evaluate_artifact(
        run / "artifact", folder.rows(rows, "test"), folder.rows(rows, "valid"), run,
        base=BaseFacts.read(folder.path) if part == KEPT else None, kl_rows=folder.rows(KEPT, "valid"),
        latency_rows=plan.latency_rows,
        looked=0 if extra else plan.looked if part == KEPT else max(2, plan.looked // FOLDS),
        general=settings.settings.general, listen=say,
    )  # fmt: skip


def say(event: Event) -> None:
    """Tell the parent; when it is gone there is no reason to go on."""
    try:
        print(to_json(event), flush=True)
    except BrokenPipeError:
        raise SystemExit(1) from None


def _leave_with(parent: int) -> None:
    """End when the parent has ended, however it did: nobody would read the result, and the folder is free again."""
    while os.getppid() == parent:
        time.sleep(1)
    os._exit(1)


def _source(settings: Settings) -> Source:
    """The model of the comparison, which must still be the same file."""
    source = open_source(settings.model.path)
    if source.sha256() != settings.model.sha256:
        raise RiyazError("the model has changed since the comparison began", settings.model.path)
    return source


def _use_threads(count: int) -> None:
    """Torch reads this when it is imported, which `nearest` never does."""
    os.environ["OMP_NUM_THREADS"] = os.environ["MKL_NUM_THREADS"] = str(count)


def _resource_reason(error: Exception) -> str:
    text = str(error)
    if isinstance(error, MemoryError) or "can't allocate memory" in text or "not enough memory" in text:
        return "out of memory"
    if isinstance(error, OSError):
        return f"{error.filename or 'a file'}: {error.strerror or text}"
    return ""


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
