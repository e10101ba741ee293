"""Text to token ids and back, and conversations to token ids through the model's chat template.

    tokenizer = Tokenizer.from_folder("my-model")        # or Tokenizer.from_gguf(metadata)
    tokenizer.render([[{"role": "user", "content": "Hello"}]])

Only the chat template may write control tokens such as `<|im_end|>`; in a message they are plain text. To tell them
apart, the backend recognises a control token only between two MARK characters, which occur in no message. During
rendering, control tokens in messages are broken up with HIDE characters; after it, those that the template wrote get
their marks and HIDE is removed.
"""

import re
from collections.abc import Collection, Iterable, Iterator, Sequence
from contextlib import contextmanager
from functools import cache, cached_property
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

import tokenizers

from riyaz.errors import RiyazError
from riyaz.files import write_bytes, write_text
from riyaz.json_files import to_json
from riyaz.text import tokenizer_backend, tokenizer_files, tokenizer_gguf
from riyaz.text.calls import has_tools, takes_tools, turn_text, without_definitions, without_tools
from riyaz.text.template import render_chat
from riyaz.text.tokenizer_files import TokenizerFiles

Message = dict[str, Any]  # {"role", "content", maybe "tool_calls"}; the first may hold definitions of "tools"
Conversation = list[Message]

BYTE = re.compile("<0x[0-9A-F]{2}>")  # a SentencePiece token for one byte of a character outside the vocabulary
MARK, HIDE = "\U0010fffd", "\U0010fffc"  # private-use characters; replaced by two others if a text contains them
ROUNDS = (1, 2, 3, 4)  # questions in the conversations that probe which turns a template leaves out
ALONE = 16_384  # characters that are encoded without the package's threads, but while all of Python waits
PROBE = "730582946"  # each probe turn's text is this and one more digit, which no template changes


class Row(NamedTuple):
    """A training row: token ids of prompt and answer (with its end-of-turn id); `checks`: property -> whether it
    holds."""

    prompt: list[int]
    answer: list[int]
    checks: dict[str, bool]


