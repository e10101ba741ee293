"""One row of a table as an `Example`."""

import json
import re

from riyaz.data import Example, Message
from riyaz.data.columns import CONVERSATIONS, LABELS, Reading
from riyaz.data.tables import json_kind

ROLES = {
    "system": "system",
    "developer": "system",
    "user": "user",
    "human": "user",
    "assistant": "assistant",
    "gpt": "assistant",
}


class RowProblem(Exception):
    """What is wrong with one row; whoever reads the file adds the line."""


def example_of(row: dict[str, object], reading: Reading, where: str, answers_required: bool) -> Example | None:
    """The example of a row; None for a conversation that asks not to be learned. Raises RowProblem."""
    answers: tuple[str, ...] = ()
    if reading.prompt in CONVERSATIONS:
        messages, answer = _conversation(row.get(reading.prompt), reading.prompt, answers_required)
        if answer is None and answers_required:
            return None
        answers = (answer,) if answer is not None else ()
    else:
        messages = _prompt(row, reading)
        if reading.answer:
            answers = _answers(row, reading)
        if not answers and answers_required:
            raise RowProblem(f"the row has no {reading.answer!r}")
    return Example(messages, answers, _optional(row, "slice"), where, _documents(row))


def _prompt(row: dict[str, object], reading: Reading) -> tuple[Message, ...]:
    """The user turn, after a system turn when the row has a column of that name."""
    prompt = _text(row.get(reading.prompt), reading.prompt)
    if not prompt.strip():
        raise RowProblem(f"the row has no {reading.prompt!r}")
    before, after = ([_text(row.get(c), c) for c in side] for side in (reading.before, reading.after))
    content = "\n\n".join(part for part in (*before, prompt, *after) if part.strip())
    system = _optional(row, "system")
    turn = {"role": "user", "content": content}
    return ({"role": "system", "content": system}, turn) if system else (turn,)


def _answers(row: dict[str, object], reading: Reading) -> tuple[str, ...]:
    """The accepted answers without repeats, the target first; empty when the row has none."""
    value = row.get(reading.answer)
    if isinstance(value, dict) and isinstance(value.get("text"), list):
        value = value["text"]  # SQuAD's {"text": […], "answer_start": […]}
    if isinstance(value, list) and reading.answer in LABELS:
        raise RowProblem(f"{reading.answer!r} holds several labels where one is read")
    values = list(value) if isinstance(value, list) else [value]
    references = row.get(reading.references)
    if isinstance(references, list):
        values += references
    texts = (_trimmed(_text(each, reading.answer)) for each in values)
    return tuple(dict.fromkeys(text for text in texts if text))


def _conversation(value: object, column: str, answers_required: bool) -> tuple[tuple[Message, ...], str | None]:
    """(turns up to a user turn, the last answer to learn after it); None when every answer has weight 0."""
    if not isinstance(value, list) or not value or not all(isinstance(turn, dict) for turn in value):
        raise RowProblem(f"{column!r} is not a list of messages")
    turns = tuple(_turn(turn) for turn in value)
    if not answers_required and turns[-1]["role"] == "user":
        return turns, None
    answers = [index for index, turn in enumerate(turns) if turn["role"] == "assistant"]
    if not answers:
        raise RowProblem("the conversation has no assistant turn")
    wanted = [index for index in answers if value[index].get("weight", 1) != 0]
    if not wanted and answers_required:
        return turns, None
    last = (wanted or answers)[-1]
    if last == 0 or turns[last - 1]["role"] != "user":
        raise RowProblem("the last assistant turn does not follow a user turn")
    answer = _trimmed(turns[last]["content"])
    if not answer or not turns[last - 1]["content"].strip():
        raise RowProblem(f"the last {'user' if answer else 'assistant'} turn is empty")
    return turns[:last], answer


def _turn(turn: dict) -> Message:
    role = turn.get("role", turn.get("from"))
    if turn.get("tool_calls") or role in ("tool", "function"):
        raise RowProblem("tool calls are not read")
    if not isinstance(role, str) or role not in ROLES:
        raise RowProblem(f"role {role!r} is none of system, user, assistant")
    content = turn.get("content", turn.get("value"))
    if isinstance(content, list) and all(isinstance(part, dict) and part.get("type") == "text" for part in content):
        content = "".join(_text(part.get("text"), "text") for part in content)
    return {"role": ROLES[role], "content": _text(content, "content")}


def _optional(row: dict[str, object], column: str) -> str | None:
    return _text(row.get(column), column).strip() or None


def _documents(row: dict[str, object]) -> tuple[str, ...]:
    """The documents a row names, in `doc_id` or as a list in `doc_ids`."""
    value = row.get("doc_ids", row.get("doc_id"))
    values = value if isinstance(value, list) else [value]
    return tuple(name for name in (_text(each, "doc_id").strip() for each in values) if name)


def _text(value: object, column: str) -> str:
    """A field as text, "" for null; numbers and truth values as JSON writes them. Raises RowProblem."""
    if value is None:
        return ""
    if isinstance(value, (list, dict)):
        raise RowProblem(f"{column!r} is {json_kind(value)}, not text")
    text = value if isinstance(value, str) else json.dumps(value)
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        raise RowProblem(f"{column!r} holds half of a surrogate pair, which is no character") from None
    return text


def _trimmed(text: str) -> str:
    """An answer without outer white space; a first line keeps its indentation when more lines follow."""
    inner = text.strip()
    return re.sub(r"\A(?:[^\S\n]*\n)+", "", text).rstrip() if "\n" in inner else inner
