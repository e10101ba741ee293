"""`riyaz chat`: a conversation on the terminal, or one answer per line of piped input."""

import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING

from riyaz.cli.opened import opened, tell_lookup
from riyaz.cli.options import Held, LookedUp, Quiet, Schema, Served, Target
from riyaz.cli.output import Screen
from riyaz.cli.sampling import DRAWING_DEFAULTS, Drawing, System, decide
from riyaz.cli.stream import MaxTokens, after, print_stream
from riyaz.errors import RiyazError
from riyaz.json_files import write_lines
from riyaz.report.media.markup import printable_line

if TYPE_CHECKING:
    from riyaz.engine.request import Sampling
    from riyaz.predictor import Predictor

PROMPT = "> "
HELP = """/help          this list
/reset         begin a new conversation, as an empty line does; the system message stays
/system TEXT   begin a new conversation with this system message; without TEXT none
/save FILE     write the conversation as a row of JSON lines, which riyaz data reads
Ctrl-C         stop the answer; at the prompt it leaves, as Ctrl-D does
A question that begins with / is asked with a space before it."""


def chat(
    target: Target,
    /,
    *,
    system: System = None,
    max_tokens: MaxTokens = None,
    schema: Schema = None,
    precision: Served = "auto",
    kv: Held = "auto",
    lookup: LookedUp = None,
    drawing: Drawing = DRAWING_DEFAULTS,
    quiet: Quiet = False,
) -> None:
    """Talk with a model or an artifact."""
    screen, asking = Screen(quiet=quiet), sys.stdin.isatty()
    try:
        predictor = opened(screen, target, precision=precision, kv=kv, schema=schema, lookup=lookup)
        sampling, how = decide(drawing, predictor, system)
        if how:
            screen.talk.print(how, style="dim", soft_wrap=True)
        if asking:
            screen.talk.print("/help lists the commands, Ctrl-D leaves", style="dim")
        talk = Talk(screen, predictor, sampling, max_tokens, system or "")
        while (line := _line(asking)) is not None:
            if not line.strip():
                talk.turns = []
            elif not asking:
                talk.ask(line)
            else:
                _entered(talk, line)
        tell_lookup(screen, predictor)
    except KeyboardInterrupt:
        raise KeyboardInterrupt("left the chat" if asking else "stopped") from None


@dataclass
class Talk:
    """A conversation, and how its answers are made."""

    screen: Screen
    predictor: "Predictor"
    sampling: "Sampling"
    max_tokens: int | None
    system: str
    turns: list[dict[str, str]] = field(default_factory=list)
    questions: int = 0  # so far; each draws anew

    @property
    def messages(self) -> list[dict[str, str]]:
        """The conversation with its system message, if there is one."""
        return [*([{"role": "system", "content": self.system}] if self.system else []), *self.turns]

    def ask(self, question: str, stoppable: bool = False) -> None:
        """Print the answer and keep both. Where it is `stoppable`, Ctrl-C keeps what was said until then. Raises
        RiyazError."""
        from riyaz.predictor import TooLong

        turn = {"role": "user", "content": question}
        sampling = replace(self.sampling, seed=self.sampling.seed + self.questions)
        self.questions += 1
        said: list[str] = []
        try:
            with _ctrl_c_stops() if stoppable else nullcontext():
                stream = self.predictor.stream([*self.messages, turn], max_tokens=self.max_tokens, sampling=sampling)
                print_stream(self.screen, stream, said)
            after(self.screen, stream)
        except TooLong as error:
            anew = f"{'/reset' if stoppable else 'an empty line'} begins a new conversation"
            raise RiyazError(error.what, error.where, anew if self.turns else error.hint) from None
        except _Stopped:
            self.screen.data.print()
            self.screen.talk.print("stopped", style="dim")
        if said:
            self.turns += [turn, {"role": "assistant", "content": "".join(said)}]

    def command(self, line: str) -> str:
        """Do what a line that begins with / says and return what to print. Raises RiyazError."""
        name, _, argument = line.partition(" ")
        argument = argument.strip()
        if name == "/help":
            return HELP
        if name == "/reset":
            self.turns = []
            return "a new conversation begins"
        if name == "/system":
            self.system, self.turns = argument, []
            said = f"system message: {argument}" if argument else "no system message"
            return f"{said}; a new conversation begins"
        if name == "/save":
            return self._save(argument)
        hint = "/help lists the commands; a question that begins with / is asked with a space before it"
        raise RiyazError(f"there is no command {name}", hint=hint)

    def _save(self, name: str) -> str:
        path = Path(name).expanduser()
        if not name:
            raise RiyazError("names no file", "/save", "write /save FILE")
        if not self.turns:
            raise RiyazError("there is nothing to save yet", "/save", "ask something first")
        if path.exists():
            raise RiyazError("exists already", name, "choose another name")
        if not path.parent.is_dir():
            raise RiyazError("the folder does not exist", str(path.parent), "choose another name")
        try:
            write_lines(path, [{"messages": self.messages}])
        except OSError as error:
            raise RiyazError(f"cannot be written ({error.strerror})", name, "choose another name") from None
        return f"{len(self.messages)} messages in {name}"


class _Stopped(KeyboardInterrupt):
    """Ctrl-C during an answer."""


@contextmanager
def _ctrl_c_stops() -> Iterator[None]:
    """Within the block Ctrl-C raises _Stopped; what other signals raise still ends the command."""

    def stop(number: int, frame: FrameType | None) -> None:
        raise _Stopped

    before = signal.signal(signal.SIGINT, stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


def _entered(talk: Talk, line: str) -> None:
    """Do what was typed at the prompt; an error is printed, also with --quiet, and the conversation goes on."""
    try:
        if line.startswith("/"):
            talk.screen.asked.print(talk.command(line), style="dim", soft_wrap=True)
        else:
            talk.ask(line.removeprefix(" "), stoppable=True)
    except RiyazError as error:
        talk.screen.asked.print(printable_line(f"error: {error}"), soft_wrap=True)


def _line(asking: bool) -> str | None:
    """The next input line without its line end; None at the end of the input."""
    if asking:
        try:
            return input(PROMPT)
        except EOFError:
            return None
    text = sys.stdin.readline()
    return text.rstrip("\n") if text else None
