"""What a comparison has before its plan: settings, rows and index for the child processes, and measured speeds."""

from collections.abc import Sequence

from riyaz.comparison import processes, teach
from riyaz.comparison.folder import DAMAGED, ComparisonFolder
from riyaz.comparison.job import Job
from riyaz.comparison.placed import measuring
from riyaz.comparison.places import Place
from riyaz.comparison.rough import rough_estimate
from riyaz.comparison.speeds import MEASURED
from riyaz.config import CompareConfig
from riyaz.events import Listen, Note, Phase
from riyaz.json_files import read_json
from riyaz.quality.examine import examine
from riyaz.results.problems import PROBLEMS

MEASURING_SHARE = 0.1  # of the budget, which measuring speeds may take


def prepare(
    folder: ComparisonFolder, job: Job, config: CompareConfig, budget: float, places: Sequence[Place], listen: Listen
) -> None:
    """Write settings, rows and index for the child processes, and measure the speeds of all places, unless these
    files exist."""
    if folder.read("settings.json") is None:
        folder.write("settings.json", job.settings)
    if folder.read("plan.json") is None:  # a plan may test fewer rows than these
        folder.save_split(job.parts)
    if "documents" in job.settings and folder.collection() is None:
        listen(Phase("index", "documents", method="index"))
        processes.run_or_raise(["index", str(folder.path)], folder.path / "index.log", listen, config.threads)
    if "teacher" in job.settings and not teach.is_taught(folder):
        teach.prepare(folder, job.unlabelled)
        listen(Phase("teach", f"answers of {config.teacher}", method="teach"))
        arguments = ["teach", str(folder.path), f"{teach.SHARE * budget:.3f}"]
        processes.run_or_raise(arguments, folder.path / "teach.log", listen, config.threads)
    if folder.read(PROBLEMS) is None:
        listen(Phase("rows", "rows that may be wrong", method="rows"))
        folder.write(PROBLEMS, examine(job.files.train, job.files.test, job.task))
    waiting = [base for base in job.measured if not _is_measured(folder, base, config)]
    if waiting:
        listen(Note(rough_estimate(job.bases, job.task, job.parts, job.methods, config, budget)))
    seconds = MEASURING_SHARE * budget / len(job.bases)
    with measuring(places, job.measured, seconds, config.threads):
        for base in waiting:
            listen(Phase("measure", f"speeds of this machine{f' with {base}' if base else ''}", method="measure"))
            arguments = ["measure", str(folder.path), f"{seconds:.3f}", *([base] if base else [])]
            processes.run_or_raise(arguments, folder.path / "measure.log", listen, config.threads)


def _is_measured(folder: ComparisonFolder, base: str | None, config: CompareConfig) -> bool:
    """Whether the speeds with this base are known, and if nothing is planned yet with as many threads as --threads."""
    path = folder.base(base) / MEASURED
    if not path.exists() or config.threads is None or (folder.path / "plan.json").exists():
        return path.exists()
    measured = read_json(path, DAMAGED)
    return isinstance(measured, dict) and measured.get("threads") == config.threads
