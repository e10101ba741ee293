"""Make an `Example` of a row of a table."""

import json
import math

from riyaz.data import Example, Message, Reading
from riyaz.data.check_columns import texts_of
from riyaz.data.column_roles import CONVERSATIONS, LABELS, TOOLS, thumb_of
from riyaz.data.conversations import (
    Incomplete,
    RowProblem,
    answered_turns,
    as_text,
    conversation,
    is_messages,
    trimmed,
)
from riyaz.data.questions import Question, answers_text
from riyaz.data.tables import Table
from riyaz.data.turns import of_one_conversation
from riyaz.errors import brief, listed

DOCUMENTS = ("doc_ids", "doc_id")  # columns that name the documents with a row's answer


def examples_of(row: dict[str, object], reading: Reading, where: str) -> list[Example]:
    """The examples of a row with answers: one, or that of every answer of a conversation, which are then a group; none
    for a conversation in which every answer has weight 0. Raises RowProblem."""
    if reading.rejected:
        return [_preferred(row, reading, where)]
    if reading.desirable:
        return [_thumb(row, reading, where)]
    turns = _turns(row, reading) if reading.turns == "all" and not reading.questions else None
    if turns is None:
        example = example_of(row, reading, where, answers_required=True)
        return [example] if example is not None else []
    tools = [row.get(column) for column in TOOLS]
    pairs = answered_turns(turns, reading.prompt, _optional(row, "system"), tools, reading.called)
    group = _optional(row, reading.group) if reading.group else None
    examples = [
        Example(messages, (answer,), _optional(row, "slice"), where, _documents(row), group=group)
        for messages, answer in pairs if answer is not None
    ]  # fmt: skip
    return of_one_conversation(examples)


def _preferred(row: dict[str, object], reading: Reading, where: str) -> Example:
    """The example of a row with a better and a worse answer to the same prompt. Raises RowProblem."""
    (messages, chosen), (others, rejected) = (_side(row, reading, name) for name in (reading.answer, reading.rejected))
    if others != messages:
        raise RowProblem(f"{reading.answer!r} and {reading.rejected!r} answer different prompts")
    if chosen == rejected:
        raise RowProblem(f"{reading.answer!r} and {reading.rejected!r} are the same answer")
    group = _optional(row, reading.group) if reading.group else None
    return Example(messages, (chosen,), _optional(row, "slice"), where, _documents(row), group=group, rejected=rejected)


def _thumb(row: dict[str, object], reading: Reading, where: str) -> Example:
    """The example of a row that says of its one answer whether it is good; rows without a column `slice` are slices by
    what they say. Raises RowProblem."""
    value = _without_nan(row.get(reading.desirable))
    if value in (None, ""):
        raise Incomplete(f"the row has no {reading.desirable!r}")
    good = thumb_of(value)
    if good is None:
        raise RowProblem(f"{reading.desirable!r} holds {brief(as_text(value, reading.desirable))}, not true or false")
    messages, answer = _side(row, reading, reading.answer)
    group = _optional(row, reading.group) if reading.group else None
    kind = _optional(row, "slice") or ("thumbs up" if good else "thumbs down")
    return Example(messages, (answer,), kind, where, _documents(row), group=group, desirable=good)


def _side(row: dict[str, object], reading: Reading, column: str) -> tuple[tuple[Message, ...], str]:
    """The prompt and one of a row's answers, each a text or messages. Raises RowProblem."""
    value, prompt = _without_nan(row.get(column)), row.get(reading.prompt) if reading.prompt else None
    if value in (None, "", []):
        raise Incomplete(f"the row has no {column!r}")
    if isinstance(prompt, dict) and is_messages(prompt.get("messages")):
        prompt = prompt["messages"]  # OpenAI's form
    if not is_messages(prompt) and not is_messages(value):
        text = trimmed(as_text(value, column))
        if not reading.prompt:
            raise RowProblem(f"{column!r} is no conversation, and there is no column of prompts")
        if not text:
            raise Incomplete(f"the row has no {column!r}")
        return _prompt(row, reading), text
    if prompt is not None and not is_messages(prompt):
        prompt = list(_prompt(row, reading))
    said = value if is_messages(value) else [{"role": "assistant", "content": as_text(value, column)}]
    turns, tools = [*(prompt or []), *said], [row.get(name) for name in TOOLS]  # type: ignore[misc]
    messages, answer = conversation(turns, column, _optional(row, "system"), tools, True, reading.called)
    if answer is None:
        raise Incomplete(f"the row has no {column!r}")
    return messages, answer


def example_of(row: dict[str, object], reading: Reading, where: str, answers_required: bool) -> Example | None:
    """The example of a row, of a conversation that of its last answer; None for a conversation in which every answer
    has weight 0. Raises RowProblem."""
    answers: tuple[str, ...] = ()
    turns = _turns(row, reading)
    if reading.questions:
        messages = _prompt(row, reading) if turns is None else _questioned(row, reading, turns)
        answers = _decided(row, reading.questions, answers_required)
    elif turns is not None:
        tools = [row.get(column) for column in TOOLS]
        system = _optional(row, "system")
        messages, answer = conversation(turns, reading.prompt, system, tools, answers_required, reading.called)
        if answer is None and answers_required:
            return None
        answers = (answer,) if answer is not None else ()
    else:
        messages = _prompt(row, reading)
        if reading.answer:
            answers = _answers(row, reading)
        if not answers and answers_required:
            raise Incomplete(f"the row has no {reading.answer!r}")
    if reading.questions and not answers and answers_required:
        raise Incomplete("the row answers none of the questions")
    group = _optional(row, reading.group) if reading.group else None
    return Example(messages, answers, _optional(row, "slice"), where, _documents(row), group=group)


