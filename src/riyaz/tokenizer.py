"""Text to token ids and back, and conversations to the ids a model was trained on.

    tokenizer = Tokenizer.from_folder("my-model")        # or Tokenizer.from_gguf(metadata)
    tokenizer.render([[{"role": "user", "content": "Hello"}]])

Only the chat template may write control tokens such as `<|im_end|>`; in a message they are text. To tell them
apart, the backend knows a control token only between two MARK characters, which no message has. What the
template wrote gets its marks after rendering; what a message says is broken up with HIDE during it.
"""

import json
import re
from collections.abc import Iterable
from functools import cached_property
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

import tokenizers

from riyaz import tokenizer_files, tokenizer_gguf
from riyaz.errors import RiyazError
from riyaz.files import to_json, write_bytes, write_text
from riyaz.template import render_chat
from riyaz.tokenizer_files import Files

Message = dict[str, str]
Conversation = list[Message]

BYTE = re.compile("<0x[0-9A-F]{2}>")  # a byte of an unknown character in SentencePiece's vocabularies
MARK, HIDE = "\U0010fffd", "\U0010fffc"  # private use; a text that has them gets two others
ROUNDS = (1, 2, 3, 4)  # of the conversations by which a template shows what it leaves out,
PROBE = "730582946"  # in which every text is this and another digit: no template changes that


class Row(NamedTuple):
    """A training row: `answer` ends with the end-of-turn id; `checks` says of a property whether it holds."""

    prompt: list[int]
    answer: list[int]
    checks: dict[str, bool]


