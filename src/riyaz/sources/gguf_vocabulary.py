"""Writing a tokenizer as GGUF metadata, which llama.cpp reads instead of tokenizer.json.

`tokenizer_gguf.from_gguf` is the inverse. A kind of tokenizer that GGUF cannot express raises RiyazError.

Byte-level BPE is written with its merges. For SentencePiece's BPE llama.cpp reads a score per piece instead, the
earliest merge having the highest. Scores can imply merges that tokenizer.json does not list, so the result is checked:
the tokenizer and the metadata must give the same ids for every piece.
"""

from typing import Any

from riyaz.errors import RiyazError
from riyaz.sources.source import Source
from riyaz.text import tokenizer_files
from riyaz.text.tokenizer import Tokenizer

NORMAL, UNKNOWN, CONTROL, USER_DEFINED, UNUSED, BYTE = 1, 2, 3, 4, 5, 6  # tokenizer.ggml.token_type
BYTES = {f"<0x{byte:02X}>" for byte in range(256)}
CHUNK = 400  # pieces that are compared in one text
PRE_TOKENIZERS = ("gpt-2", "smollm", "llama-bpe", "qwen2")  # values of tokenizer.ggml.pre, see tokenizer_gguf.py
ROLES = {"eos": "eos_token", "unknown": "unk_token", "padding": "pad_token"}
SPACE = "▁"
HINT = "export it with --format hf, which keeps tokenizer.json"


def tokenizer_metadata(source: Source, tokenizer: Tokenizer, rows: int) -> dict[str, Any]:
    """The metadata keys `tokenizer.*` for a model with `rows` embedding rows; a GGUF source's own keys are kept.

    Raises RiyazError when GGUF cannot express the tokenizer.
    """
    if source.format == "gguf":
        metadata = {key: value for key, value in source.metadata.items() if key.startswith("tokenizer.")}
        return {**metadata, "tokenizer.chat_template": tokenizer.template}
    definition = tokenizer.files.parsed(tokenizer.where)
    if _is_sentencepiece(definition):
        return _sentencepiece(definition, tokenizer, rows)
    pre = _pre(definition, tokenizer.where)
    vocabulary, types = _tokens(definition, tokenizer, rows)
    merges = [merge if isinstance(merge, str) else " ".join(merge) for merge in definition["model"]["merges"]]
    return {
        "tokenizer.ggml.model": "gpt2",
        "tokenizer.ggml.pre": pre,
        "tokenizer.ggml.tokens": vocabulary,
        "tokenizer.ggml.token_type": types,
        "tokenizer.ggml.merges": merges,
        **_ids(tokenizer, vocabulary),
        "tokenizer.ggml.add_bos_token": bool(tokenizer.beginning),
        "tokenizer.ggml.add_space_prefix": False,
        "tokenizer.chat_template": tokenizer.template,
    }


def _is_sentencepiece(definition: dict[str, Any]) -> bool:
    model = definition["model"]
    return model.get("type") == "BPE" and bool(model.get("byte_fallback")) and model["vocab"].keys() >= BYTES


def _sentencepiece(definition: dict[str, Any], tokenizer: Tokenizer, rows: int) -> dict[str, Any]:
    """The metadata keys of SentencePiece's BPE. Raises RiyazError when the scores give other ids than the merges."""
    prefix = _space_prefix(definition, tokenizer.where)
    vocabulary, types = _tokens(definition, tokenizer, rows)
    unknown = definition["model"].get("unk_token")
    for number, token in enumerate(vocabulary):
        if token == unknown or token in BYTES:
            types[number] = UNKNOWN if token == unknown else BYTE
    metadata = {
        "tokenizer.ggml.model": "llama",
        "tokenizer.ggml.pre": "default",
        "tokenizer.ggml.tokens": [
            # user-defined tokens are matched before the text's spaces become ▁
            " " * len(token) if type_ == USER_DEFINED and set(token) == {SPACE} else token
            for token, type_ in zip(vocabulary, types, strict=True)
        ],
        "tokenizer.ggml.scores": _scores(definition["model"]["merges"], vocabulary),
        "tokenizer.ggml.token_type": types,
        **_ids(tokenizer, vocabulary),
        "tokenizer.ggml.add_bos_token": bool(tokenizer.beginning),
        "tokenizer.ggml.add_space_prefix": prefix,
        "tokenizer.chat_template": tokenizer.template,
    }
    _check_same_ids(tokenizer, Tokenizer.from_gguf(metadata), vocabulary)
    return metadata


def _space_prefix(definition: dict[str, Any], where: str) -> bool:
    """Whether a text gets a space in front. Raises RiyazError when normalizer or pre-tokenizer is neither variant."""
    for prefix in (True, False):
        stub = {"tokenizer.ggml.model": "llama", "tokenizer.ggml.tokens": ["a"], "tokenizer.ggml.scores": [0.0]}
        files = Tokenizer.from_gguf({**stub, "tokenizer.ggml.add_space_prefix": prefix}).files
        readable = files.parsed(where)
        bare = {**definition, "pre_tokenizer": _without_space_split(definition.get("pre_tokenizer"))}
        if _splitting(readable) == _splitting(bare) and readable["decoder"] == definition.get("decoder"):
            return prefix
    raise RiyazError("the tokenizer splits text in a way that GGUF cannot express", where, HINT)


