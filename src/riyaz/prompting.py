"""The text seam: put instruction, examples and passages around a row's messages, for the chat template to render."""

from collections.abc import Sequence
from typing import Protocol

from riyaz.artifact import TextPart
from riyaz.data import Example, Message
from riyaz.data.task import Task
from riyaz.files import new_sha256


class Passage(Protocol):
    """A retrieved passage, such as a `retrieval.search.Hit`."""

    @property
    def title(self) -> str:
        """The title of its document."""

    @property
    def text(self) -> str:
        """The text of the passage."""


def messages_for(
    text: TextPart,
    task: Task | None,
    messages: Sequence[Message],
    examples: Sequence[Example],
    passages: Sequence[Passage] = (),
) -> list[Message]:
    """The conversation that the model reads: a system turn, the examples in order as question and answer turns, then
    the row's own turns, the last of which begins with the passages as data.

    The system turn joins the row's own one, the instruction if that is another, and the labels if the text part lists
    them, and holds the definitions of tools. If it would be empty it is left out, and the template's default applies.
    """
    own = [message["content"] for message in messages if message["role"] == "system"]
    parts = [*filter(None, own), text.instruction if text.instruction not in own else ""]
    if text.list_labels and task is not None:
        parts.append("\n".join(("The labels:", *task.labels)))
    system = "\n\n".join(part for part in parts if part)
    tools = {"tools": messages[0]["tools"]} if messages[0].get("tools") else {}
    conversation: list[Message] = [{"role": "system", "content": system, **tools}] if system or tools else []
    for example in examples:
        conversation += _turns(example.messages)
        said = example.said
        conversation.append({"role": "assistant", "content": said} if isinstance(said, str) else said)
    conversation += _turns(messages)
    if passages:
        question = conversation[-1]["content"]
        conversation[-1] = {**conversation[-1], "content": f"{data_block(passages, question)}\n\n{question}"}
    return conversation


def data_block(passages: Sequence[Passage], question: str) -> str:
    """The passages between two lines with a marker that no passage contains, so that no passage can end the block.

    The marker is a hash of the passages and the question, hashed again while a passage contains it. The same request
    has the same marker, and the author of a document cannot predict it.
    """
    body = "\n\n".join(f"{passage.title}\n{passage.text}" if passage.title else passage.text for passage in passages)
    marker = _marker(body + question)
    while marker in body:
        marker = _marker(marker + body)
    return f"<documents {marker}>\n{body}\n</documents {marker}>"


def _marker(text: str) -> str:
    return new_sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:6]


def _turns(messages: Sequence[Message]) -> list[Message]:
    return [dict(message) for message in messages if message["role"] != "system"]
