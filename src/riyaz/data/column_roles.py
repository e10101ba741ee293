"""Which columns of a table hold the prompt and the answer.

Usual names are found by themselves; when none or more than one reading is possible, one line asks for
`--prompt-column` and `--answer-column`. Columns that the user names are read alone, with nothing joined.
"""

from collections.abc import Iterable
from dataclasses import dataclass

from riyaz.data.tables import Table, kind_of
from riyaz.errors import RiyazError

PAIRS = (
    ("prompt", "completion"), ("prompt", "response"),
    ("text", "label"), ("text", "category"), ("text", "intent"), ("sentence", "label"),
    ("text", "answer"), ("text", "answers"),
    ("question", "answer"), ("question", "answers"), ("question", "response"), ("query", "response"),
    ("instruction", "response"), ("instruction", "output"), ("input", "output"),
    ("document", "summary"), ("article", "summary"), ("abstract", "summary"), ("text", "summary"),
)  # fmt: skip
PROMPTS, ANSWERS = (tuple(dict.fromkeys(names)) for names in zip(*PAIRS))
# Columns joined to a prompt that was found by itself: (before it, after it).
BESIDE = {"question": (("context", "passage"), ()), "instruction": ((), ("input", "context"))}
REFERENCES = {"summary": "references"}  # further accepted answers
CONVERSATIONS = ("messages", "conversations")
TOOLS = ("tools", "functions")  # definitions that stand beside a conversation
LABELS = frozenset({"label", "category", "intent"})
PREFERENCES = (("chosen", "rejected"), ("preferred_output", "non_preferred_output"))
TRUTHS = frozenset({"true", "false", "1", "0"})  # of `label` beside prompt and completion: whether to imitate it (KTO)
ASK = "pass --prompt-column and --answer-column"


@dataclass(frozen=True)
class Reading:
    """The columns that make an example; a conversation column stands in `prompt` and has no `answer`."""

    prompt: str
    answer: str = ""
    before: tuple[str, ...] = ()
    after: tuple[str, ...] = ()
    references: str = ""

    @property
    def format(self) -> str:
        """The columns used, joined by commas."""
        return ",".join(filter(None, (*self.before, self.prompt, *self.after, self.answer, self.references)))


def find_reading(
    table: Table, prompt: str | None = None, answer: str | None = None, answers_required: bool = True
) -> Reading:
    """The columns to read, as given or found. Raises RiyazError when there is no reading or more than one."""
    where = str(table.path)
    for column in filter(None, (prompt, answer)):
        if column not in table.columns:
            raise RiyazError(f"no column {column!r}", where, "columns: " + ", ".join(table.columns))
    if prompt and prompt == answer:
        raise RiyazError(f"{prompt!r} is given as prompt and as answer", where, ASK)
    if prompt and (answer or prompt in CONVERSATIONS or not answers_required):
        return Reading(prompt, answer or "")
    if not prompt and not answer:
        _refuse_other_tasks(table)
    readings = _readings(table, prompt, answer, answers_required)
    if len(readings) > 1:
        options = " or ".join(reading.format for reading in readings)
        flags = (f"--prompt-column {r.prompt}" + f" --answer-column {r.answer}" * bool(r.answer) for r in readings)
        raise RiyazError(f"the columns can be read as {options}", where, "pass " + ", or ".join(flags))
    if not readings:
        raise _nothing_found(table, prompt, answer, answers_required)
    return readings[0]


def _readings(table: Table, prompt: str | None, answer: str | None, answers_required: bool) -> list[Reading]:
    have = set(table.columns)
    pairs = dict.fromkeys((prompt or p, answer or a) for p, a in PAIRS)
    found = [(p, a) for p, a in pairs if p in have and a in have and p != a]
    if not found and not answers_required:
        found = [(p, "") for p in PROMPTS if p in have]
    if not prompt and "instruction" in have:
        found = [(p, a) for p, a in found if p != "input"]  # the instruction's own second column
    readings = [_with_neighbours(table, p, a, prompt is not None, answer is not None) for p, a in found]
    if not prompt and not answer:
        readings += [Reading(column) for column in CONVERSATIONS if column in have]
    return readings


def _with_neighbours(table: Table, prompt: str, answer: str, prompt_given: bool, answer_given: bool) -> Reading:
    sides = ((), ()) if prompt_given else BESIDE.get(prompt, ((), ()))
    before, after = (tuple(c for c in side if c in table.columns and c != answer) for side in sides)
    references = "" if answer_given else REFERENCES.get(answer, "")
    return Reading(prompt, answer, before, after, references if references in table.columns else "")


def _refuse_other_tasks(table: Table) -> None:
    first = table.rows[0][1]
    where = table.place(table.rows[0][0])
    for column in ("choices", "options"):
        if isinstance(first.get(column), (list, dict)):
            hint = f"write the choices into the prompt and the right one as the answer, or {ASK}"
            raise RiyazError(f"multiple-choice rows ({column!r}) are not read", where, hint)
    for pair in PREFERENCES:
        if set(pair) <= set(table.columns):
            raise RiyazError(f"preference pairs {pair} are not read", where, ASK)
    for answer in ("completion", "response"):
        judged = ("prompt", answer, "label")
        if set(judged) <= set(table.columns) and _all_truths(row.get("label") for _, row in table.rows):
            hint = f"keep the rows to imitate, and {ASK}"
            raise RiyazError(f"answers that 'label' calls good or bad {judged} are not read", where, hint)


def _all_truths(values: Iterable[object]) -> bool:
    """Whether every value that a row has is true or false, in any of their spellings."""
    found = [str(value).lower() for value in values if value not in (None, "")]
    return bool(found) and TRUTHS.issuperset(found)


def _nothing_found(table: Table, prompt: str | None, answer: str | None, answers_required: bool) -> RiyazError:
    columns = ", ".join(table.columns)
    no_prompt = not prompt and not set(PROMPTS) & set(table.columns)
    no_answer = not answer and answers_required and not set(ANSWERS) & set(table.columns)
    if no_prompt and no_answer:
        what = f"neither a prompt nor an answer column is known among {columns}"
    elif no_prompt or no_answer:
        what = f"no {'prompt' if no_prompt else 'answer'} column is known among {columns}"
    else:
        what = f"no two of the columns {columns} are known to belong together"
    hint = ASK if answers_required else "pass --prompt-column"
    if kind_of(table.path) in (".csv", ".tsv"):
        hint = f"the first line must name the columns, such as text,label; or {hint}"
    return RiyazError(what, str(table.path), hint)
