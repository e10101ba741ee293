"""What a tokenizer's files hold: those of a Hugging Face folder (`tokenizer_gguf.py` makes the same of GGUF metadata).

`tokenizer.py` gives them their meaning; nothing here encodes a text.
"""

import itertools
import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from riyaz.errors import RiyazError

NAMED = ("bos_token", "eos_token", "unk_token", "sep_token", "pad_token", "cls_token", "mask_token")
MAX_FILE = 256 * 2**20  # the largest real tokenizer.json have 40 MB
LISTED = ("additional_special_tokens", "extra_special_tokens")
NO_FLAGS = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False}
PLAIN_TEMPLATE = (
    "{% for message in messages %}{{ message['role'] | capitalize + ':\n' + message['content'] }}"
    "{% if message['role'] == 'assistant' %}{{ eos_token }}{% endif %}{{ '\n\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ 'Assistant:\n' }}{% endif %}"
)
TEMPLATES = "additional_chat_templates"  # a folder of them, NAME.jinja
TEMPLATE_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_-]{0,63}")  # that can be a file's


class Files(NamedTuple):
    """tokenizer.json, tokenizer_config.json, the chat template, the ids that end a text; what is only passed on to an
    export: the other templates by name, and generation_config.json."""

    definition: str
    settings: dict[str, Any]
    template: str | None
    eos_ids: list[int]
    templates: Mapping[str, str] = {}
    generation: Mapping[str, Any] = {}


def from_folder(folder: Path) -> Files:
    """Read a Hugging Face folder; RiyazError names the file that is missing or broken."""
    if not (folder / "tokenizer.json").is_file():
        hint = "riyaz reads tokenizer.json; a folder with only tokenizer.model must be converted"
        raise RiyazError("there is no tokenizer.json", str(folder), hint)
    settings = _read_json(folder / "tokenizer_config.json")
    settings |= _older(folder / "special_tokens_map.json", settings)
    template = settings.get("chat_template")
    templates = _templates(folder, template)
    template = templates.pop("default", None)
    if not isinstance(template, str | None):
        raise RiyazError("chat_template is not a text", str(folder / "tokenizer_config.json"))
    others = {name: text for name, text in templates.items() if isinstance(text, str) and TEMPLATE_NAME.fullmatch(name)}
    generation = _read_json(folder / "generation_config.json")
    eos_ids = generation.get("eos_token_id")
    if eos_ids is None:
        eos_ids = _read_json(folder / "config.json").get("eos_token_id")
    if not isinstance(eos_ids, list):
        eos_ids = [] if eos_ids is None else [eos_ids]
    if not all(type(number) is int for number in eos_ids):
        raise RiyazError(f"eos_token_id {one_line(eos_ids)} is not a token id or a list of them", str(folder))
    return Files(_read_text(folder / "tokenizer.json"), settings, template, eos_ids, others, generation)


def _older(file: Path, settings: dict[str, Any]) -> dict[str, Any]:
    """The tokens of the older file that tokenizer_config.json does not name. transformers passes that file over when
    the newer one has `added_tokens_decoder`, and a model trained with it has seen no others."""
    if "added_tokens_decoder" in settings:
        return {}
    older = _read_json(file)
    try:
        found: dict[str, Any] = {
            name: content(older[name]) for name in NAMED if older.get(name) and settings.get(name) is None
        }
        if not any(map(settings.get, LISTED)):
            found |= {name: list(map(content, older[name])) for name in LISTED if isinstance(older.get(name), list)}
    except (KeyError, TypeError):
        raise RiyazError("names a special token that is no text", str(file), "restore the file") from None
    return found


def added_tokens(definition: dict, settings: dict, where: str) -> tuple[list[dict], dict[str, int]]:
    """The tokens cut out of a text before merging; the control tokens among them, with their ids."""
    try:
        named = [settings[name] for name in NAMED if settings.get(name)]
        named += settings.get("additional_special_tokens") or settings.get("extra_special_tokens") or []
        special = {content(token) for token in named}
        added = list(definition.get("added_tokens") or [])
        if not all(isinstance(entry["content"], str) and type(entry["id"]) is int for entry in added):
            raise TypeError("an added token has no text or no id")
        vocabulary = definition["model"]["vocab"]
        for token in sorted(special - {entry["content"] for entry in added}):
            if isinstance(vocabulary, dict) and token in vocabulary:
                added.append({"id": vocabulary[token], "content": token, "special": True, **NO_FLAGS})
        control = {
            entry["content"]: entry["id"]
            for entry in added
            # a few models do not flag the tokens their template writes, but spell them like this
            if entry["special"] or entry["content"] in special or re.fullmatch(r"<\|.+\|>", entry["content"])
        }
    except (KeyError, TypeError, AttributeError) as error:
        raise RiyazError(f"is not a tokenizer: {type(error).__name__} {one_line(str(error))}", where) from None
    return added, {token: number for token, number in control.items() if len(token) > 1}


