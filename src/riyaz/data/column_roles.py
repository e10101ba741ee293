"""Which columns of a table hold the prompt and the answer.

Common column names are recognised; others are guessed from what they hold where one pair is plain. If several readings
are possible, the error has the flags `--prompt-column` and `--answer-column` to paste. A column that the user names is
read alone, without joining other columns to it.
"""

import shlex
from collections.abc import Sequence
from dataclasses import replace

from riyaz.data import Reading
from riyaz.data.column_guess import Guess, guess, headless
from riyaz.data.tables import Table
from riyaz.errors import LONGEST, RiyazError, listed

PAIRS = (
    ("prompt", "completion"), ("prompt", "response"), ("prompt", "answer"), ("prompt", "answers"),
    ("text", "label"), ("text", "category"), ("text", "intent"), ("sentence", "label"),
    ("text", "answer"), ("text", "answers"),
    ("question", "answer"), ("question", "answers"), ("question", "response"), ("query", "response"),
    ("instruction", "response"), ("instruction", "output"), ("input", "output"),
    ("document", "summary"), ("article", "summary"), ("abstract", "summary"), ("text", "summary"),
)  # fmt: skip
PROMPTS, ANSWERS = (tuple(dict.fromkeys(names)) for names in zip(*PAIRS))
# Columns joined to a recognised prompt column: (before it, after it).
BESIDE = {"question": (("context", "passage"), ()), "instruction": ((), ("input", "context"))}
REFERENCES = "references"  # column of further accepted answers, a list in each row
CONVERSATIONS = ("messages", "conversations")
TOOLS = ("tools", "functions")  # definitions of a conversation's tools
LABELS = frozenset({"label", "category", "intent"})
PREFERENCES = (("chosen", "rejected"), ("preferred_output", "non_preferred_output"))
THUMBS = {"true": True, "false": False, "up": True, "down": False}  # of KTO's `label`: whether the completion is good
DIGITS = {"1": True, "0": False}  # the same, which may be labels of another kind too
ASK = "pass --prompt-column and --answer-column"


def find_reading(
    table: Table,
    prompt: str | None = None,
    answer: str | None = None,
    answers_required: bool = True,
    like: Reading | None = None,
    group: str = "",
    reserved: Sequence[str] = (),
) -> tuple[Reading, str]:
    """The columns to read, and one line about them if they were guessed, or lack some of `like`. They are given, or
    those of `like` if the table has them, or recognised by name, or guessed, but not the column `group` nor those of
    questions, `reserved`. Raises RiyazError for no or more than one possible reading."""
    where = str(table.path)
    for column in filter(None, (prompt, answer)):
        if column not in table.columns:
            raise RiyazError(f"no column {column!r}", where, "columns: " + listed(table.columns))
    if prompt and prompt == answer:
        raise RiyazError(f"{prompt!r} is given as the prompt and as the answer column", where, ASK)
    if prompt in reserved:
        what = f"{prompt!r} is given as the prompt and holds the answers to a question"
        raise RiyazError(what, where, "name another --prompt-column")
    if prompt and (answer or prompt in CONVERSATIONS or not answers_required):
        return Reading(prompt, answer or ""), ""
    if not prompt and not answer and like and (same := _same(table, like, answers_required)):
        return same
    if not answer and not reserved and answers_required:
        judged = _preferences(table, prompt) or _thumbs(table, prompt)
        if judged:
            return judged, ""
    if not prompt and not answer and not reserved:
        _refuse_other_tasks(table)
    readings = _without(reserved, _readings(table, prompt, answer, answers_required))
    if len(readings) > 1:
        options = " or ".join(reading.format for reading in readings)
        hint = "pass " + ", or ".join(_flags(each.prompt, each.answer) for each in readings)
        first = _options(readings[0].prompt, readings[0].answer)
        raise RiyazError(f"the columns can be read as {options}", where, hint, first)
    if readings:
        return readings[0], ""
    reading, note = _guessed(table, prompt, answer, answers_required, (group, *reserved))
    return _without(reserved, [reading])[0], note


def _without(reserved: Sequence[str], readings: Sequence[Reading]) -> list[Reading]:
    """The different readings of rows that answer questions: the columns `reserved` hold their answers, so no prompt has
    part in these, and no other column is the answer."""
    if not reserved:
        return list(readings)
    readings_left = []
    for reading in readings:
        sides = reading.before, reading.after
        before, after = (tuple(column for column in side if column not in reserved) for side in sides)
        if reading.prompt not in reserved:
            readings_left.append(replace(reading, answer="", references="", before=before, after=after))
    return list(dict.fromkeys(readings_left))


def _same(table: Table, like: Reading, answers_required: bool) -> tuple[Reading, str] | None:
    """The columns of `like` that the table has, and a line about those of the prompt that it lacks; None if it lacks
    the prompt's own, or an answer that is required."""
    have = set(table.columns)
    if like.prompt not in have or (answers_required and like.answer and like.answer not in have):
        return None
    before, after = (tuple(column for column in side if column in have) for side in (like.before, like.after))
    answer, references = (column if column in have else "" for column in (like.answer, like.references))
    missing = " or ".join(repr(column) for column in (*like.before, *like.after) if column not in have)
    note = f"no column {missing}, which the prompts of the training rows had" if missing else ""
    return replace(like, before=before, after=after, answer=answer, references=references), note


