"""The child process: `python -m riyaz.comparison.worker WORK FOLDER …`, with the name of one of the jobs of `main`.

It reads the comparison's folder, does one piece of work and writes the result there. Events go to stdout as JSON
lines. A RiyazError becomes one Failed event with its reason; any other exception leaves its traceback in the log.
"""

import os
import signal
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from riyaz import files, hardware
from riyaz.comparison.folder import FINAL, ComparisonFolder
from riyaz.comparison.plan import ComparisonPlan
from riyaz.comparison.processes import PARENT
from riyaz.comparison.speeds import MEASURED, Speeds
from riyaz.errors import RiyazError
from riyaz.events import Event, Failed, Phase, Progress, to_json
from riyaz.extras import absence
from riyaz.json_files import write_json
from riyaz.results import parted

if TYPE_CHECKING:
    from riyaz.methods.fitting.base import Build, Context


def main(arguments: list[str]) -> int:
    """Do the work named by the arguments; returns 0 on success, 3 after a Failed event."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # Ctrl-C may end it at any time: files are written atomically
    work, folder, *rest = arguments
    threading.Thread(target=_end_with, args=(int(os.environ.get(PARENT, os.getppid())),), daemon=True).start()
    jobs: dict[str, Callable[..., None]] = {
        "index": index, "teach": teach, "measure": measure, "open": open_arm, "search": search_rate, "fit": fit,
        "evaluate": evaluate, "alone": alone, "limits": limits, "earlier": earlier,
    }  # fmt: skip
    try:
        jobs[work](_folder(folder), *rest)
    except RiyazError as error:
        send(Failed(str(error)))
        return 3
    except (Exception, SystemExit) as error:
        reason = absence(error) or _resource_reason(error)
        if not reason:
            raise
        send(Failed(reason))
        return 3
    return 0


def _folder(path: str) -> ComparisonFolder:
    """The comparison's folder, whose engines look answers up as it says."""
    from riyaz.engine.opening import LOOKUP

    folder = ComparisonFolder(Path(path))
    os.environ[LOOKUP] = folder.settings().settings.lookup  # whatever this machine's environment says
    return folder


def index(folder: ComparisonFolder) -> None:
    """Cut the user's documents into passages and embed them: writes `collection.sqlite`."""
    from riyaz.comparison.documents import index as write_index

    write_index(folder, folder.settings(), send)


def teach(folder: ComparisonFolder, seconds: str) -> None:
    """Get the teacher's answers, for about so many seconds: writes the folder `teacher/`."""
    from riyaz.comparison.teach import teach as write_answers

    settings = folder.settings()
    bases: list[str | None] = [model.name for model in settings.models] or [None]
    students = [settings.source_of(base).tokenizer() for base in bases]
    write_answers(folder, settings, students, float(seconds), send)


def measure(folder: ComparisonFolder, seconds: str, base: str | None = None, measured: str = "") -> None:
    """Measure the speeds that the plan is made from, for about so many seconds: writes `measured.json` and the facts of
    the base, which has a name where there are several; into the folder `measured`, where a place measures itself."""
    from riyaz.comparison.measure import measure_speeds

    folder = ComparisonFolder(folder.path, measured=Path(measured)) if measured else folder
    settings, known, base = folder.settings(), None, base or None
    if base is not None and base != settings.model.name:
        known = Speeds.read(folder.base(settings.model.name) / MEASURED, (), ()).predict
    source, place = settings.source_of(base), folder.base(base)
    place.mkdir(parents=True, exist_ok=True)
    speeds = measure_speeds(folder, settings, source, settings.task, float(seconds), send, base, known)
    write_json(place / MEASURED, speeds)


def open_arm(folder: ComparisonFolder, name: str, part: str) -> None:
    """Train the opening of one arm's run and score it on validation rows: writes `search.json`."""
    from riyaz.methods.fitting.weights import begin_weights

    begin_weights(*_training(folder, name, part))


def search_rate(folder: ComparisonFolder, name: str, part: str, rate: str, made_in: str = "") -> None:
    """Train the opening of one part of an arm at one learning rate, for its `fit`; into the folder `made_in`, where
    this is another place than home."""
    from riyaz.methods.fitting.weights import try_weights

    folder = ComparisonFolder(folder.path, made={(name, part): Path(made_in)}) if made_in else folder
    try_weights(*_training(folder, name, part), float(rate))


def _training(folder: ComparisonFolder, name: str, part: str) -> tuple["Context", "Build"]:
    """What one part of an arm is trained with, and how its model is made; with the plan's threads from now on."""
    from riyaz.comparison.bases import method_of
    from riyaz.comparison.fit_part import context_of

    settings, plan, method = folder.settings(), ComparisonPlan.read(folder.path / "plan.json"), method_of(name)
    hardware.use_threads(plan.threads)
    source = settings.source_of(settings.base_of(name))
    assert method.build is not None
    return method.with_prompt(context_of(folder, settings, plan, name, part, source, settings.task, send)), method.build