def _without_space_split(pre_tokenizer: dict[str, Any] | None) -> dict[str, Any] | None:
    """None for a split at spaces, which has no effect as all are ▁ by then (as in Gemma's files); else unchanged."""
    step = pre_tokenizer or {}
    return None if step.get("type") == "Split" and step.get("pattern") == {"String": " "} else pre_tokenizer


def _scores(merges: list[Any], vocabulary: list[str]) -> list[float]:
    """A score per token: minus the index of the merge that makes it; the lowest for tokens that no merge makes."""
    made: dict[str, float] = {}
    for place, merge in enumerate(merges):
        made.setdefault("".join(merge.split(" ") if isinstance(merge, str) else merge), -float(place))
    return [made.get(token, -float(len(merges))) for token in vocabulary]


def _check_same_ids(original: Tokenizer, written: Tokenizer, pieces: list[str]) -> None:
    """Raises RiyazError when the two tokenizers give different ids for texts built from all pieces in order."""
    texts = [piece.replace(SPACE, " ") for piece in pieces]
    for begin in range(0, len(texts), CHUNK):
        some = texts[begin : begin + CHUNK]
        text = "\n".join(some) + "\n" + "".join(some)
        if original.encode(text) != written.encode(text):
            what = "the tokenizer's merges do not follow from one score per piece, which is what llama.cpp reads"
            raise RiyazError(what, original.where, HINT)


def _pre(definition: dict[str, Any], where: str) -> str:
    """The value of tokenizer.ggml.pre that splits text as the tokenizer does. Raises RiyazError when there is none."""
    model = definition["model"]
    if model.get("type") != "BPE" or model.get("byte_fallback"):
        kind = "with byte fallback" if model.get("byte_fallback") else str(model.get("type"))
        raise RiyazError(f"a tokenizer of the kind {kind} cannot be written as GGUF", where, HINT)
    for name in PRE_TOKENIZERS:
        stub = {"tokenizer.ggml.model": "gpt2", "tokenizer.ggml.pre": name, "tokenizer.ggml.tokens": ["a"]}
        named = Tokenizer.from_gguf(stub).files.parsed(where)
        if _splitting(named) == _splitting(definition):
            return name
    raise RiyazError("the tokenizer splits text in a way that GGUF cannot express", where, HINT)


def _splitting(definition: dict[str, Any]) -> tuple[Any, ...]:
    """The parts of tokenizer.json that decide how text is split before merging: (normalizer, steps, ignore_merges)."""
    whole_words = bool(definition["model"].get("ignore_merges"))
    return definition.get("normalizer"), _steps(definition.get("pre_tokenizer")), whole_words


def _steps(pre_tokenizer: dict[str, Any] | None) -> list[dict[str, Any]]:
    """The steps of a pre-tokenizer, without the settings that do not affect ids."""
    steps = (pre_tokenizer or {}).get("pretokenizers", [pre_tokenizer] if pre_tokenizer else [])
    whole = [{"use_regex": True, **step} if step.get("type") == "ByteLevel" else step for step in steps]
    return [{key: value for key, value in step.items() if key != "trim_offsets"} for step in whole]


def _tokens(definition: dict[str, Any], tokenizer: Tokenizer, rows: int) -> tuple[list[str], list[int]]:
    """(token, type) of every embedding row, as two lists; rows without a token are named [PADn] and typed unused."""
    added, control = tokenizer_files.added_tokens(definition, tokenizer.files.settings, tokenizer.where)
    texts = {number: token for token, number in definition["model"]["vocab"].items()}
    texts |= {entry["id"]: entry["content"] for entry in added}
    if max(texts) >= rows:
        raise RiyazError(f"the tokenizer has the id {max(texts)}, the model {rows} rows", tokenizer.where, HINT)
    kinds = {entry["id"]: CONTROL if entry["content"] in control else USER_DEFINED for entry in added}
    tokens = [texts.get(number, f"[PAD{number}]") for number in range(rows)]
    types = [kinds.get(number, NORMAL if number in texts else UNUSED) for number in range(rows)]
    return tokens, types


def _ids(tokenizer: Tokenizer, tokens: list[str]) -> dict[str, int]:
    """The keys `tokenizer.ggml.*_token_id`; the tokens that end an answer become eos, eot and eom.

    Raises RiyazError when more than three tokens end an answer.
    """
    numbers = {token: number for number, token in enumerate(tokens)}
    settings, ids = tokenizer.files.settings, {}
    for role, name in ROLES.items():
        token = tokenizer_files.token_content(settings[name]) if settings.get(name) else None
        if token in numbers:
            ids[role] = numbers[token]
    if tokenizer.bos_id is not None:
        ids["bos"] = tokenizer.bos_id
    ids.setdefault("eos", tokenizer.end_of_turn)
    turn = [tokenizer.end_of_turn] if tokenizer.end_of_turn != ids["eos"] else []
    rest = turn + sorted(tokenizer.eos_ids - {ids["eos"], *turn})
    if len(rest) > 2:
        ends = f"{ids['eos']}, {', '.join(map(str, rest))}"
        what = f"{1 + len(rest)} tokens end an answer ({ends}), GGUF has keys for three"
        raise RiyazError(what, tokenizer.where, HINT)
    ids |= dict(zip(("eot", "eom"), rest))
    return {f"tokenizer.ggml.{role}_token_id": number for role, number in ids.items()}
