"""Reading the tokenizer files of a Hugging Face folder (`tokenizer_gguf.py` makes the same from GGUF metadata).

Nothing here encodes text; `tokenizer.py` does.
"""

import base64
import itertools
import json
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from riyaz.errors import RiyazError
from riyaz.folders import expect_inside

SPECIAL_TOKENS = ("bos_token", "eos_token", "unk_token", "sep_token", "pad_token", "cls_token", "mask_token")
MAX_FILE = 256 * 2**20  # bytes; the largest real tokenizer.json has 40 MB
ADDED, ALL_ADDED = 256, 4 * 2**20  # characters of an added token, and of all; real ones have under 64 and 2 million
GROWTH = 1000  # largest factor by which a tokenizer may lengthen a text; real ones stay under 100
SPECIAL_LISTS = ("additional_special_tokens", "extra_special_tokens")
NO_FLAGS = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False}
PLAIN_TEMPLATE = (
    "{% for message in messages %}{{ message['role'] | capitalize + ':\n' + message['content'] }}"
    "{% if message['role'] == 'assistant' %}{{ eos_token }}{% endif %}{{ '\n\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ 'Assistant:\n' }}{% endif %}"
)
TEMPLATES = "additional_chat_templates"  # a folder with files NAME.jinja
READ = (
    *("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "generation_config.json", "config.json"),
    "chat_template.jinja",
)  # the files that are read here, beside those of TEMPLATES
TEMPLATE_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_-]{0,63}")  # template names that are valid file names


@dataclass(frozen=True)
class TokenizerFiles:
    """The contents of a tokenizer's files; `source` is tokenizer.json, as text or parsed."""

    source: str | dict[str, Any] = field(repr=False)
    settings: dict[str, Any]  # tokenizer_config.json
    template: str | None  # the chat template
    eos_ids: list[int]  # ids that end a text
    templates: Mapping[str, str] = field(default_factory=dict)  # additional chat templates by name, for exports only
    generation: Mapping[str, Any] = field(default_factory=dict)  # generation_config.json, for exports only

    @cached_property
    def definition(self) -> str:
        """The text of tokenizer.json: of a large vocabulary it is written only where somebody asks for it."""
        return self.source if isinstance(self.source, str) else json.dumps(self.source, ensure_ascii=False)

    def parsed(self, where: str) -> dict[str, Any]:
        """The object in tokenizer.json, which nobody changes. Raises RiyazError."""
        return parse_json(self.source, where) if isinstance(self.source, str) else self.source


def from_folder(folder: Path) -> TokenizerFiles:
    """Reads the tokenizer files of a Hugging Face folder. Raises RiyazError naming the missing or broken file."""
    if not (folder / "tokenizer.json").is_file():
        hint = "riyaz reads tokenizer.json; a folder with only tokenizer.model must be converted"
        raise RiyazError("there is no tokenizer.json", str(folder), hint)
    expect_inside(folder, [folder / name for name in READ])
    expect_inside(folder, (folder / TEMPLATES).glob("*.jinja"))
    settings = _read_json(folder / "tokenizer_config.json")
    settings |= _special_tokens_map(folder / "special_tokens_map.json", settings)
    template = settings.get("chat_template")
    templates = _templates(folder, template)
    template = templates.pop("default", None)
    if not isinstance(template, str | None):
        raise RiyazError("chat_template is not a string", str(folder / "tokenizer_config.json"))
    others = {name: text for name, text in templates.items() if isinstance(text, str) and TEMPLATE_NAME.fullmatch(name)}
    generation = _read_json(folder / "generation_config.json")
    eos_ids = generation.get("eos_token_id")
    if eos_ids is None:
        eos_ids = _read_json(folder / "config.json").get("eos_token_id")
    if not isinstance(eos_ids, list):
        eos_ids = [] if eos_ids is None else [eos_ids]
    if not all(type(number) is int for number in eos_ids):
        raise RiyazError(f"eos_token_id {one_line(eos_ids)} is not a token id or a list of them", str(folder))
    return TokenizerFiles(_read_text(folder / "tokenizer.json"), settings, template, eos_ids, others, generation)