def respell(definition: dict, spelling: dict[str, str]) -> dict:
    """The definition with other spellings for some tokens, and without all that adds, cuts or pads."""
    model = dict(definition["model"])
    if isinstance(model["vocab"], dict):
        model["vocab"] = {spelling.get(token, token): number for token, number in model["vocab"].items()}
    else:  # Unigram: pairs of piece and score
        model["vocab"] = [[spelling.get(piece, piece), score] for piece, score in model["vocab"]]
    if "merges" in model:  # text must not merge into a control token
        pairs = (pair if isinstance(pair, list) else pair.split(" ") for pair in model["merges"])
        model["merges"] = [pair for pair in pairs if spelling.keys().isdisjoint([*pair, "".join(pair)])]
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
    """The template for a model that has none; it begins with BOS when the model's texts do."""
    return "{{ bos_token }}" + PLAIN_TEMPLATE if begins else PLAIN_TEMPLATE


def begins_with_bos(definition: dict, settings: dict, where: str) -> bool:
    """Whether the model has read no text without BOS before it."""
    bos = content(settings.get("bos_token") or "")
    try:
        before = _put_before(definition.get("post_processor") or {})
    except (KeyError, TypeError, AttributeError, IndexError, RecursionError):
        raise RiyazError("is not a tokenizer: its post_processor is broken", where) from None
    return bool(bos) and (bos in before or bool(settings.get("add_bos_token")))


def _put_before(processor: dict) -> set[str]:
    """The tokens that a post-processor puts before a text; one that it puts behind may be the same as BOS."""
    if processor.get("type") == "Sequence":
        return {token for step in processor["processors"] for token in _put_before(step)}
    if "cls" in processor:  # BertProcessing, RobertaProcessing
        return {processor["cls"][0]}
    before = itertools.takewhile(lambda part: "Sequence" not in part, processor.get("single", []))
    return {part["SpecialToken"]["id"] for part in before}


def content(token: str | dict) -> str:
    """The text of a token in tokenizer_config.json, which stands there bare or with its flags."""
    text = token if isinstance(token, str) else token["content"]
    if not isinstance(text, str):
        raise TypeError(f"a token is {one_line(text)}")
    return text


def one_line(value: object) -> str:
    """A value from a file, or a message about one, for an error message: quoted ASCII, at most 80 characters."""
    text = ascii(value[:81] if isinstance(value, str) else value)
    return text if len(text) <= 82 else text[:79] + "..."


def parse_json(text: str, where: str) -> dict[str, Any]:
    """A JSON object, or RiyazError."""
    try:
        parsed = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise RiyazError(f"is not JSON: {error}", where) from None
    if not isinstance(parsed, dict):
        raise RiyazError("is not a JSON object", where)
    return parsed


def _templates(folder: Path, said: Any) -> dict[str, Any]:
    """Template by name, "default" the one that is used: files count before what tokenizer_config.json says, which is
    one template or a list of named ones."""
    found: dict[str, Any] = {"default": said}
    if isinstance(said, list):
        named = [entry for entry in said if isinstance(entry, dict) and isinstance(entry.get("name"), str)]
        found = {entry["name"]: entry.get("template") for entry in named}
    if (folder / "chat_template.jinja").is_file():
        found["default"] = _read_text(folder / "chat_template.jinja")
    for path in sorted((folder / TEMPLATES).glob("*.jinja")):
        found[path.stem] = _read_text(path)
    return found


def _read_text(file: Path) -> str:
    try:
        if file.stat().st_size > MAX_FILE:
            raise RiyazError(f"is larger than {MAX_FILE} bytes", str(file))
        return file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise RiyazError(f"cannot be read: {error}", str(file)) from None


def _read_json(file: Path) -> dict[str, Any]:
    return parse_json(_read_text(file), str(file)) if file.is_file() else {}
