"""The prompt that an artifact puts around a question, for other tools, and what no export can hold of an artifact."""

from dataclasses import dataclass
from pathlib import Path

from riyaz import artifact as artifacts
from riyaz.artifact import Artifact
from riyaz.config import TOOLS
from riyaz.data import Example, Message
from riyaz.export.targets import Target
from riyaz.prompting import messages_for


@dataclass(frozen=True)
class Prompt:
    """The turns before the question, the text that begins the question, and the most tokens of an answer."""

    messages: tuple[Message, ...] = ()
    opening: str = ""
    max_new_tokens: int = 256

    @property
    def system(self) -> str:
        """The text of the system turn, "" without one."""
        return next((turn["content"] for turn in self.messages if turn["role"] == "system"), "")

    @property
    def examples(self) -> tuple[Message, ...]:
        """The turns of the examples: questions and answers in order."""
        return tuple(turn for turn in self.messages if turn["role"] != "system")


def prompt_of(target: Target) -> Prompt:
    """The prompt of an artifact; without an artifact an empty one. Where the chat template writes no system turn, its
    text begins the first user's turn, as in riyaz."""
    document = target.document
    if document is None:
        return Prompt()
    examples: tuple[Example, ...] = ()
    if document.text.examples == "fixed":
        file = document.text.examples_file or artifacts.EXAMPLES
        examples = artifacts.read_examples(Path(target.path) / file)
    *turns, question = messages_for(document.text, document.task, [{"role": "user", "content": ""}], examples)
    if turns and turns[0]["role"] == "system" and not target.source.tokenizer().takes_system:
        system, *rest = [*turns, question]
        opening = system["content"] + "\n\n"
        if len(rest) == 1:
            return Prompt((), opening, document.max_new_tokens)
        turns = [{**rest[0], "content": opening + rest[0]["content"]}, *rest[1:-1]]
    return Prompt(tuple(turns), "", document.max_new_tokens)


def not_held(document: Artifact | None) -> list[str]:
    """What the artifact does and no other tool's format holds, one sentence each."""
    if document is None:
        return []
    text, task, lines = document.text, document.task, []
    if task is not None and task.kind == "closed" and not document.weights.label_head:
        how = ", corrected by its probability without a text" if document.calibrated else ""
        how = ", made equally likely over prompts of the task" if document.label_offsets else how
        lines.append(
            f"closed set: riyaz answers with the likeliest of the {len(task.labels)} labels{how}; other tools write "
            "freely, so check that an answer is a label"
        )
    if task is not None and task.schema == TOOLS:
        lines.append(
            "calls of tools: riyaz holds the calls in an answer to the names and schemas of its conversation's tools; "
            "other tools write freely unless they are asked to (`tool_choice`, or `strict`)"
        )
    elif task is not None and task.schema:
        lines.append(
            f"the schema: riyaz holds every answer to the JSON schema of `{artifacts.SCHEMA}`, token by token; other "
            "tools write freely unless they are given it"
        )
    if text.passages:
        lines.append(
            f"retrieval: riyaz puts {text.passages} passages of the artifact's documents before each question; "
            "the export holds no documents"
        )
    if text.span_words and text.passages:
        lines.append("spans: riyaz answers with the likeliest words of those passages; other tools write freely")
    if text.examples == "nearest":
        lines.append(
            f"nearest examples: riyaz shows the {text.k} examples that are most similar to each question; "
            "the export shows none"
        )
    return lines