def _special_tokens_map(file: Path, settings: dict[str, Any]) -> dict[str, Any]:
    """The special tokens of special_tokens_map.json, an older format, that tokenizer_config.json lacks.

    Empty if tokenizer_config.json has `added_tokens_decoder`: transformers then ignores the older file. Raises
    RiyazError.
    """
    if "added_tokens_decoder" in settings:
        return {}
    older = _read_json(file)
    try:
        missing = [name for name in SPECIAL_TOKENS if older.get(name) and settings.get(name) is None]
        tokens: dict[str, Any] = {name: token_content(older[name]) for name in missing}
        if not any(map(settings.get, SPECIAL_LISTS)):
            lists = [name for name in SPECIAL_LISTS if isinstance(older.get(name), list)]
            tokens |= {name: list(map(token_content, older[name])) for name in lists}
    except (KeyError, TypeError):
        raise RiyazError("names a special token that is not a string", str(file), "restore the file") from None
    return tokens


def added_tokens(definition: dict, settings: dict, where: str) -> tuple[list[dict], dict[str, int]]:
    """(added tokens, which are matched before any merging; the control tokens among them -> id). Raises RiyazError."""
    try:
        named = [settings[name] for name in SPECIAL_TOKENS if settings.get(name)]
        named += settings.get("additional_special_tokens") or settings.get("extra_special_tokens") or []
        special = {token_content(token) for token in named}
        added = list(definition.get("added_tokens") or [])
        if not all(isinstance(entry["content"], str) and type(entry["id"]) is int for entry in added):
            raise TypeError("an added token has no text or no id")
        _refuse_long([entry["content"] for entry in added] + sorted(special), where)
        vocabulary = definition["model"]["vocab"]
        for token in sorted(special - {entry["content"] for entry in added}):
            if isinstance(vocabulary, dict) and token in vocabulary:
                added.append({"id": vocabulary[token], "content": token, "special": True, **NO_FLAGS})
        control = {
            entry["content"]: entry["id"]
            for entry in added
            # some models do not flag the tokens that their template writes, but spell them like this
            if entry["special"] or entry["content"] in special or re.fullmatch(r"<\|.+\|>", entry["content"])
        }
    except (KeyError, TypeError, AttributeError) as error:
        raise RiyazError(f"not a valid tokenizer: {type(error).__name__} {one_line(str(error))}", where) from None
    return added, {token: number for token, number in control.items() if len(token) > 1}


def _refuse_long(added: Sequence[str], where: str) -> None:
    """Raises RiyazError for added tokens whose beginnings, each of which is searched for, would fill the memory."""
    longest = max(map(len, added), default=0)
    if longest > ADDED:
        what = f"an added token has {longest:,} characters; the longest that is read has {ADDED}"
    elif sum(map(len, added)) > ALL_ADDED:
        what = f"its added tokens have more than {ALL_ADDED:,} characters"
    else:
        return
    raise RiyazError(what, where, "it cannot be used; take the tokenizer.json of another copy of this model")


def refuse_growth(definition: dict, where: str) -> None:
    """Raises RiyazError for a normalizer or decoder that could make a text GROWTH times as long: a chain of a few
    dozen replacements fills any memory."""
    for part in ("normalizer", "decoder"):
        if _growth(definition.get(part)) > GROWTH:
            what = f"its {part} can make a text more than {GROWTH:,} times as long"
            raise RiyazError(what, where, "it cannot be used; take the tokenizer.json of another copy of this model")


def _growth(step: Any) -> float:
    """How many times as long, at most, a step makes a text in UTF-8; 1 for one that is not understood here."""
    try:
        if step["type"] == "Sequence":
            return math.prod(_growth(inner) for name in ("normalizers", "decoders") for inner in step.get(name, ()))
        if step["type"] == "Replace":
            new, old = len(step["content"].encode()), step["pattern"].get("String")
            return max(1.0, new / len(old.encode()) if old else 1.0 + new)  # a pattern may match between characters
        if step["type"] == "Prepend":
            return 1.0 + len(step["prepend"].encode())
        if step["type"] == "Precompiled":  # SentencePiece's: a trie, then the replacements, each ended by a zero
            table = base64.b64decode(step["precompiled_charsmap"])
            return max(1.0, *map(len, table[4 + int.from_bytes(table[:4], "little") :].split(b"\0")))
    except (KeyError, TypeError, AttributeError, ValueError):
        pass  # the tokenizers package says what is wrong
    return 1.0


