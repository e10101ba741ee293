"""Which columns of a table hold the prompt and the answer.

Common column names are recognised. If no reading or more than one is possible, the error asks for `--prompt-column`
and `--answer-column`. A column that the user names is read alone, without joining other columns to it.
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
# Columns joined to a recognised prompt column: (before it, after it).
BESIDE = {"question": (("context", "passage"), ()), "instruction": ((), ("input", "context"))}
REFERENCES = {"summary": "references"}  # answer column -> column of further accepted answers
CONVERSATIONS = ("messages", "conversations")
TOOLS = ("tools", "functions")  # definitions of a conversation's tools
LABELS = frozenset({"label", "category", "intent"})
PREFERENCES = (("chosen", "rejected"), ("preferred_output", "non_preferred_output"))
BOOLEANS = frozenset({"true", "false", "1", "0"})  # values of KTO's `label`: whether the completion is good
ASK = "pass --prompt-column and --answer-column"


@dataclass(frozen=True)
class Reading:
    """The columns that make up an example; a conversation column is `prompt`, with `answer` empty."""

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
    """The columns to read: given, or recognised by name. Raises RiyazError for no or more than one possible reading."""
    where = str(table.path)
    for column in filter(None, (prompt, answer)):
        if column not in table.columns:
            raise RiyazError(f"no column {column!r}", where, "columns: " + ", ".join(table.columns))
    if prompt and prompt == answer:
        raise RiyazError(f"{prompt!r} is given as the prompt and as the answer column", where, ASK)
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
        raise _no_reading(table, prompt, answer, answers_required)
    return readings[0]


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
    references = "" if answer_given else REFERENCES.get(answer, "")
    return Reading(prompt, answer, before, after, references if references in table.columns else "")


def _refuse_other_tasks(table: Table) -> None:
    first = table.rows[0][1]
    where = table.place(table.rows[0][0])
    for column in ("choices", "options"):
        if isinstance(first.get(column), (list, dict)):
            hint = f"write the choices into the prompt and the right one as the answer, or {ASK}"
            raise RiyazError(f"multiple-choice rows ({column!r}) are not supported", where, hint)
    for pair in PREFERENCES:
        if set(pair) <= set(table.columns):
            raise RiyazError(f"preference pairs {pair} are not supported", where, ASK)
    for answer in ("completion", "response"):
        judged = ("prompt", answer, "label")
        if set(judged) <= set(table.columns) and _all_booleans(row.get("label") for _, row in table.rows):
            hint = f"keep the rows to imitate, and {ASK}"
            raise RiyazError(f"answers that 'label' marks as good or bad {judged} are not supported", where, hint)


def _all_booleans(values: Iterable[object]) -> bool:
    """Whether there are values and all of them are booleans, in any spelling."""
    spellings = [str(value).lower() for value in values if value not in (None, "")]
    return bool(spellings) and BOOLEANS.issuperset(spellings)


def _no_reading(table: Table, prompt: str | None, answer: str | None, answers_required: bool) -> RiyazError:
    columns = ", ".join(table.columns)
    no_prompt = not prompt and not set(PROMPTS) & set(table.columns)
    no_answer = not answer and answers_required and not set(ANSWERS) & set(table.columns)
    if no_prompt and no_answer:
        what = f"no prompt and no answer column is recognised among {columns}"
    elif no_prompt or no_answer:
        what = f"no {'prompt' if no_prompt else 'answer'} column is recognised among {columns}"
    else:
        what = f"no two of the columns {columns} are recognised as prompt and answer"
    hint = ASK if answers_required else "pass --prompt-column"
    if kind_of(table.path) in (".csv", ".tsv", ".xlsx"):
        hint = f"the first line must name the columns, such as text,label; or {hint}"
    return RiyazError(what, str(table.path), hint)
