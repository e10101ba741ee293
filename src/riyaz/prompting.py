"""The text seam: what is put around a row's messages before the chat template renders them."""

from collections.abc import Sequence

from riyaz.artifact import TextPart
from riyaz.data import Example, Message
from riyaz.data.task import Task


def messages_for(
    text: TextPart, task: Task | None, messages: Sequence[Message], examples: Sequence[Example]
) -> list[Message]:
    """The conversation the model reads: the instruction (and the labels, when the text part lists them) in
    the system turn, the examples as finished turns in their order, then the row's own turns.

    A row's own system turn comes before the instruction. Without either there is none, and the template's
    default stands.
    """
    own = [message["content"] for message in messages if message["role"] == "system"]
    parts = [*own, text.instruction]
    if text.list_labels and task is not None:
        parts.append("\n".join(("The labels:", *task.labels)))
    system = "\n\n".join(part for part in parts if part)
    conversation = [{"role": "system", "content": system}] if system else []
    for example in examples:
        conversation += _turns(example.messages)
        conversation.append({"role": "assistant", "content": example.answer})
    return conversation + _turns(messages)


def _turns(messages: Sequence[Message]) -> list[Message]:
    return [dict(message) for message in messages if message["role"] != "system"]