def fit(folder: ComparisonFolder, name: str, part: str, made_in: str = "") -> None:
    """Fit one arm on one part's rows: writes `artifact/`, then `fit.json`; into the folder `made_in`, where this is
    another place than home."""
    from riyaz.comparison.fit_part import fit as fit_one

    folder = ComparisonFolder(folder.path, made={(name, part): Path(made_in)}) if made_in else folder
    settings, plan = folder.settings(), ComparisonPlan.read(folder.path / "plan.json")
    hardware.use_threads(plan.threads)
    fit_one(folder, settings, plan, name, part, send)


def evaluate(folder: ComparisonFolder, name: str, part: str) -> None:
    """Open the artifact in this new process and evaluate it on the part's test rows: writes `result.json`."""
    from riyaz.comparison.extra_runs import read_extra_run
    from riyaz.comparison.fit_part import validated_rows
    from riyaz.data.split import FOLDS
    from riyaz.drift import BaseFacts
    from riyaz.evaluate import evaluate_artifact

    settings, plan = folder.settings(), ComparisonPlan.read(folder.path / "plan.json")
    hardware.use_threads(plan.threads)
    run, base = folder.part(name, part), folder.base(settings.base_of(name))
    extra = read_extra_run(folder, name, part) is not None
    rows = FINAL if extra else part
    planned = Speeds.read(base / MEASURED, (), ()).predict.get(parted(name)[0])
    evaluate_artifact(
        run / "artifact", folder.rows(rows, "test"), validated_rows(folder, name, rows), run,
        base=BaseFacts.read(base) if part == FINAL else None, kl_rows=folder.rows(FINAL, "valid"),
        latency_rows=plan.latency_rows,
        retrieval_rows=0 if extra else plan.looked if part == FINAL else max(2, plan.looked // FOLDS),
        general=settings.settings.general, expected_ms=1000 * planned.answer_seconds if planned else None,
        precision=settings.settings.precision, listen=send,
    )  # fmt: skip


def alone(folder: ComparisonFolder, name: str, part: str) -> None:
    """Answer the part's test rows one at a time: writes `predictions.jsonl` and `result.json` again."""
    from riyaz.evaluate import answer_alone

    hardware.use_threads(ComparisonPlan.read(folder.path / "plan.json").threads)
    run = folder.part(name, part)
    answer_alone(run / "artifact", folder.rows(part, "test"), run, send, folder.settings().settings.precision)


def limits(folder: ComparisonFolder, name: str, seconds: str) -> None:
    """Measure what an arm cannot do, for about so many seconds: writes `limits.json` into its artifact's folder."""
    from riyaz.config import LimitsConfig, Seconds
    from riyaz.limits.limits_file import write_limits
    from riyaz.limits.run import measure_target

    hardware.use_threads(ComparisonPlan.read(folder.path / "plan.json").threads)
    target = str(folder.part(name, FINAL) / "artifact")
    config = LimitsConfig(budget=Seconds(float(seconds)), precision=folder.settings().settings.precision)
    write_limits(measure_target(target, config, command=f"riyaz compare --limits ({name})", listen=send), target, None)


def earlier(folder: ComparisonFolder, name: str) -> None:
    """Answer rows of the task of the artifact that training went on from, with it and with the arm's artifact: writes
    `earlier.json`."""
    from riyaz.comparison.earlier_task import measure_earlier
    from riyaz.comparison.from_artifact import reopened

    settings = folder.settings()
    hardware.use_threads(ComparisonPlan.read(folder.path / "plan.json").threads)
    start = reopened(settings.artifact)
    assert start is not None
    measure_earlier(folder, name, start, settings.settings.precision, send)


def send(event: Event) -> None:
    """Send an event to the parent process, with the memory that the work has needed; end this process if the parent is
    gone."""
    if isinstance(event, Phase | Progress):
        event = replace(event, memory_mb=round(hardware.peak_rss() / hardware.MB) or None)
    try:
        print(to_json(event), flush=True)
    except BrokenPipeError:
        raise SystemExit(1) from None


def _end_with(parent: int) -> None:
    """End this process when the parent process has ended: nobody reads the result and the folder's lock is free."""
    while os.getppid() == parent:
        time.sleep(1)
    os._exit(1)


def _resource_reason(error: BaseException) -> str:
    """The reason in one line if memory, disk or a file failed, else ""."""
    if hardware.ran_out(error):
        return hardware.OUT_OF_MEMORY
    if isinstance(error, OSError):
        return files.reason(error)
    return ""


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
