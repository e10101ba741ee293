"""The text seam: what is put around a row's messages before the chat template renders them."""

import hashlib
from collections.abc import Sequence
from typing import Protocol

from riyaz.artifact import TextPart
from riyaz.data import Example, Message
from riyaz.data.task import Task


class Passage(Protocol):
    """Retrieved text, as `retrieval.search.Hit` has it."""

    @property
    def title(self) -> str:
        """Of its document."""

    @property
    def text(self) -> str:
        """What stands there."""


def messages_for(
    text: TextPart,
    task: Task | None,
    messages: Sequence[Message],
    examples: Sequence[Example],
    passages: Sequence[Passage] = (),
) -> list[Message]:
    """The conversation the model reads: the instruction (and the labels, when the text part lists them) in
    the system turn, the examples as finished turns in their order, then the row's own turns, of which the last
    begins with the passages as data.

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
    conversation += _turns(messages)
    if passages:
        question = conversation[-1]["content"]
        conversation[-1] = {**conversation[-1], "content": f"{data_block(passages, question)}\n\n{question}"}
    return conversation


def data_block(passages: Sequence[Passage], question: str) -> str:
    """The passages between two lines with a marker that no passage can hold, so that none can end the block.

    The marker is a hash of what the block holds, taken again while it stands in the text: the same request has
    the same marker, and no document can be written that knows it.
    """
    body = "\n\n".join(f"{passage.title}\n{passage.text}" if passage.title else passage.text for passage in passages)
    marker = _marker(body + question)
    while marker in body:
        marker = _marker(marker + body)
    return f"<documents {marker}>\n{body}\n</documents {marker}>"


def _marker(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:6]


def _turns(messages: Sequence[Message]) -> list[Message]:
    return [dict(message) for message in messages if message["role"] != "system"]
