"""Rendering chat templates in a child process, which can be killed: a template is untrusted code from a model.

One `template_worker` process is started on first use, kept, and given conversations in batches. A template that loops,
exceeds its limits or fails raises a RiyazError, and the next call starts a fresh process.
"""

import atexit
import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from riyaz.confined import CPU_LIMIT_REACHED, module_command
from riyaz.errors import RiyazError

WHERE = "chat template"
BATCH_CONVERSATIONS = 200
BATCH_CHARACTERS = 1 << 20
SECONDS_PER_BATCH, SECONDS_PER_CONVERSATION = 2.0, 0.01  # CPU time limit; unlike wall time, independent of load
WALL_SECONDS_PER_SECOND = 5  # wall time limit as a multiple of the CPU time limit
SECONDS_TO_START = 60.0
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
        answer = _worker.ask(request, SECONDS_PER_BATCH + SECONDS_PER_CONVERSATION * len(batch))
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


class _Worker:
    """The child process: started on demand, killed at its time limit, not shared with forks of this process."""

    def __init__(self) -> None:
        self._process: subprocess.Popen | None = None
        self._lock = threading.Lock()
        atexit.register(self.stop)
        if hasattr(os, "register_at_fork"):
            os.register_at_fork(after_in_child=self._forget)

    def ask(self, request: dict, seconds: float) -> dict:
        """The worker's answer within `seconds` of CPU time; a worker that dies is replaced once. Raises RiyazError."""
        most = 12 * request["output_limit"] + (1 << 20)  # bytes: ASCII JSON takes at most 12 per character
        line = json.dumps(request | {"cpu_seconds": seconds}).encode() + b"\n"
        with self._lock:
            for _attempt in range(2):
                process = self._start()
                answer = self._exchange(process, line, WALL_SECONDS_PER_SECOND * seconds, most)
                if answer:
                    return json.loads(answer)
        raise RiyazError("crashes the process that renders it", WHERE, "it cannot be used")

    def stop(self) -> None:
        """Kills the child process and waits for its end."""
        process, self._process = self._process, None
        if process is not None:
            _end(process)

    def _start(self) -> subprocess.Popen:
        if self._process is not None and self._process.poll() is None:
            return self._process
        self.stop()
        arguments, environment = module_command("riyaz.text.template_worker")
        hint = f"run `{Path(sys.executable).name} -m riyaz.text.template_worker` to see why"
        try:
            process = subprocess.Popen(
                arguments,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                bufsize=0,  # a fork of this process must not inherit half-written data
                env=environment,
            )
        except OSError as error:
            raise RiyazError(f"the process that renders it failed to start: {error}", WHERE, hint) from None
        if self._exchange(process, b"", SECONDS_TO_START, 64) != b"ready\n":
            _end(process)
            raise RiyazError("the process that renders it failed to start", WHERE, hint)
        self._process = process
        return process

    def _exchange(self, process: subprocess.Popen, line: bytes, seconds: float, most: int) -> bytes:
        """Writes `line` and reads one line of at most `most` bytes; empty if the process died.

        Raises RiyazError after `seconds` of wall time.
        """
        deadline = time.monotonic() + seconds
        # killing the worker unblocks a write that it does not read and a read that it does not answer
        watchdog = threading.Timer(seconds, process.kill)
        watchdog.daemon = True
        answer = b""
        try:
            watchdog.start()
            answer = _talk(process, line, most)
        finally:
            watchdog.cancel()
            if not answer:  # dead, late, or Ctrl-C: a late answer must not be taken for the next request's
                self._process = None
                _end(process)
        if not answer and (time.monotonic() >= deadline or process.returncode == CPU_LIMIT_REACHED):
            raise RiyazError("does not finish in time", WHERE, "it may be endless")
        return answer

    def _forget(self) -> None:
        """In a forked child: closes the pipes of the worker, which belongs to the parent."""
        process, self._process = self._process, None
        self._lock = threading.Lock()
        if process is not None:
            process.returncode = 0  # not this process's child, so it must not wait for it
            _close(process)


def _talk(process: subprocess.Popen, line: bytes, most: int) -> bytes:
    assert process.stdin is not None and process.stdout is not None
    try:
        view = memoryview(line)
        while view:
            view = view[process.stdin.write(view) :]
        answer = bytearray()
        while not answer.endswith(b"\n"):
            piece = process.stdout.read(1 << 16)
            if not piece or len(answer) > most:
                return b""
            answer += piece
    except OSError:  # the process ended with its pipe open
        return b""
    return bytes(answer)


def _end(process: subprocess.Popen) -> None:
    process.kill()
    process.wait()
    _close(process)


def _close(process: subprocess.Popen) -> None:
    for pipe in (process.stdin, process.stdout):
        if pipe is not None:
            pipe.close()


_worker = _Worker()