def _guessed(
    table: Table, prompt: str | None, answer: str | None, answers_required: bool, taken: Sequence[str]
) -> tuple[Reading, str]:
    """The plain guess and a line that says so. Raises RiyazError if there is none."""
    beside = {name for owner, sides in BESIDE.items() if owner in table.columns for side in sides for name in side}
    beside |= {*taken}
    best = guess(table, prompt or "", answer or "", PROMPTS, ANSWERS, beside, answers_required)
    if not best.plain:
        raise _no_reading(table, prompt, answer, answers_required, best)
    reading = _with_neighbours(table, best.prompt, best.answer, prompt is not None, answer is not None)
    said = f"columns guessed from {'their names' if best.named else 'what they hold'}: {best.prompt!r} is the prompt"
    if not best.answer:
        return reading, f"{said}; --prompt-column names another"
    return reading, f"{said}, {best.answer!r} the answer; --prompt-column and --answer-column name others"


def _options(prompt: str, answer: str) -> dict[str, str | bool]:
    options: dict[str, str | bool] = {"prompt_column": prompt}
    return options | ({"answer_column": answer} if answer else {})


def _flags(prompt: str, answer: str) -> str:
    return f"--prompt-column {shlex.quote(prompt)}" + f" --answer-column {shlex.quote(answer)}" * bool(answer)


def _readings(table: Table, prompt: str | None, answer: str | None, answers_required: bool) -> list[Reading]:
    have = set(table.columns)
    candidates = dict.fromkeys((prompt or p, answer or a) for p, a in PAIRS)
    pairs = [(p, a) for p, a in candidates if p in have and a in have and p != a]
    if not pairs and not answers_required:
        pairs = [(p, "") for p in PROMPTS if p in have]
    if not prompt and "instruction" in have:
        pairs = [(p, a) for p, a in pairs if p != "input"]  # belongs to the instruction, see BESIDE
    readings = [_with_neighbours(table, p, a, prompt is not None, answer is not None) for p, a in pairs]
    if not prompt and not answer:
        readings += [Reading(column) for column in CONVERSATIONS if column in have]
    return readings


def _with_neighbours(table: Table, prompt: str, answer: str, prompt_given: bool, answer_given: bool) -> Reading:
    sides = ((), ()) if prompt_given else BESIDE.get(prompt, ((), ()))
    before, after = (tuple(c for c in side if c in table.columns and c != answer) for side in sides)
    alone = answer_given or answer in LABELS or answer in ("", *CONVERSATIONS) or REFERENCES in (prompt, answer)
    return Reading(prompt, answer, before, after, REFERENCES if REFERENCES in table.columns and not alone else "")


def _preferences(table: Table, prompt: str | None) -> Reading | None:
    """The columns of rows with a better and a worse answer; without one of prompts, both answers are conversations that
    begin with it. None for other rows."""
    for chosen, rejected in PREFERENCES:
        if {chosen, rejected} <= set(table.columns):
            own = next((name for name in (*PROMPTS, *CONVERSATIONS) if name in table.columns), "")
            return Reading(prompt or own, chosen, called=True, rejected=rejected)
    return None


def _refuse_other_tasks(table: Table) -> None:
    first = table.rows[0][1]
    where = table.place(table.rows[0][0])
    for column in ("choices", "options"):
        if isinstance(first.get(column), (list, dict)):
            hint = f"write the choices into the prompt and the right one as the answer, or {ASK}"
            raise RiyazError(f"multiple-choice rows ({column!r}) are not supported", where, hint)


def _thumbs(table: Table, prompt: str | None) -> Reading | None:
    """The columns of rows that say of one answer whether it is good: TRL's unpaired form; None for other rows."""
    for answer in ("completion", "response"):
        if {"prompt", answer, "label"} <= set(table.columns) and prompt in (None, "prompt") and _are_thumbs(table):
            return Reading("prompt", answer, called=True, desirable="label")
    return None


def _are_thumbs(table: Table) -> bool:
    """Whether the column `label` holds thumbs in any spelling: in all rows that have one, or by a word in most."""
    labels = [row.get("label") for _, row in table.rows]
    values = [value for value in labels if value not in (None, "") and value == value]  # no NaN
    said = [thumb_of(value) is not None for value in values]
    in_words = any(str(value).lower() in THUMBS for value in values)
    return bool(values) and (all(said) or (in_words and sum(said) > len(values) / 2))


def thumb_of(value: object) -> bool | None:
    """Whether a cell says of an answer that it is good; None where it says neither."""
    text = f"{value:g}" if isinstance(value, float) else str(value).strip().lower()
    return THUMBS.get(text, DIGITS.get(text))


def _no_reading(
    table: Table, prompt: str | None, answer: str | None, answers_required: bool, likeliest: Guess
) -> RiyazError:
    columns = listed(table.columns)
    no_prompt = not prompt and not set(PROMPTS) & set(table.columns)
    no_answer = not answer and answers_required and not set(ANSWERS) & set(table.columns)
    if no_prompt and no_answer:
        what = f"no prompt and no answer column is recognised among {columns}"
    elif no_prompt or no_answer:
        what = f"no {'prompt' if no_prompt else 'answer'} column is recognised among {columns}"
    else:
        what = f"no two of the columns {columns} are recognised as prompt and answer"
    hint, options = ASK if answers_required else "pass --prompt-column", {}
    short = len(likeliest.prompt) + len(likeliest.answer) <= LONGEST  # a name of thousands of letters helps nobody
    if short and likeliest.prompt and (likeliest.answer or not answers_required):
        needed = likeliest.answer if answers_required else ""
        hint, options = "pass " + _flags(likeliest.prompt, needed), _options(likeliest.prompt, needed)
    if headless(table):
        hint = f"the first line must name the columns, such as text,label; or {hint}"
    return RiyazError(what, str(table.path), hint, options)