class Tokenizer:
    """A model's tokenizer and chat template; `template_name` is "model", or "plain" if the model has no template."""

    def __init__(self, files: TokenizerFiles, where: str) -> None:
        self.where = where
        self._files = files
        settings = files.settings
        definition = files.parsed(where)
        tokenizer_files.refuse_growth(definition, where)
        self._added, listed = tokenizer_files.added_tokens(definition, settings, where)
        self._names = listed.keys()
        self._backends = {MARK: self._build(definition, MARK)}
        self._control = {token: self._checked_id(token, number) for token, number in listed.items()}
        self._control_text = {number: token for token, number in self._control.items()}
        vocabulary = definition["model"]["vocab"]  # a list for Unigram
        ids = vocabulary.values() if isinstance(vocabulary, dict) else range(len(vocabulary))
        listing = [entry["id"] for entry in self._added]  # the backend may load one that is no control token as another
        loading = [self._backends[MARK].token_to_id(entry["content"]) or 0 for entry in self._added]
        self.id_limit = 1 + max([*ids, *listing, *loading], default=-1)  # all ids are smaller
        longest_first = sorted(self._control, key=len, reverse=True)
        self._pattern = re.compile("|".join(map(re.escape, longest_first)) or "(?!)")
        prefixes = {token[:length] for token in self._control for length in range(1, len(token))}
        self._control_prefixes = tuple(sorted(prefixes))
        self.template_name = "plain" if files.template is None else "model"
        begins = tokenizer_files.begins_with_bos(definition, settings, where)
        self.template: str = tokenizer_files.plain_template(begins) if files.template is None else files.template
        self._variables = {
            name: tokenizer_files.token_content(settings[name])
            for name in tokenizer_files.SPECIAL_TOKENS
            if settings.get(name)
        }
        self.bos_id = self._control.get(self._variables.get("bos_token", ""))
        self.beginning = (self.bos_id,) if begins and self.bos_id is not None else ()  # ids before any plain text

    @classmethod
    def from_folder(cls, path: str | Path) -> "Tokenizer":
        """The tokenizer of a Hugging Face folder. Raises RiyazError naming the file that is missing or broken."""
        return cls(tokenizer_files.from_folder(Path(path)), str(path))

    @classmethod
    def from_gguf(cls, metadata: dict[str, Any], where: str = "") -> "Tokenizer":
        """The tokenizer in GGUF metadata; `where` names the file in errors. Raises RiyazError if unsupported."""
        name = metadata.get("general.name", "file")
        printable = isinstance(name, str) and name.isprintable() and len(name) <= 80
        where = where or f"GGUF {name if printable else tokenizer_files.one_line(name)}"
        return cls(tokenizer_gguf.from_gguf(metadata, where), where)

    @property
    def files(self) -> TokenizerFiles:
        """The tokenizer's files, read from a folder or converted from GGUF metadata."""
        return self._files

    @property
    def vocab_size(self) -> int:
        """Number of tokens, control tokens included; the model's embedding may have more rows."""
        return self._backends[MARK].get_vocab_size(with_added_tokens=True)

    def text_ids(self) -> set[int]:
        """Every id that a message's text can contain: all but the control tokens."""
        return set(self._backends[MARK].get_vocab(with_added_tokens=True).values()) - self._control_text.keys()

    @cached_property
    def end_of_turn(self) -> int:
        """The id of the control token that the template writes after an answer, else the end-of-text id. Raises
        RiyazError."""
        answer = "An answer."
        probe = [{"role": "user", "content": "A question?"}, {"role": "assistant", "content": answer}]
        (text,), _mark = self._rendered([probe], False)
        after = self._pattern.search(text.rpartition(answer)[2]) if answer in text else None
        if after:
            return self._control[after[0]]
        eos_id = self._control.get(self._variables.get("eos_token", ""))
        ids = self._files.eos_ids if eos_id is None else [eos_id]
        if not ids:
            hint = "set eos_token in tokenizer_config.json"
            raise RiyazError("the tokenizer names no end-of-text token", self.where, hint)
        return ids[0]

    @cached_property
    def eos_ids(self) -> frozenset[int]:
        """Every id that ends an answer: the model's end-of-text ids and the end-of-turn id."""
        named = self._control.get(self._variables.get("eos_token", ""), self.end_of_turn)
        return frozenset([*self._files.eos_ids, named, self.end_of_turn])

    @property
    def end_of_text(self) -> int:
        """The id that ends a plain-text document: the model's end-of-text id, else the end-of-turn id."""
        named = self._control.get(self._variables.get("eos_token", ""))
        return self.end_of_turn if named is None else named

    def encode(self, text: str) -> list[int]:
        """Ids of plain text: no control token is recognised and no BOS is added. Raises RiyazError."""
        return self._encode([text], self._marks([text])[0])[0]

    def encode_all(self, texts: list[str]) -> list[list[int]]:
        """As `encode`, for many texts in parallel on all cores."""
        return self._encode(texts, self._marks(texts)[0])

    def encode_written(self, texts: list[str]) -> list[list[int]]:
        """As `encode_all`, but control tokens are recognised, as in a text that a chat template wrote. Only for texts
        that may hold them: a message must not."""
        mark, _hide = self._marks(texts)
        return self._encode([self._pattern.sub(rf"{mark}\g<0>{mark}", text) for text in texts], mark)

    def decode(self, ids: Iterable[int], shown: Collection[int] = ()) -> str:
        """The text of `ids` without control tokens but those of `shown`; bytes that are not UTF-8 become U+FFFD."""
        text = self._decode([number for number in ids if number not in self._control_text or number in shown])
        for token in {self._control_text[number] for number in shown if number in self._control_text}:
            text = text.replace(f"{MARK}{token}{MARK}", token)
        return text

    @cached_property
    def added(self) -> dict[str, int]:
        """The texts that are one token whatever is around them, control tokens and others, with their ids."""
        return {entry["content"]: entry["id"] for entry in self._added}

    def token_text(self, number: int) -> str:
        """The text that one token adds; a control token's name; `<id N>` for an id without a token."""
        if number in self._control_text:
            return self._control_text[number]
        backend = self._backends[MARK]
        if backend.id_to_token(number) is None:
            return f"<id {number}>"
        anchor, length = self._anchor
        return self._decode([*anchor, number])[length:]

    @cached_property
    def _anchor(self) -> tuple[list[int], int]:
        """What a token is decoded after, since a decoder may drop a leading space, and the length of its text."""
        tokens = self.encode("a")
        return tokens, len(self._decode(tokens))

    def token_bytes(self, number: int) -> int:
        """UTF-8 bytes that one token adds, also for part of a character; 0 for a control token."""
        return len(self.bytes_of(number))

    def bytes_of(self, number: int) -> bytes:
        """The UTF-8 bytes that one token adds, also for part of a character; none for a control token."""
        text, piece = self.token_text(number), self._backends[MARK].id_to_token(number)
        if number in self._control_text or piece is None:
            return b""
        if "\ufffd" not in text or "\ufffd" in piece:
            return text.encode()
        if BYTE.fullmatch(piece):
            return bytes([int(piece[3:5], 16)])
        letters = byte_letters()
        return bytes(letters.index(letter) for letter in piece)

    def render(
        self, conversations: list[Conversation], *, add_generation_prompt: bool = True, tools: Sequence[dict] = ()
    ) -> list[list[int]]:
        """Ids of each conversation as the chat template writes it, with descriptions of `tools`, or else those of its
        first turn; control tokens in messages and tools stay plain text. Where it does not take tools those of the
        turns are text. Raises RiyazError when the template fails or would drop a turn."""
        texts, mark = self._checked_texts(conversations, add_generation_prompt, tools)
        return self._encode(texts, mark)

    def render_texts(self, conversations: list[Conversation], *, add_generation_prompt: bool = True) -> list[str]:
        """As `render`, but the texts instead of their ids."""
        texts, mark = self._checked_texts(conversations, add_generation_prompt)
        return [text.replace(mark, "") for text in texts]

    def answer_ids(self, answers: Sequence[str | Message]) -> list[list[int]]:
        """Ids of each answer at the start of the assistant's turn, followed by the end-of-turn id. One with calls of
        tools is given as a message, and written as the chat template writes it."""
        ids = self._text_ids([each if isinstance(each, str) else turn_text(each) for each in answers])
        called = [place for place, each in enumerate(answers) if not isinstance(each, str) and each.get("tool_calls")]
        if called and self.takes_tools:
            question = {"role": "user", "content": "A question?"}
            (prompt,) = self.render([[question]])
            whole = self.render([[question, answers[place]] for place in called], add_generation_prompt=False)  # type: ignore[list-item]
            for place, full in zip(called, whole):
                end = next((i for i in range(len(prompt), len(full)) if full[i] in self.eos_ids), None)
                if full[: len(prompt)] == prompt and end is not None:
                    ids[place] = [*full[len(prompt) : end], self.end_of_turn]
        return ids

    def _text_ids(self, answers: list[str]) -> list[list[int]]:
        mark, _hide = self._marks(answers)
        prefix = self._answer_prefix.replace(MARK, mark)
        prefix_ids, *joined = self._encode([prefix, *(prefix + answer for answer in answers)], mark)
        cut = len(prefix_ids)
        return [
            # if the prompt's last token would merge with the answer's first, the answer is encoded separately
            [*(ids[cut:] if ids[:cut] == prefix_ids else self._encode([answer], mark)[0]), self.end_of_turn]
            for ids, answer in zip(joined, answers, strict=True)
        ]

    def rows(self, pairs: Sequence[tuple[Conversation, str | Message]]) -> list[Row]:
        """The training row of each conversation and its answer, rendered in one batch. Raises RiyazError."""
        prompts = self.render([messages for messages, _answer in pairs])
        fulls = self.render([_answered(*pair) for pair in pairs], add_generation_prompt=False)
        answers = self.answer_ids([answer for _messages, answer in pairs])
        return [
            Row(prompt, answer, self._checks(prompt, answer, full))
            for prompt, answer, full in zip(prompts, answers, fulls, strict=True)
        ]

    def save(self, folder: str | Path) -> None:
        """Writes tokenizer.json, tokenizer_config.json and chat_template.jinja as transformers reads them.

        If there are additional templates, all are also written to tokenizer_config.json.
        """
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        settings = dict(self._files.settings) | {"tokenizer_class": "PreTrainedTokenizerFast"}
        settings.pop("chat_template", None)
        settings.pop("auto_map", None)  # it names Python code that transformers would run
        if self._files.templates:
            named = {"default": self.template, **self._files.templates}
            settings["chat_template"] = [{"name": name, "template": text} for name, text in named.items()]
        write_bytes(folder / "tokenizer.json", self._files.definition.encode())
        write_text(folder / "tokenizer_config.json", to_json(settings, indent=2))
        write_bytes(folder / "chat_template.jinja", self.template.encode())

    def _checks(self, prompt: list[int], answer: list[int], full: list[int]) -> dict[str, bool]:
        return {
            "ends_with_eos": answer[-1] in self.eos_ids,
            # some templates write BOS before every turn, but two in a row are always a mistake
            "one_bos": self.bos_id is None or prompt[:2] != [self.bos_id, self.bos_id],
            "prompt_is_prefix": full[: len(prompt)] == prompt,
            "answer_as_template": full[: len(prompt) + len(answer)] == prompt + answer,
        }

    @cached_property
    def takes_system(self) -> bool:
        """Whether the chat template writes a system turn together with the other turns.

        If it does not, `render` puts the system text at the beginning of the first user turn.
        """
        system = {"role": "system", "content": f"{PROBE}9"}
        for turns in map(_probe, ROUNDS):
            text = self._prompt_text([system, *turns])
            if text is None:  # refusing a longer conversation is not about the system turn
                return len(turns) > 1
            whole = self.turns_kept is None or len(turns) <= self.turns_kept
            if not all(turn["content"] in text for turn in [system, *(turns if whole else [])]):
                return False
        return True

    @property
    def takes_tools(self) -> bool:
        """Whether the chat template writes descriptions of tools."""
        return takes_tools(self.template)

    @cached_property
    def turns_kept(self) -> int | None:
        """The most turns, up to the last question, that the chat template writes without dropping any; None: any
        number."""
        count = 0
        for turns in map(_probe, ROUNDS):
            text = self._prompt_text(turns)
            if text is None:  # the template refuses the conversation, so nothing is dropped silently
                return None
            if not all(turn["content"] in text for turn in turns):
                return count
            count = len(turns)
        return None

    def check_turns(self, messages: Conversation, where: str = "") -> None:
        """Raises RiyazError for a conversation with turns that the template would drop; `where` is its location."""
        if self.turns_kept is None:
            return
        turns = [message["role"] for message in messages if message["role"] != "system"]
        count = len(turns) - (turns[-1:] == ["assistant"])  # the answer to learn does not count
        if count > self.turns_kept:
            what = f"{self._dropped}, and there {'is' if count == 1 else 'are'} {count} here"
            hint = "give each question alone and no examples, or correct the model's chat_template.jinja"
            raise RiyazError(what, where or self.where, hint)

    @property
    def _dropped(self) -> str:
        count = self.turns_kept
        if not count:
            return "the model's chat template drops the user's text: no turn reaches the model"
        most = f"{count} turn{'s' if count > 1 else ''} of a conversation"
        return f"the model's chat template drops earlier turns: no more than {most} can reach the model"

    @property
    def notes(self) -> list[str]:
        """Warnings for the user about the chat template."""
        lines = []
        if self.template_name == "plain":
            lines.append("the model has no chat template; a plain one is used: lines with User: and Assistant:")
        if not self.takes_system:
            lines.append("the model's chat template writes no system turn; its text begins the user's turn instead")
        if self.turns_kept is not None:
            lines.append(f"{self._dropped}; longer conversations and examples before the question are refused")
        return lines

    def _prompt_text(self, turns: Conversation) -> str | None:
        """The rendered conversation up to the answer; None if the template fails."""
        try:
            return self._rendered([turns], True)[0][0]
        except RiyazError:
            return None

    @cached_property
    def _answer_prefix(self) -> str:
        """The text before an answer from the last control token on, with the control tokens between MARKs."""
        (text,), mark = self._rendered([[{"role": "user", "content": "A question?"}]], True)
        starts = [match.start() - 1 for match in self._pattern.finditer(text)]  # with its mark
        return text[starts[-1] if starts else 0 :].replace(mark, MARK)

    def _checked_texts(
        self, conversations: list[Conversation], add_generation_prompt: bool, tools: Sequence[dict] = ()
    ) -> tuple[list[str], str]:
        """As `_rendered`, after `check_turns`, with the system turn moved where the template writes none and with the
        definitions of tools taken out of it."""
        for messages in conversations:
            self.check_turns(messages)
        of_each: list[Sequence[dict]] = [tools] * len(conversations)
        if not self.takes_tools:
            conversations = [without_tools(row, tools) if tools or has_tools(row) else row for row in conversations]
            of_each = [()] * len(conversations)
        elif any(row and row[0].get("tools") for row in conversations):
            of_each = [tools or row[0].get("tools", ()) for row in conversations]
            conversations = [without_definitions(messages) for messages in conversations]
        if any(row and row[0].get("role") == "system" for row in conversations) and not self.takes_system:
            conversations = [_without_system(messages) for messages in conversations]
        return self._rendered(conversations, add_generation_prompt, of_each)

    def _rendered(
        self, conversations: list[Conversation], add_generation_prompt: bool, tools: Sequence[Sequence[dict]] = ()
    ) -> tuple[list[str], str]:
        """(texts of the conversations with the template's control tokens between two marks, the mark)."""
        values = [
            value if isinstance(value, str) else to_json(value)  # calls of tools
            for messages in conversations for message in messages for value in message.values()
        ]  # fmt: skip
        values += [to_json(list(own)) for own in {id(own): own for own in tools}.values() if own]
        mark, hide = self._marks([*values, self.template])
        hidden = [
            [{name: self._hidden(value, hide) for name, value in message.items()} for message in messages]
            for messages in conversations
        ]
        texts = render_chat(
            self.template, hidden, add_generation_prompt=add_generation_prompt, variables=self._variables,
            tools=[self._hidden(list(own), hide) for own in tools],
        )  # fmt: skip
        return [
            self._pattern.sub(rf"{mark}\g<0>{mark}", text.replace(mark, "")).replace(hide, "") for text in texts
        ], mark

    def _hidden(self, value: Any, hide: str) -> Any:
        """A JSON value with `_hide` applied to every text in it."""
        if isinstance(value, str):
            return self._hide(value, hide)
        if isinstance(value, dict):
            return {self._hide(name, hide): self._hidden(inner, hide) for name, inner in value.items()}
        return [self._hidden(inner, hide) for inner in value] if isinstance(value, list) else value

    def _hide(self, text: str, hide: str) -> str:
        """The text with `hide` inside every control token, and after an ending that could begin one."""
        while self._pattern.search(text):
            text = self._pattern.sub(lambda match: hide.join(match[0]), text)
        return text + hide if text.endswith(self._control_prefixes) else text

    def _marks(self, texts: list[str]) -> tuple[str, str]:
        """(mark, hide): two private-use characters that occur in none of the texts. Raises RiyazError if none are
        free."""
        if not any(MARK in text or HIDE in text for text in texts):
            return MARK, HIDE
        used = {MARK, HIDE}.union(*texts)
        free = list(islice((c for c in map(chr, range(0x10FFFD, 0xFFFFF, -1)) if c not in used), 2))
        if len(free) < 2:
            raise RiyazError("the text uses every private character of Unicode's last plane", self.where)
        return free[0], free[1]

    def _encode(self, texts: list[str], mark: str) -> list[list[int]]:
        if mark not in self._backends:  # at most one backend besides the one for MARK is kept
            self._backends = {MARK: self._backends[MARK], mark: self._build(self._files.parsed(self.where), mark)}
        backend = self._backends[mark]
        # it fails for a character outside the vocabulary without an unknown token
        with refusing("the tokenizer cannot encode a text", self.where):
            if len(texts) == 1 and len(texts[0]) <= ALONE:
                return [backend.encode(replace_surrogates(texts[0]), add_special_tokens=False).ids]
            whole = [replace_surrogates(text) for text in texts]
            encodings = backend.encode_batch_fast(whole, add_special_tokens=False)
        return [encoding.ids for encoding in encodings]

    def _decode(self, ids: list[int]) -> str:
        with refusing("the tokenizer cannot decode its ids", self.where):
            return self._backends[MARK].decode(ids, skip_special_tokens=False)

    def _build(self, definition: dict, mark: str) -> tokenizers.Tokenizer:
        """A backend in which each control token is spelled between two marks. Raises RiyazError."""
        spelling = {token: f"{mark}{token}{mark}" for token in self._names}
        with refusing("not a valid tokenizer", self.where):
            respelled = tokenizer_files.respell(definition | {"added_tokens": self._added}, spelling)
            return tokenizer_backend.build(respelled)

    def _checked_id(self, token: str, listed: int) -> int:
        """The control token's id. Raises RiyazError when the backend loads it with another id than listed."""
        loaded = self._backends[MARK].token_to_id(f"{MARK}{token}{MARK}")
        if loaded != listed:
            raise RiyazError(
                f"{tokenizer_files.one_line(token)} is listed with id {listed} but loads as {loaded}", self.where
            )
        return loaded


