"""The text of an answer while its tokens come: whole characters, stop strings, and how a task's answers are cut."""

from collections.abc import Collection, Sequence

from riyaz.serve.stopping import StopString
from riyaz.text.sentences import whole_sentences
from riyaz.text.tokenizer import Tokenizer

LONGEST = 8  # tokens whose bytes may be one character
WINDOW = 16  # tokens that are decoded together at most, but for those within a character


class Text:
    """Collects tokens; `push` gives the text that is certain by then, `finish` the rest. With a task the answer has no
    white space around it, and one that was cut ends with its last whole sentence, as where it was measured. Control
    tokens are no text, but for those of `shown`."""

    def __init__(
        self, tokenizer: Tokenizer, stop: Sequence[str] = (), task: bool = False, shown: Collection[int] = ()
    ) -> None:
        self.stopped = False  # a stop string was found; what follows it is left out
        self.stopped_by: str | None = None  # which one
        self._tokenizer, self._task, self._shown = tokenizer, task, shown
        self._stops = [StopString(each) for each in stop]
        self._ids: list[int] = []
        self._start = self._read = 0  # tokens before `_read` are text already; those from `_start` say how it goes on
        self._before = ""  # the text of the tokens between them
        self._text = ""  # of the whole answer, before it is cut
        self._sent = 0

    def push(self, token: int) -> str:
        """The text that is certain after one more token."""
        self._ids.append(token)
        self._add(self._decoded(final=False))
        return self._unsent(self._certain())

    def finish(self, cut: bool) -> str:
        """The rest of the text; `cut`: the answer was ended by a limit."""
        if not self.stopped:
            self._add(self._decoded(final=True))
        text = self._text
        if self._task:
            text = (cut and whole_sentences(text.strip() + " ")) or text.strip()
        return self._unsent(text)

    def _decoded(self, final: bool) -> str:
        """The text of the tokens that were not read yet; none while they end within a character."""
        now = self._tokenizer.decode(self._ids[self._start :], self._shown)
        inside = now.endswith("\ufffd") and len(self._ids) - self._read < LONGEST
        if len(now) <= len(self._before) or (inside and not final):
            return ""
        new = now[len(self._before) :]
        if len(self._ids) - self._start >= WINDOW:
            self._start = self._read
            now = self._tokenizer.decode(self._ids[self._start :], self._shown)
        self._read, self._before = len(self._ids), now
        return new

    def _add(self, new: str) -> None:
        """Add text, up to a stop string that is there now."""
        size = len(self._text)
        self._text += new
        begins = [(size + end - len(stop.string), stop.string) for stop in self._stops if (end := stop.read(new))]
        if begins:
            place, self.stopped_by = min(begins)
            self.stopped, self._text = True, self._text[:place]

    def _certain(self) -> str:
        """The text that no further token changes: not what may become a stop string, nor an unfinished sentence."""
        text = self._text
        if self._stops and not self.stopped:
            text = text[: len(text) - max(stop.matched for stop in self._stops)]
        return whole_sentences(text.lstrip()) if self._task else text

    def _unsent(self, text: str) -> str:
        new = text[self._sent :]
        self._sent = max(self._sent, len(text))
        return new