class Tokenizer:
    """A model's tokenizer and chat template; `template_name` is "model", or "plain" if the model has none."""

    def __init__(self, files: Files, where: str) -> None:
        self.where = where
        self._files = files
        settings = files.settings
        definition = tokenizer_files.parse_json(files.definition, where)
        self._added, listed = tokenizer_files.added_tokens(definition, settings, where)
        self._names = listed.keys()
        self._backends = {MARK: self._build(definition, MARK)}
        self._control = {token: self._known_id(token, number) for token, number in listed.items()}
        self._control_text = {number: token for token, number in self._control.items()}
        vocabulary = definition["model"]["vocab"]  # of Unigram a list
        known = vocabulary.values() if isinstance(vocabulary, dict) else range(len(vocabulary))
        self.id_limit = 1 + max([*known, *(entry["id"] for entry in self._added)], default=-1)  # every id is below it
        longest_first = sorted(self._control, key=len, reverse=True)
        self._pattern = re.compile("|".join(map(re.escape, longest_first)) or "(?!)")
        openings = {token[:length] for token in self._control for length in range(1, len(token))}
        self._openings = tuple(sorted(openings))
        self.template_name = "plain" if files.template is None else "model"
        begins = tokenizer_files.begins_with_bos(definition, settings, where)
        self.template: str = tokenizer_files.plain_template(begins) if files.template is None else files.template
        self._variables = {
            name: tokenizer_files.content(settings[name]) for name in tokenizer_files.NAMED if settings.get(name)
        }
        self.bos_id = self._control.get(self._variables.get("bos_token", ""))
        self.beginning = (self.bos_id,) if begins and self.bos_id is not None else ()  # of any text

    @classmethod
    def from_folder(cls, path: str | Path) -> "Tokenizer":
        """The tokenizer of a Hugging Face folder; RiyazError names the file that is missing or broken."""
        return cls(tokenizer_files.from_folder(Path(path)), str(path))

    @classmethod
    def from_gguf(cls, metadata: dict[str, Any], where: str = "") -> "Tokenizer":
        """The tokenizer in the metadata of the GGUF file `where`; RiyazError names a kind that is not read."""
        name = metadata.get("general.name", "file")
        shown = isinstance(name, str) and name.isprintable() and len(name) <= 80
        where = where or f"GGUF {name if shown else tokenizer_files.one_line(name)}"
        return cls(tokenizer_gguf.from_gguf(metadata, where), where)

    @property
    def files(self) -> Files:
        """The files it was made of, or those that GGUF metadata stand for."""
        return self._files

    @property
    def vocab_size(self) -> int:
        """Number of token ids, control tokens included (a model may have rows for more)."""
        return self._backends[MARK].get_vocab_size(with_added_tokens=True)

    def text_ids(self) -> set[int]:
        """Every id that the text of a message can hold."""
        return set(self._backends[MARK].get_vocab(with_added_tokens=True).values()) - self._control_text.keys()

    @cached_property
    def end_of_turn(self) -> int:
        """The id the template puts after an assistant's answer, else the model's end-of-text id."""
        answer = "An answer."
        probe = [{"role": "user", "content": "A question?"}, {"role": "assistant", "content": answer}]
        (text,), _mark = self._written([probe], False)
        after = self._pattern.search(text.rpartition(answer)[2]) if answer in text else None
        if after:
            return self._control[after[0]]
        ids = [self._control.get(self._variables.get("eos_token", "")), *self._files.eos_ids]
        known = [number for number in ids if number is not None]
        if not known:
            hint = "set eos_token in tokenizer_config.json"
            raise RiyazError("the tokenizer names no end-of-text token", self.where, hint)
        return known[0]

    @cached_property
    def eos_ids(self) -> frozenset[int]:
        """Every id that ends an answer: those the model names and the template's end of turn."""
        named = self._control.get(self._variables.get("eos_token", ""), self.end_of_turn)
        return frozenset([*self._files.eos_ids, named, self.end_of_turn])

    @property
    def end_of_text(self) -> int:
        """The id behind a document in plain text: the model's end-of-text id, else its end of turn."""
        named = self._control.get(self._variables.get("eos_token", ""))
        return self.end_of_turn if named is None else named

    def encode(self, text: str) -> list[int]:
        """Ids of `text` as text: no control token is recognised in it and no BOS added."""
        return self._encode([text], self._marks([text])[0])[0]

    def encode_all(self, texts: list[str]) -> list[list[int]]:
        """Ids of each text as `encode` gives them, by all cores."""
        return self._encode(texts, self._marks(texts)[0])

    def decode(self, ids: Iterable[int]) -> str:
        """Text of `ids`, control tokens left out; bytes that are no UTF-8 become U+FFFD."""
        plain = [number for number in ids if number not in self._control_text]
        return self._backends[MARK].decode(plain, skip_special_tokens=False)

    def token_text(self, number: int) -> str:
        """What one token adds to a text; a control token's own name; `<id N>` for an id without a token."""
        if number in self._control_text:
            return self._control_text[number]
        backend = self._backends[MARK]
        if backend.id_to_token(number) is None:
            return f"<id {number}>"
        # behind another token, since a decoder may drop the space that begins a text
        anchor = self.encode("a")
        before = backend.decode(anchor, skip_special_tokens=False)
        return backend.decode([*anchor, number], skip_special_tokens=False)[len(before) :]

    def token_bytes(self, number: int) -> int:
        """How many bytes of UTF-8 a token adds to a text, 0 for a control token; also for a part of a character."""
        text, piece = self.token_text(number), self._backends[MARK].id_to_token(number)
        if number in self._control_text or piece is None:
            return 0
        if "\ufffd" not in text or "\ufffd" in piece:
            return len(text.encode())
        return 1 if BYTE.fullmatch(piece) else len(piece)  # byte-level vocabularies spell each byte as a character

    def render(self, conversations: list[Conversation], *, add_generation_prompt: bool = True) -> list[list[int]]:
        """Ids of each conversation through the chat template, the only writer of control tokens."""
        texts, mark = self._private_texts(conversations, add_generation_prompt)
        return self._encode(texts, mark)

    def render_texts(self, conversations: list[Conversation], *, add_generation_prompt: bool = True) -> list[str]:
        """The texts behind `render`, for people to read."""
        texts, mark = self._private_texts(conversations, add_generation_prompt)
        return [text.replace(mark, "") for text in texts]

    def answer_ids(self, answers: list[str]) -> list[list[int]]:
        """Ids of each answer as it stands where the assistant's turn begins, with the end-of-turn id."""
        mark, _hide = self._marks(answers)
        opening = self._opening.replace(MARK, mark)
        start, *whole = self._encode([opening, *(opening + answer for answer in answers)], mark)
        cut = len(start)
        return [
            # when the prompt's last token would melt into the answer's first, the answer is encoded alone
            [*(ids[cut:] if ids[:cut] == start else self._encode([answer], mark)[0]), self.end_of_turn]
            for ids, answer in zip(whole, answers, strict=True)
        ]

    def full_ids(self, messages: Conversation, answer: str) -> list[int]:
        """Ids of the conversation with the answer as the assistant's turn, as the template writes it."""
        return self.render([_answered(messages, answer)], add_generation_prompt=False)[0]

    def row(self, messages: Conversation, answer: str) -> Row:
        """The training row of one conversation and its answer."""
        return self.rows([(messages, answer)])[0]

    def rows(self, pairs: list[tuple[Conversation, str]]) -> list[Row]:
        """Training rows, rendered in one batch."""
        prompts = self.render([messages for messages, _answer in pairs])
        fulls = self.render([_answered(*pair) for pair in pairs], add_generation_prompt=False)
        answers = self.answer_ids([answer for _messages, answer in pairs])
        return [
            Row(prompt, answer, self._checks(prompt, answer, full))
            for prompt, answer, full in zip(prompts, answers, fulls, strict=True)
        ]

    def save(self, folder: str | Path) -> None:
        """Write tokenizer.json, tokenizer_config.json and chat_template.jinja as transformers reads them; where there
        are more templates, all stand in tokenizer_config.json too."""
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        settings = dict(self._files.settings) | {"tokenizer_class": "PreTrainedTokenizerFast"}
        settings.pop("chat_template", None)
        settings.pop("auto_map", None)  # names code to run
        if self._files.templates:
            named = {"default": self.template, **self._files.templates}
            settings["chat_template"] = [{"name": name, "template": text} for name, text in named.items()]
        write_bytes(folder / "tokenizer.json", self._files.definition.encode())
        write_text(folder / "tokenizer_config.json", to_json(settings, indent=2))
        write_bytes(folder / "chat_template.jinja", self.template.encode())

    def _checks(self, prompt: list[int], answer: list[int], full: list[int]) -> dict[str, bool]:
        return {
            "ends_with_eos": answer[-1] in self.eos_ids,
            # some models open every turn with their BOS token, but twice in a row is always a mistake
            "one_bos": self.bos_id is None or prompt[:2] != [self.bos_id, self.bos_id],
            "prompt_is_prefix": full[: len(prompt)] == prompt,
            "answer_as_template": full[: len(prompt) + len(answer)] == prompt + answer,
        }

    @cached_property
    def takes_system(self) -> bool:
        """Whether the chat template writes a system turn beside the others. Where it refuses one or leaves one of them
        out, which some do, the turn's text stands at the beginning of the user's."""
        told = {"role": "system", "content": f"{PROBE}9"}
        for turns in map(_probe, ROUNDS):
            text = self._prompt_text([told, *turns])
            if text is None:  # only the longer ones are refused: they have their own error
                return len(turns) > 1
            whole = self.turns_kept is None or len(turns) <= self.turns_kept
            if not all(turn["content"] in text for turn in [told, *(turns if whole else [])]):
                return False
        return True

    @cached_property
    def turns_kept(self) -> int | None:
        """How many turns a conversation may have up to its last question for the chat template to write every one;
        None for any number."""
        whole = 0
        for turns in map(_probe, ROUNDS):
            text = self._prompt_text(turns)
            if text is None:  # refused, which is no silent loss
                return None
            if not all(turn["content"] in text for turn in turns):
                return whole
            whole = len(turns)
        return None

    def check_turns(self, messages: Conversation, where: str = "") -> None:
        """RiyazError for a conversation of which a part would not reach the model; its place, if known, is `where`."""
        if self.turns_kept is None:
            return
        turns = [message["role"] for message in messages if message["role"] != "system"]
        count = len(turns) - (turns[-1:] == ["assistant"])  # an answer is not read but learned
        if count > self.turns_kept:
            what = f"{self._dropped}, and there {'is' if count == 1 else 'are'} {count} here"
            hint = "give each question alone and no examples, or mend the model's chat_template.jinja"
            raise RiyazError(what, where or self.where, hint)

    @property
    def _dropped(self) -> str:
        kept = self.turns_kept
        if not kept:
            return "the model's chat template leaves out what the user says: no turn reaches the model"
        most = f"{kept} turn{'s' if kept > 1 else ''} of a conversation"
        return f"the model's chat template drops earlier turns: no more than {most} can reach the model"

    @property
    def notes(self) -> list[str]:
        """What a person should know of how conversations are written."""
        found = []
        if self.template_name == "plain":
            found.append("the model has no chat template; the plain one is used: User:, Assistant:, a line each")
        if not self.takes_system:
            found.append("the model's chat template writes no system turn; what stands there opens the user's turn")
        if self.turns_kept is not None:
            found.append(f"{self._dropped}; longer conversations and examples before the question are refused")
        return found

    def _prompt_text(self, turns: Conversation) -> str | None:
        """What the template writes before an answer; None where it refuses."""
        try:
            return self._written([turns], True)[0][0]
        except RiyazError:
            return None

    @cached_property
    def _opening(self) -> str:
        """What stands before an answer, from the last control token on, in private spelling with MARK."""
        (text,), mark = self._written([[{"role": "user", "content": "A question?"}]], True)
        starts = [match.start() - 1 for match in self._pattern.finditer(text)]  # with its mark
        return text[starts[-1] if starts else 0 :].replace(mark, MARK)

    def _private_texts(self, conversations: list[Conversation], add_generation_prompt: bool) -> tuple[list[str], str]:
        """Rendered texts in which just the template's control tokens stand between two marks; the mark."""
        for messages in conversations:
            self.check_turns(messages)
        if any(row and row[0].get("role") == "system" for row in conversations) and not self.takes_system:
            conversations = [_without_system(messages) for messages in conversations]
        return self._written(conversations, add_generation_prompt)

    def _written(self, conversations: list[Conversation], add_generation_prompt: bool) -> tuple[list[str], str]:
        values = [value for messages in conversations for message in messages for value in message.values()]
        mark, hide = self._marks([*values, self.template])
        hidden = [
            [{name: self._hide(value, hide) for name, value in message.items()} for message in messages]
            for messages in conversations
        ]
        texts = render_chat(
            self.template, hidden, add_generation_prompt=add_generation_prompt, variables=self._variables
        )
        return [
            self._pattern.sub(rf"{mark}\g<0>{mark}", text.replace(mark, "")).replace(hide, "") for text in texts
        ], mark

    def _hide(self, text: str, hide: str) -> str:
        """Break up the control tokens in a message, and one that its end begins and the next may complete."""
        while self._pattern.search(text):
            text = self._pattern.sub(lambda match: hide.join(match[0]), text)
        return text + hide if text.endswith(self._openings) else text

    def _marks(self, texts: list[str]) -> tuple[str, str]:
        """Two characters that stand in none of the texts."""
        if not any(MARK in text or HIDE in text for text in texts):
            return MARK, HIDE
        used = {MARK, HIDE}.union(*texts)
        free = list(islice((c for c in map(chr, range(0x10FFFD, 0xFFFFF, -1)) if c not in used), 2))
        if len(free) < 2:
            raise RiyazError("the text uses every private character of Unicode's last plane", self.where)
        return free[0], free[1]

    def _encode(self, texts: list[str], mark: str) -> list[list[int]]:
        if mark not in self._backends:  # keep one beside the usual one
            definition = tokenizer_files.parse_json(self._files.definition, self.where)
            self._backends = {MARK: self._backends[MARK], mark: self._build(definition, mark)}
        backend = self._backends[mark]
        try:
            if len(texts) == 1:  # a batch would start the package's thread pool
                return [backend.encode(_utf8(texts[0]), add_special_tokens=False).ids]
            encodings = backend.encode_batch_fast([_utf8(text) for text in texts], add_special_tokens=False)
        except Exception as error:  # such as a text with an unknown character and no token for it
            raise RiyazError(f"the tokenizer cannot encode a text: {_shown(error)}", self.where) from None
        return [encoding.ids for encoding in encodings]

    def _build(self, definition: dict, mark: str) -> tokenizers.Tokenizer:
        """The backend whose control tokens are spelt between two marks."""
        spelling = {token: f"{mark}{token}{mark}" for token in self._names}
        try:
            text = json.dumps(tokenizer_files.respell(definition | {"added_tokens": self._added}, spelling))
            return tokenizers.Tokenizer.from_str(text)
        except (KeyboardInterrupt, SystemExit, MemoryError):
            raise
        except BaseException as error:  # the tokenizers package raises nothing narrower, and panics are wider
            raise RiyazError(f"is not a tokenizer: {_shown(error)}", self.where) from None

    def _known_id(self, token: str, listed: int) -> int:
        found = self._backends[MARK].token_to_id(f"{MARK}{token}{MARK}")
        if found != listed:
            raise RiyazError(
                f"{tokenizer_files.one_line(token)} is listed with id {listed} but loads as {found}", self.where
            )
        return found


def _probe(rounds: int) -> Conversation:
    """So many questions, each but the last with its answer."""
    roles = ("user", "assistant") * rounds
    return [{"role": role, "content": f"{PROBE}{number}"} for number, role in enumerate(roles[:-1])]


def _answered(messages: Conversation, answer: str) -> Conversation:
    return [*messages, {"role": "assistant", "content": answer}]


def _shown(error: BaseException) -> str:
    """A message of the tokenizers package, which may quote the file, as at most 200 plain characters."""
    return ascii(str(error))[1:-1][:200]


def _without_system(messages: Conversation) -> Conversation:
    """The conversation with its system turn at the beginning of the user's."""
    system, *rest = messages
    if system.get("role") != "system" or not rest or rest[0].get("role") != "user":
        return messages
    return [{**rest[0], "content": f"{system['content']}\n\n{rest[0]['content']}"}, *rest[1:]]


def _utf8(text: str) -> str:
    """The text with U+FFFD for lone surrogates, which no UTF-8 can hold."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    return text