@contextmanager
def refusing(what: str, where: str) -> Iterator[None]:
    """Errors of the tokenizers package as RiyazError: it raises bare Exception, and its panics are not even that."""
    try:
        yield
    except (KeyboardInterrupt, SystemExit, MemoryError):
        raise
    except BaseException as error:
        raise RiyazError(f"{what}: {_plain(error)}", where) from None


def _probe(rounds: int) -> Conversation:
    """A conversation of so many questions, each but the last with an answer."""
    roles = ("user", "assistant") * rounds
    return [{"role": role, "content": f"{PROBE}{number}"} for number, role in enumerate(roles[:-1])]


def _answered(messages: Conversation, answer: str | Message) -> Conversation:
    return [*messages, {"role": "assistant", "content": answer} if isinstance(answer, str) else answer]


def _plain(error: BaseException) -> str:
    """A message of the tokenizers package, which may quote the file, as at most 200 ASCII characters."""
    return ascii(str(error))[1:-1][:200]


def _without_system(messages: Conversation) -> Conversation:
    """The conversation with the system text moved to the beginning of the first user turn."""
    system, *rest = messages
    if system.get("role") != "system" or not rest or rest[0].get("role") != "user":
        return messages
    return [{**rest[0], "content": f"{system['content']}\n\n{rest[0]['content']}"}, *rest[1:]]


def replace_surrogates(text: str) -> str:
    """The text with U+FFFD for each unpaired surrogate, which UTF-8 cannot encode."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    return text


@cache
def byte_letters() -> list[str]:
    """The printable character that represents each of the 256 bytes in a byte-level vocabulary (GPT-2's table)."""
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = iter(range(0x100, 0x200))
    return [chr(byte) if byte in printable else chr(next(others)) for byte in range(256)]
