"""What a tokenizer's files hold: those of a Hugging Face folder, or those that GGUF metadata stand for.

`tokenizer.py` gives them their meaning; nothing here encodes a text.
"""

import json
import re
from pathlib import Path
from typing import Any, NamedTuple

from riyaz.errors import RiyazError

NAMED = ("bos_token", "eos_token", "unk_token", "sep_token", "pad_token", "cls_token", "mask_token")
NO_FLAGS = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False}
PLAIN_TEMPLATE = (
    "{% for message in messages %}{{ message['role'] | capitalize + ':\n' + message['content'] }}"
    "{% if message['role'] == 'assistant' %}{{ eos_token }}{% endif %}{{ '\n\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ 'Assistant:\n' }}{% endif %}"
)

LLAMA3_SPLIT = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*"
    r"|\s*[\r\n]+|\s+(?!\S)|\s+"
)
BYTE_LEVEL = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True}
PRE_TOKENIZERS = {  # tokenizer.ggml.pre: how a text is cut before its pieces are merged
    "default": [BYTE_LEVEL],
    "gpt-2": [BYTE_LEVEL],
    "smollm": [{"type": "Digits", "individual_digits": True}, BYTE_LEVEL],
    "llama-bpe": [
        {"type": "Split", "pattern": {"Regex": LLAMA3_SPLIT}, "behavior": "Isolated", "invert": False},
        BYTE_LEVEL | {"use_regex": False},
    ],
}
UNKNOWN, CONTROL, USER_DEFINED = 2, 3, 4  # tokenizer.ggml.token_type
GGUF_NAMES = {"bos": "bos_token", "eos": "eos_token", "unknown": "unk_token", "padding": "pad_token"}


class Files(NamedTuple):
    """tokenizer.json, tokenizer_config.json, the chat template, and the ids that end a text."""

    definition: str
    settings: dict[str, Any]
    template: str | None
    eos_ids: list[int]


def from_folder(folder: Path) -> Files:
    """Read a Hugging Face folder; RiyazError names the file that is missing or broken."""
    if not (folder / "tokenizer.json").is_file():
        hint = "riyaz reads tokenizer.json; a folder with only tokenizer.model must be converted"
        raise RiyazError("there is no tokenizer.json", str(folder), hint)
    settings = _read_json(folder / "tokenizer_config.json")
    template = settings.get("chat_template")
    if isinstance(template, list):  # several templates by name
        template = {entry["name"]: entry["template"] for entry in template}.get("default")
    if (folder / "chat_template.jinja").is_file():
        template = _read_text(folder / "chat_template.jinja")
    if not isinstance(template, str | None):
        raise RiyazError("chat_template is not a text", str(folder / "tokenizer_config.json"))
    eos_ids = _read_json(folder / "generation_config.json").get("eos_token_id")
    if eos_ids is None:
        eos_ids = _read_json(folder / "config.json").get("eos_token_id")
    if not isinstance(eos_ids, list):
        eos_ids = [] if eos_ids is None else [eos_ids]
    return Files(_read_text(folder / "tokenizer.json"), settings, template, eos_ids)