def respell(definition: dict, spelling: dict[str, str]) -> dict:
    """The definition with some tokens respelled, and without post-processor, truncation and padding.

    Merges that involve a respelled token are removed.
    """
    model = dict(definition["model"])
    if isinstance(model["vocab"], dict):
        model["vocab"] = {spelling.get(token, token): number for token, number in model["vocab"].items()}
    else:  # Unigram has a list of (piece, score)
        model["vocab"] = [[spelling.get(piece, piece), score] for piece, score in model["vocab"]]
    if "merges" in model:  # plain text must not merge into a control token
        pairs = (pair.split(" ") if isinstance(pair, str) else pair for pair in model["merges"])
        model["merges"] = [
            pair
            for pair in pairs
            if pair[0] not in spelling and pair[-1] not in spelling and "".join(pair) not in spelling
        ]
    if model.get("unk_token"):
        model["unk_token"] = spelling.get(model["unk_token"], model["unk_token"])
    added = [
        entry | {"content": spelling.get(entry["content"], entry["content"])} for entry in definition["added_tokens"]
    ]
    return {
        **definition,
        "model": model,
        "added_tokens": added,
        "post_processor": None,
        "truncation": None,
        "padding": None,
    }


def plain_template(begins: bool) -> str:
    """The chat template for a model without one; `begins`: whether texts begin with BOS."""
    return "{{ bos_token }}" + PLAIN_TEMPLATE if begins else PLAIN_TEMPLATE


def begins_with_bos(definition: dict, settings: dict, where: str) -> bool:
    """Whether the tokenizer puts BOS before every text. Raises RiyazError."""
    bos = token_content(settings.get("bos_token") or "")
    try:
        before = _put_before(definition.get("post_processor") or {})
    except (KeyError, TypeError, AttributeError, IndexError, RecursionError):
        raise RiyazError("not a valid tokenizer: the post_processor is malformed", where) from None
    return bool(bos) and (bos in before or bool(settings.get("add_bos_token")))


def _put_before(processor: dict) -> set[str]:
    """The tokens that a post-processor puts before a text, not those after it, which can be the same token as BOS."""
    if processor.get("type") == "Sequence":
        return {token for step in processor["processors"] for token in _put_before(step)}
    if "cls" in processor:  # BertProcessing, RobertaProcessing
        return {processor["cls"][0]}
    before = itertools.takewhile(lambda part: "Sequence" not in part, processor.get("single", []))
    return {part["SpecialToken"]["id"] for part in before}


def token_content(token: str | dict) -> str:
    """The text of a token in tokenizer_config.json, given as a string or as an object with flags."""
    text = token if isinstance(token, str) else token["content"]
    if not isinstance(text, str):
        raise TypeError(f"a token is {one_line(text)}")
    return text


def one_line(value: object) -> str:
    """A value from a file, made safe for an error message: quoted ASCII, at most 80 characters."""
    text = ascii(value[:81] if isinstance(value, str) else value)
    return text if len(text) <= 82 else text[:79] + "..."


def parse_json(text: str, where: str) -> dict[str, Any]:
    """Parses a JSON object. Raises RiyazError."""
    try:
        parsed = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise RiyazError(f"not JSON: {error}", where) from None
    if not isinstance(parsed, dict):
        raise RiyazError("not a JSON object", where)
    return parsed


def _templates(folder: Path, setting: Any) -> dict[str, Any]:
    """Chat templates by name; "default" is the one in use.

    `setting` is chat_template of tokenizer_config.json: one template or a list of named ones. Files take precedence.
    """
    templates: dict[str, Any] = {"default": setting}
    if isinstance(setting, list):
        named = [entry for entry in setting if isinstance(entry, dict) and isinstance(entry.get("name"), str)]
        templates = {entry["name"]: entry.get("template") for entry in named}
    if (folder / "chat_template.jinja").is_file():
        templates["default"] = _read_text(folder / "chat_template.jinja")
    for path in sorted((folder / TEMPLATES).glob("*.jinja")):
        templates[path.stem] = _read_text(path)
    return templates


def _read_text(file: Path) -> str:
    try:
        if file.stat().st_size > MAX_FILE:
            raise RiyazError(f"larger than {MAX_FILE} bytes", str(file))
        return file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise RiyazError(f"cannot be read: {error}", str(file)) from None


def _read_json(file: Path) -> dict[str, Any]:
    return parse_json(_read_text(file), str(file)) if file.is_file() else {}
