"""The Ollama Modelfile beside a GGUF file: base, chat template, system turn, examples, and the settings of an answer.

Ollama's templates are Go's. Ours is found by rendering probe conversations with the model's own Jinja template and
cutting them at the probes' contents; it is written only if it gives the same text for other conversations. Keywords:
Ollama's Modelfile reference.
"""

from dataclasses import dataclass
from itertools import takewhile
from pathlib import Path

from riyaz.data import Message
from riyaz.errors import RiyazError
from riyaz.export.prompt import Prompt
from riyaz.files import write_text
from riyaz.text.tokenizer import Tokenizer

MODELFILE = "Modelfile"
MAX_CONTEXT = 8192  # Ollama reserves memory for every position
QUOTES = '"""'
PROBES = ("71\u00a730", "46\u00a785", "92\u00a761", "58\u00a717", "03\u00a729", "84\u00a752")  # occur in no template
NOT_EXPRESSED = "Ollama's template language cannot express the model's chat template, so the Modelfile has none"


@dataclass(frozen=True)
class Turns:
    """The text around the contents of a conversation. `system` stands around a system turn's content and `start` is
    written where there is none; `after_user` comes before an answer, past or wanted."""

    system: tuple[str, str] | None
    start: str
    before_user: str
    after_user: str
    after_answer: str

    def text(self, conversation: list[Message]) -> str:
        """A conversation that ends with a question, up to the answer, as the template of `go` writes it."""
        first, *rest = conversation
        text, turns = self.start, conversation
        if first["role"] == "system" and self.system is not None:
            text, turns = _around(first["content"], self.system), rest
        user, answer = (self.before_user, self.after_user), ("", self.after_answer)
        return text + "".join(_around(turn["content"], user if turn["role"] == "user" else answer) for turn in turns)

    def go(self) -> str:
        """The same as a template of Ollama."""
        head = self.start
        if self.system is not None:
            before, after = self.system
            head = f"{{{{ if .System }}}}{before}{{{{ .System }}}}{after}{{{{ else }}}}{self.start}{{{{ end }}}}"
        user = f'{{{{ if eq .Role "user" }}}}{self.before_user}{{{{ .Content }}}}{self.after_user}'
        answer = f'{{{{ else if eq .Role "assistant" }}}}{{{{ .Content }}}}{self.after_answer}{{{{ end }}}}'
        return f"{head}{{{{ range .Messages }}}}{user}{answer}{{{{ end }}}}"


def turns_of(tokenizer: Tokenizer) -> Turns | None:
    """The text around each turn in the model's chat template, without the token that llama.cpp itself puts first. None
    if the template cannot be written this way."""
    system, *contents = PROBES
    plain = [_conversation(contents[:count]) for count in (1, 3, 5)]
    try:
        texts = [_bare(tokenizer, text) for text in tokenizer.render_texts(plain)]
        with_system = None
        if tokenizer.takes_system:
            turn: Message = {"role": "system", "content": system}
            with_system = [[turn, *conversation] for conversation in plain]
            texts += [_bare(tokenizer, text) for text in tokenizer.render_texts(with_system)]
    except RiyazError:  # the template refuses such a conversation
        return None
    start, after_user, between, *_ = _pieces(texts[1], contents[:3])
    head = _pieces(texts[4], [system, *contents[:3]])[:2] if with_system else []
    before_user = _common_end([start, between, *head[1:]])
    for end in sorted(map(tokenizer.token_text, tokenizer.eos_ids)):  # it belongs to the turn before
        before_user = before_user.rpartition(end)[2].removeprefix("\n") if end in before_user else before_user
    cut = -len(before_user) or None
    turns = Turns(
        system=(head[0], head[1][:cut]) if head else None, start=start[:cut], before_user=before_user,
        after_user=after_user, after_answer=between[:cut],
    )  # fmt: skip
    same = [turns.text(conversation) for conversation in [*plain, *(with_system or [])]] == texts
    parts = (*(turns.system or ()), turns.start, turns.before_user, turns.after_user, turns.after_answer)
    return turns if same and not any("{{" in part or QUOTES in part for part in parts) else None


def write(path: Path, tokenizer: Tokenizer, prompt: Prompt, model: str, adapter: str | None, context: int) -> list[str]:
    """Write the Modelfile of `model` (a path beside it) with an adapter; returns sentences on what it lacks."""
    lines = [f"FROM {model}"]
    if adapter is not None:
        lines.append(f"ADAPTER {adapter}")
    turns = turns_of(tokenizer)
    notes = [] if turns else [NOT_EXPRESSED]
    if turns:
        lines.append(f"TEMPLATE {_quoted(turns.go())}")
    spoken = [turn for turn in prompt.messages if QUOTES not in turn["content"]]
    if len(spoken) < len(prompt.messages):
        notes.append(f"a Modelfile cannot hold {QUOTES}, so the instruction and the examples are in the README only")
        spoken = []
    if prompt.opening:
        notes.append("the chat template has no system turn: with Ollama, begin each question with the instruction")
    for turn in spoken:
        keyword = "SYSTEM" if turn["role"] == "system" else f"MESSAGE {turn['role']}"
        lines.append(f"{keyword} {_quoted(turn['content'])}")
    for number in sorted(tokenizer.eos_ids):
        lines.append(f'PARAMETER stop "{tokenizer.token_text(number)}"')
    lines += [
        f"PARAMETER num_ctx {min(context, MAX_CONTEXT)}", "PARAMETER temperature 0", "PARAMETER repeat_penalty 1",
        f"PARAMETER num_predict {prompt.max_new_tokens}",
    ]  # fmt: skip
    write_text(path, "\n".join(lines) + "\n")
    return notes


def _conversation(contents: list[str] | tuple[str, ...]) -> list[Message]:
    """Questions and answers in turn, the last a question."""
    roles = ("user", "assistant") * len(contents)
    return [{"role": role, "content": content} for role, content in zip(roles, contents)]


def _bare(tokenizer: Tokenizer, text: str) -> str:
    """A rendered text without the token that llama.cpp puts at the beginning of every prompt."""
    first = "".join(tokenizer.token_text(number) for number in tokenizer.beginning)
    return text.removeprefix(first)


def _pieces(text: str, contents: list[str]) -> list[str]:
    """The text before, between and after the contents."""
    pieces = []
    for content in contents:
        before, _, text = text.partition(content)
        pieces.append(before)
    return [*pieces, text]


def _around(content: str, texts: tuple[str, str]) -> str:
    """The content between two texts."""
    return texts[0] + content + texts[1]


def _common_end(texts: list[str]) -> str:
    """The longest text that all the texts end with."""
    columns = zip(*(text[::-1] for text in texts))
    return "".join(column[0] for column in takewhile(lambda column: len(set(column)) == 1, columns))[::-1]


def _quoted(text: str) -> str:
    return f"{QUOTES}{text}{QUOTES}"
