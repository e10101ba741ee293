"""What an artifact has forgotten of its own task when training went on from it: test rows of that task, answered by the
artifact and by the new one in a process of its own."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from riyaz.artifact import read_examples, trained_key, trained_keys
from riyaz.comparison import processes
from riyaz.comparison.folder import DAMAGED, FINAL, ComparisonFolder
from riyaz.comparison.from_artifact import OPTION, read_start
from riyaz.config import AdaptConfig, CompareConfig, DataConfig, Precision
from riyaz.data import Example, Reading
from riyaz.data.formats import load
from riyaz.data.judging import expect_judged
from riyaz.data.sampling import sample
from riyaz.errors import RiyazError
from riyaz.events import Listen, Note, Phase, Progress, about
from riyaz.json_files import from_json, read_json, write_json, write_lines
from riyaz.limits.limits_file import comparison_of
from riyaz.methods.fitting.start import Start
from riyaz.metrics.executed import expect_ready
from riyaz.metrics.groups import group_numbers
from riyaz.metrics.paired import paired_test
from riyaz.predictor import open_artifact
from riyaz.results import ADAPTED, COMPARE, LIMITS, Comparison, EarlierTask
from riyaz.scoring import predict, score

TEST = "--earlier-test"
MOST_ROWS = 100
ROWS, SCORES = "earlier.jsonl", "earlier.json"  # in the folder of the run


@dataclass(frozen=True)
class Earlier:
    """The artifact that training goes on from, and test rows of its task; none where the user names none."""

    start: Start
    rows: tuple[Example, ...] = ()


def earlier_task(continuing: AdaptConfig, data_config: DataConfig, config: CompareConfig, listen: Listen) -> Earlier:
    """Read the artifact and the rows on which it is measured again; a note says where there are none. Raises
    RiyazError."""
    assert continuing.from_ is not None
    start = read_start(continuing.from_)
    if continuing.earlier_test is None:
        path = _own_test(start.folder)
        such = f", such as {path}" if path else ""
        listen(Note(f"what {start.target} forgets of its own task is not measured: name test rows of it with {TEST}"
                    f"{such}"))  # fmt: skip
        return Earlier(start)
    return Earlier(start, _test_rows(start, continuing.earlier_test, data_config, config.seed, listen))


def _own_test(folder: Path) -> str:
    """The path of the file of test rows on which an artifact was measured; "" where no such file is there."""
    home = comparison_of(folder / LIMITS)
    measured = home / COMPARE if home else folder / ADAPTED
    files = Comparison.read(measured).data.files if measured.is_file() else {}
    return files["test"].path if "test" in files and Path(files["test"].path).is_file() else ""


def _test_rows(start: Start, path: Path, data_config: DataConfig, seed: int, listen: Listen) -> tuple[Example, ...]:
    """At most MOST_ROWS rows of a file, read as the artifact's own were. Raises RiyazError for rows of another task."""
    columns = start.document.config.get("reading", {}).get("columns")
    data = load(path, like=columns and from_json(Reading, columns, str(path), DAMAGED))
    task = start.task
    if task.kind == "closed" and not any(set(row.answers) & {*task.labels} for row in data.examples):
        what = f"no row has one of the labels of {start.target}; this one has {data.examples[0].answer!r}"
        raise RiyazError(what, data.place(data.examples[0]), f"give test rows of what the artifact of {OPTION} learned")
    rows = sample(data.examples, MOST_ROWS, by_label=task.kind == "closed", seed=seed, purpose="earlier-test")
    expect_judged(task.metric, data, rows)
    expect_ready(task.metric, rows, data_config.unsafe_code)
    known = sum(trained_key(row) in start.learned for row in rows)
    if known:
        listen(Note(f"{known} of {len(rows)} rows of {TEST} are among those that {start.target} was trained on: their "
                    "score says little"))  # fmt: skip
    return tuple(rows)


def with_earlier(
    folder: ComparisonFolder, comparison: Comparison, earlier: Earlier, threads: int | None, listen: Listen
) -> Comparison:
    """The comparison, whose last arm has the scores on the earlier task; without them, and with a note, where measuring
    fails. It is not measured twice."""
    if not earlier.rows:
        return comparison
    arm = comparison.arms[-1]
    with folder.locked():
        lines = [row.to_record() for row in earlier.rows]
        path = folder.path / ROWS
        if not path.is_file() or read_examples(path) != earlier.rows:
            write_lines(path, lines)
            (folder.path / SCORES).unlink(missing_ok=True)
        if not (folder.path / SCORES).is_file():
            listen(Phase("earlier", f"{len(lines)} rows of the earlier task", arm.name))
            log = folder.part(arm.name, FINAL) / "log.txt"
            arguments = ["earlier", str(folder.path), arm.name]
            reason = processes.run_worker(arguments, log, about(arm.name, listen), threads)
            if reason:
                listen(Note(f"the earlier task was not measured: {reason}"))
                return comparison
        scores = from_json(EarlierTask, read_json(folder.path / SCORES, DAMAGED), SCORES, DAMAGED)
    return replace(comparison, arms=[*comparison.arms[:-1], replace(arm, earlier=scores)])


def measure_earlier(folder: ComparisonFolder, name: str, start: Start, precision: Precision, listen: Listen) -> None:
    """Answer the rows of the earlier task with the artifact that training went on from, and with that of the arm:
    writes SCORES."""
    new = folder.part(name, FINAL) / "artifact"
    rows = read_examples(folder.path / ROWS, DAMAGED)
    before, after = (_points(path, start, rows, precision, listen) for path in (start.folder, new))
    test = paired_test(after, before, group_numbers([row.group for row in rows]))
    learned = trained_keys(new)
    write_json(folder.path / SCORES, EarlierTask(
        metric=start.task.metric, before=float(before.mean()), after=float(after.mean()), rows=len(rows),
        low=test.low, high=test.high, learned=sum(trained_key(row) in learned for row in rows),
    ))  # fmt: skip


def _points(artifact: Path, start: Start, rows: Sequence[Example], precision: Precision, listen: Listen) -> np.ndarray:
    """The score of each row (n,) by the metric of the earlier task."""
    predictor = open_artifact(artifact, precision=precision)

    def progress(done: int, total: int) -> None:
        listen(Progress("earlier", done, total))

    return score(start.task, predict(predictor, rows, progress, task=start.task), rows).rows
