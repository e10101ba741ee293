"""Rendering chat templates in a child process, which can be killed: a template is untrusted code from a model.

One `template_worker` process is started on first use, kept, and given conversations in batches. A template that loops,
exceeds its limits or fails raises a RiyazError, and the next call starts a fresh process.
"""

import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path

from riyaz.child import Child, Ended
from riyaz.confined import module_command
from riyaz.errors import RiyazError
from riyaz.hardware import address_space

WHERE = "chat template"
BATCH_CONVERSATIONS = 200
BATCH_CHARACTERS = 1 << 20
SECONDS_PER_BATCH, SECONDS_PER_CONVERSATION = 2.0, 0.01  # CPU time limit; unlike wall time, independent of load
WALL_SECONDS_PER_SECOND = 5  # wall time limit as a multiple of the CPU time limit
TEMPLATE_CHARACTERS = 1 << 20
# A template adds markers and a system prompt to its input; the limit stops one that grows it without bound.
OUTPUT_CHARACTERS, OUTPUT_PER_CHARACTER = 4 << 20, 8


def render_chat(
    template: str, conversations: list[list[dict]], *, add_generation_prompt: bool, variables: dict,
    tools: Sequence[Sequence[dict]] = (),
) -> list[str]:  # fmt: skip
    """The text of each conversation, as transformers renders it with its own `tools`, where there are any. Raises
    RiyazError when the template fails."""
    if len(template) > TEMPLATE_CHARACTERS:
        raise RiyazError(f"{len(template)} characters long, the limit is {TEMPLATE_CHARACTERS}", WHERE)
    texts: list[str] = []
    for batch, characters in _batches(conversations, tools or [()] * len(conversations)):
        request = {
            "template": template,
            "conversations": [messages for messages, _ in batch],
            "tools": [own or None for _, own in batch],
            "add_generation_prompt": add_generation_prompt,
            "variables": variables,
            "output_limit": OUTPUT_CHARACTERS + OUTPUT_PER_CHARACTER * characters,
        }
        answer = _ask(request, SECONDS_PER_BATCH + SECONDS_PER_CONVERSATION * len(batch))
        if "error" in answer:
            row = answer.get("conversation")
            where = WHERE if row is None else f"{WHERE}, conversation {len(texts) + row + 1}"
            raise RiyazError(_printable(answer["error"]), where)
        texts += answer["texts"]
    return texts


def _batches(
    conversations: list[list[dict]], tools: Sequence[Sequence[dict]]
) -> Iterator[tuple[list[tuple[list[dict], Sequence[dict]]], int]]:
    """Yields (batch of conversations with their tools, its number of characters); a conversation over the limit gets a
    batch by itself."""
    batch: list[tuple[list[dict], Sequence[dict]]] = []
    characters = 0
    for messages, own in zip(conversations, tools, strict=True):
        if not messages:
            raise RiyazError("a conversation without messages", WHERE)
        length = sum(len(str(value)) for message in messages for value in message.values())
        length += len(str(own)) if own else 0
        if batch and (len(batch) == BATCH_CONVERSATIONS or characters + length > BATCH_CHARACTERS):
            yield batch, characters
            batch, characters = [], 0
        batch.append((messages, own))
        characters += length
    if batch:
        yield batch, characters


def _printable(text: str, longest: int = 300) -> str:
    """A template's message made safe for a terminal: no control characters, at most `longest` characters."""
    text = "".join(character if character.isprintable() else " " for character in text[: longest + 1])
    return text if len(text) <= longest else text[:longest] + "…"


def _ask(request: dict, seconds: float) -> dict:
    """The worker's answer within `seconds` of CPU time; a worker that dies is replaced once. Raises RiyazError."""
    most = 12 * request["output_limit"] + (1 << 20)  # bytes: ASCII JSON takes at most 12 per character
    for _attempt in range(2):
        try:
            return _worker.ask(request | {"cpu_seconds": seconds}, WALL_SECONDS_PER_SECOND * seconds, most)
        except Ended as ended:
            if ended.late:
                raise RiyazError("does not finish in time", WHERE, "it may be endless") from None
        except RiyazError as error:
            hint = f"run `{Path(sys.executable).name} -m riyaz.text.template_worker` to see why"
            raise RiyazError(error.what, WHERE, hint) from None
    raise RiyazError("crashes the process that renders it", WHERE, "it cannot be used")


def start_worker() -> None:
    """Start the process that renders, in a thread, so that it is ready when a model is. A failure is told where a
    conversation is rendered. Under a limit of address space it starts there too: the thread would reserve some before
    numpy, whose OpenBLAS ends the process where it gets none."""

    def start() -> None:
        with suppress(RiyazError):
            _worker.start()

    if address_space() is None:
        threading.Thread(target=start, daemon=True).start()


_worker = Child(partial(module_command, "riyaz.text.template_worker"))