def holds_conversations(table: Table, prompt: str) -> bool:
    """Whether the column of prompts holds conversations, as its first row shows."""
    return prompt in CONVERSATIONS or (bool(table.rows) and is_messages(table.rows[0][1].get(prompt)))


def _turns(row: dict[str, object], reading: Reading) -> object | None:
    """The messages of a conversation, in one column or in TRL's prompt and completion; None for other rows."""
    prompt = row.get(reading.prompt)
    if reading.prompt in CONVERSATIONS:
        if prompt is None:
            raise Incomplete(f"the row has no {reading.prompt!r}")
        return prompt
    if not is_messages(prompt):
        return None
    answer = row.get(reading.answer) if reading.answer else None
    if is_messages(answer):
        return [*prompt, *answer]  # type: ignore[misc]
    return [*prompt, {"role": "assistant", "content": answer}] if answer is not None else prompt  # type: ignore[misc]


def _prompt(row: dict[str, object], reading: Reading) -> tuple[Message, ...]:
    """The user turn, after a system turn if the row has the column `system`."""
    prompt = as_text(row.get(reading.prompt), reading.prompt)
    if not prompt.strip():
        raise Incomplete(f"the row has no {reading.prompt!r}")
    before, after = ([as_text(_without_nan(row.get(c)), c) for c in side] for side in (reading.before, reading.after))
    content = "\n\n".join(part for part in (*before, prompt, *after) if part.strip())
    system = _optional(row, "system") if not _is_asked(reading, "system") else None
    turn = {"role": "user", "content": content}
    return ({"role": "system", "content": system}, turn) if system else (turn,)


def _answers(row: dict[str, object], reading: Reading) -> tuple[str, ...]:
    """The distinct accepted answers, the one to learn first; empty if the row has none."""
    value = row.get(reading.answer)
    if isinstance(value, dict) and isinstance(value.get("text"), list):
        value = value["text"]  # SQuAD's {"text": […], "answer_start": […]}
    if isinstance(value, list) and reading.answer in LABELS:
        raise RowProblem(f"{reading.answer!r} holds several labels; only one is supported")
    values = list(value) if isinstance(value, list) else [value]
    references = row.get(reading.references)
    if isinstance(references, (str, list)):
        values += texts_of(references, reading.references, lines=False)
    texts = (trimmed(_answer(each, reading.answer)) for each in values)
    return tuple(dict.fromkeys(text for text in texts if text))


def _answer(value: object, column: str) -> str:
    """An accepted answer as text: an object, which is no label, as the JSON that the model is to write."""
    is_object = isinstance(value, dict) and column not in LABELS
    return as_text(json.dumps(value, ensure_ascii=False) if is_object else value, column)


def _questioned(row: dict[str, object], reading: Reading, turns: object) -> tuple[Message, ...]:
    """The turns of a conversation up to its last user turn; columns that hold answers are no part of it."""
    system = _optional(row, "system") if not _is_asked(reading, "system") else None
    tools = [row.get(column) for column in TOOLS if not _is_asked(reading, column)]
    return conversation(turns, reading.prompt, system, tools, False, reading.called)[0]


def _is_asked(reading: Reading, column: str) -> bool:
    """Whether a column holds the answers to a question."""
    return any(question.column == column for question in reading.questions)


def _decided(row: dict[str, object], questions: tuple[Question, ...], answers_required: bool) -> tuple[str, ...]:
    """The answers to the questions, as one text; empty if the row answers none. Raises RowProblem for a cell that is
    none of the choices, where an answer is required."""
    places = []
    for question in questions:
        value = _without_nan(row.get(question.column))
        cell = as_text(value, question.column) if answers_required or not isinstance(value, (list, dict)) else ""
        places.append(question.place(value if isinstance(value, bool) else cell))
        if places[-1] is None and cell.strip() and answers_required:
            known = listed(map(brief, question.labels))
            raise RowProblem(f"{question.column!r} holds {brief(cell)}, which is none of the choices {known}")
    return (answers_text(questions, places),) if any(place is not None for place in places) else ()


def _optional(row: dict[str, object], column: str) -> str | None:
    return as_text(_without_nan(row.get(column)), column).strip() or None


def _without_nan(value: object) -> object:
    """None for the number NaN, which pandas writes where a value is missing; else the value."""
    return None if isinstance(value, float) and math.isnan(value) else value


def _documents(row: dict[str, object]) -> tuple[str, ...]:
    """The document ids of a row, from `doc_id` or a list in `doc_ids`."""
    value = row.get(DOCUMENTS[0], row.get(DOCUMENTS[1]))
    values = value if isinstance(value, list) else [_without_nan(value)]
    return tuple(name for name in (as_text(each, "doc_id").strip() for each in values) if name)