def from_gguf(metadata: dict[str, Any], where: str) -> Files:
    """Build the files that GGUF metadata stand for; RiyazError names a kind of tokenizer that is not read."""
    kind, pre = metadata.get("tokenizer.ggml.model"), metadata.get("tokenizer.ggml.pre", "default")
    hint = "use the model's Hugging Face folder"
    if kind != "gpt2":
        raise RiyazError(f"tokenizer kind {kind!r} is not read, only 'gpt2' (byte-level BPE)", where, hint)
    if pre not in PRE_TOKENIZERS:
        raise RiyazError(f"pre-tokenizer {pre!r} is not read, only {', '.join(PRE_TOKENIZERS)}", where, hint)
    tokens = list(metadata.get("tokenizer.ggml.tokens", ()))
    types = [int(number) for number in metadata.get("tokenizer.ggml.token_type", ())]
    merges = list(metadata.get("tokenizer.ggml.merges", ()))
    vocabulary = {token: number for number, token in enumerate(tokens)}
    if not tokens or len(vocabulary) != len(tokens) or len(types) not in (0, len(tokens)):
        raise RiyazError("tokenizer.ggml.tokens are missing, double, or not as many as token_type", where)
    ids = _gguf_ids(metadata, len(tokens), where)
    settings: dict[str, Any] = {GGUF_NAMES[name]: tokens[ids[name]] for name in ids if name in GGUF_NAMES}
    settings |= {"clean_up_tokenization_spaces": False, "tokenizer_class": "PreTrainedTokenizerFast"}
    context = metadata.get(f"{metadata.get('general.architecture')}.context_length")
    if context is not None:
        settings["model_max_length"] = int(context)
    begins_with_bos = "bos" in ids and bool(metadata.get("tokenizer.ggml.add_bos_token", pre == "llama-bpe"))
    definition = {
        "version": "1.0",
        "added_tokens": [
            {"id": number, "content": tokens[number], "special": type_ != USER_DEFINED, **NO_FLAGS}
            for number, type_ in enumerate(types)
            if type_ in (UNKNOWN, CONTROL, USER_DEFINED)
        ],
        "normalizer": None,
        "pre_tokenizer": {"type": "Sequence", "pretokenizers": PRE_TOKENIZERS[pre]},
        "post_processor": _begin_with(settings["bos_token"], ids["bos"]) if begins_with_bos else None,
        "decoder": BYTE_LEVEL,
        "model": {
            "type": "BPE",
            "ignore_merges": pre == "llama-bpe",
            "vocab": vocabulary,
            "merges": [merge.split(" ") for merge in merges],
        },
    }
    eos_ids = [ids[name] for name in ("eos", "eot", "eom") if name in ids]
    text = json.dumps(definition, ensure_ascii=False)
    return Files(text, settings, metadata.get("tokenizer.chat_template"), eos_ids)


def added_tokens(definition: dict, settings: dict, where: str) -> tuple[list[dict], dict[str, int]]:
    """The tokens cut out of a text before merging; the control tokens among them, with their ids."""
    named = [settings[name] for name in NAMED if settings.get(name)]
    named += settings.get("additional_special_tokens") or settings.get("extra_special_tokens") or []
    try:
        special = {content(token) for token in named}
        added = list(definition.get("added_tokens") or [])
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
        raise RiyazError(f"is not a tokenizer: {type(error).__name__} {error}", where) from None
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


def plain_template(definition: dict, settings: dict) -> str:
    """The template for a model that has none; it begins with BOS when the model's texts do."""
    bos = content(settings.get("bos_token") or "")
    begins = json.dumps(bos) in json.dumps(definition.get("post_processor")) or settings.get("add_bos_token")
    return "{{ bos_token }}" + PLAIN_TEMPLATE if bos and begins else PLAIN_TEMPLATE


def content(token: str | dict) -> str:
    """The text of a token in tokenizer_config.json, which stands there bare or with its flags."""
    return token if isinstance(token, str) else token["content"]


def parse_json(text: str, where: str) -> dict[str, Any]:
    """A JSON object, or RiyazError."""
    try:
        parsed = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise RiyazError(f"is not JSON: {error}", where) from None
    if not isinstance(parsed, dict):
        raise RiyazError("is not a JSON object", where)
    return parsed


def _read_text(file: Path) -> str:
    try:
        return file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise RiyazError(f"cannot be read: {error}", str(file)) from None


def _read_json(file: Path) -> dict[str, Any]:
    return parse_json(_read_text(file), str(file)) if file.is_file() else {}


def _gguf_ids(metadata: dict[str, Any], count: int, where: str) -> dict[str, int]:
    ids = {}
    for name in (*GGUF_NAMES, "eot", "eom"):
        number = metadata.get(f"tokenizer.ggml.{name}_token_id")
        if number is not None and not 0 <= int(number) < count:
            raise RiyazError(f"{name}_token_id {number} is outside the {count} tokens", where)
        if number is not None:
            ids[name] = int(number)
    return ids


def _begin_with(token: str, number: int) -> dict:
    """The post-processor that puts one token before a text."""
    parts = [{"SpecialToken": {"id": token, "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}}]
    return {
        "type": "TemplateProcessing",
        "single": parts,
        "pair": [*parts, {"Sequence": {"id": "B", "type_id": 0}}],
        "special_tokens": {token: {"id": token, "ids": [number], "tokens": [token]}},
    }
