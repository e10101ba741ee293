"""Which methods a comparison runs: those the user named, else all that fit the task and what is installed."""

from collections.abc import Sequence

from riyaz.config import LIKELIHOODS, CompareConfig
from riyaz.data import Example
from riyaz.data.task import NAMES, Task
from riyaz.errors import RiyazError, joined
from riyaz.events import Listen, Note
from riyaz.extras import absent, install, require
from riyaz.methods import METHODS
from riyaz.sources import store

TEACHERS = ("teacher_model", "unlabelled")  # options of a teacher


def chosen_methods(config: CompareConfig, where: str = "--methods") -> tuple[str, ...]:
    """The methods to run in the order of METHODS: those named, else all; without documents none that needs them.

    Raises RiyazError, with `where` as the place, for a method that is unknown or needs documents.
    """
    unknown = [name for name in config.methods if name not in METHODS]
    if unknown:
        raise RiyazError(f"unknown method {unknown[0]!r}", where, f"choose from {', '.join(METHODS)}")
    lacking = [name for name in METHODS if METHODS[name].needs_documents] if config.documents is None else []
    refused = [name for name in config.methods if name in lacking]
    if refused:
        raise RiyazError(f"{refused[0]} needs documents to retrieve from", where, "name them with --documents PATH")
    taught = [name for name in METHODS if METHODS[name].needs_teacher]
    if config.teacher is None:
        for option in [name for name in TEACHERS if getattr(config, name) is not None]:
            raise RiyazError("has no effect without a teacher", "--" + option.replace("_", "-"), "give --teacher too")
        if learning := [name for name in config.methods if name in taught]:
            raise RiyazError(f"{learning[0]} needs a teacher to learn from", where, "name one with --teacher")
        lacking += taught
    elif config.methods and not set(taught) & set(config.methods):
        cannot = f"{', '.join(config.methods)} cannot take it"
        raise RiyazError(cannot, "--teacher", f"leave it out, or run {' or '.join(taught)}")
    return tuple(name for name in METHODS if name not in lacking and name in (config.methods or METHODS))


def fitting_task(methods: tuple[str, ...], task: Task, config: CompareConfig, listen: Listen) -> tuple[str, ...]:
    """The methods without those that answer closed sets only, where the task is another, and those that need a model
    that is not pulled; notes name these. Raises RiyazError for one that the user named."""
    methods = tuple(name for name in methods if _answers_all(name, task, config, listen))
    unfit = [name for name in methods if METHODS[name].needs_labels and task.kind not in ("closed", "questions")]
    if unfit:
        chooses = "chooses" if len(unfit) == 1 else "choose"
        why = f"{joined(unfit)} {chooses} among labels, and these rows have {NAMES[task.kind]} as answers"
        if config.methods:
            raise RiyazError(why, "--methods", "leave it out, or pass --task closed where the answers are labels")
        listen(Note(f"{why}: left out"))
    methods = _learning_from(methods, task, config)
    fitting = tuple(name for name in methods if name not in unfit and _has_model(name, config, listen))
    return tuple(name for name in fitting if _has_parts(name, fitting, config, listen))


def _learning_from(methods: tuple[str, ...], task: Task, config: CompareConfig) -> tuple[str, ...]:
    """The methods without those that learn from worse answers, where the task has none. Raises RiyazError for one that
    the user named."""
    unfit = [name for name in methods if METHODS[name].judged_by and task.metric not in METHODS[name].judged_by]
    if named := [name for name in unfit if name in config.methods]:
        single = all("thumbs" in METHODS[name].judged_by for name in named)
        what = "pairs of answers or from thumbs" if single else "pairs of answers"
        columns = "`chosen` and `rejected`" + ", or with `label` beside `completion`" * single
        hint = f"give rows with the columns {columns}, and no other --metric"
        raise RiyazError(f"{joined(named)} learn{'s' * (len(named) == 1)} from {what}", "--methods", hint)
    return tuple(name for name in methods if name not in unfit)


def last_turn_note(methods: Sequence[str], examples: Sequence[Example]) -> list[str]:
    """A sentence about the methods that read a part of a conversation; none where each row is one turn."""
    reading = [name for name in methods if not METHODS[name].about.language_model]
    if not reading or not any(len(row.turns) > 1 for row in examples):
        return []
    return [f"{joined(reading)} {'reads' if len(reading) == 1 else 'read'} the last turn of a conversation only"]


def _answers_all(method: str, task: Task, config: CompareConfig, listen: Listen) -> bool:
    """Whether a method can answer the questions of a task, if it has some, and is measured by its metric; a note says
    where not. Raises RiyazError if the user named the method."""
    if task.metric in LIKELIHOODS and not METHODS[method].about.language_model:
        why = f"{method} gives an answer no probability, by which {task.metric} judges"
        return _left_out(why, "leave it out, or choose another --metric", why, config, listen)
    if not task.questions or METHODS[method].answers_questions:
        return True
    why = f"{method} answers no typed questions, which these rows do"
    return _left_out(why, "leave it out", why, config, listen)


def _has_model(method: str, config: CompareConfig, listen: Listen) -> bool:
    """Whether the model that a method needs is pulled; a note says where not. Raises RiyazError if the user named the
    method."""
    model = METHODS[method].needs_model
    if not model or store.find(model) is not None:
        return True
    why = f"{method} trains {model}, which has not been pulled yet"
    return _left_out(why, f"run `riyaz pull {model}`", f"{why} (`riyaz pull {model}`)", config, listen)


def _has_parts(method: str, methods: Sequence[str], config: CompareConfig, listen: Listen) -> bool:
    """Whether the methods that a method joins run too; a note says where not. Raises RiyazError if the user named the
    method."""
    missing = [name for name in METHODS[method].of if name not in methods]
    if not missing:
        return True
    why = f"{method} joins {joined(METHODS[method].of)}, and {missing[0]} does not run"
    return _left_out(why, f"name {missing[0]} too", why, config, listen)


def _left_out(why: str, hint: str, note: str, config: CompareConfig, listen: Listen) -> bool:
    """False, after a note that a method is left out. Raises RiyazError if the user named the methods."""
    if config.methods:
        raise RiyazError(why, "--methods", hint)
    listen(Note(f"{note}: left out"))
    return False


def require_packages(methods: Sequence[str], named: bool) -> None:
    """Say at once what training needs and is not installed, not from the first of many processes. Raises RiyazError if
    a method trains; one that there is not is left to others."""
    if any(METHODS[name].trains for name in methods if name in METHODS):
        if absent("train") == absent("compare"):  # what training alone needs is here
            require("compare")
        other = f"{install('compare')} and " if absent("compare") else ""
        require("train", "" if named else f", or {other}name methods that train nothing with --methods")
