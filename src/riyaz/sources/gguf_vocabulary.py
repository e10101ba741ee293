"""A tokenizer as GGUF metadata: what llama.cpp reads instead of tokenizer.json; `tokenizer_gguf.from_gguf` reads it
back. A kind of tokenizer that GGUF has no name for is refused.

Byte-level BPE is written with its merges. For SentencePiece's BPE llama.cpp reads a score per piece instead: the one
that is made first has the best. A tokenizer.json need not list all merges that scores imply, so both are asked for the
ids of every piece before anything is written.
"""

from contextlib import suppress
from typing import Any

from riyaz import tokenizer_files
from riyaz.errors import RiyazError
from riyaz.sources.source import Source
from riyaz.tokenizer import Tokenizer

NORMAL, UNKNOWN, CONTROL, USER_DEFINED, UNUSED, BYTE = 1, 2, 3, 4, 5, 6  # tokenizer.ggml.token_type
BYTES = {f"<0x{byte:02X}>" for byte in range(256)}
CHUNK = 400  # pieces that are compared in one text
PRES = ("gpt-2", "smollm", "llama-bpe", "qwen2")  # tokenizer.ggml.pre: the reader says what each means
ROLES = {"eos": "eos_token", "unknown": "unk_token", "padding": "pad_token"}
SPACE = "▁"
HINT = "export it with --format hf, which keeps tokenizer.json"


def tokenizer_metadata(source: Source, tokenizer: Tokenizer, rows: int) -> dict[str, Any]:
    """The keys `tokenizer.*` for a model with so many rows in its embedding. A GGUF source keeps its own."""
    if source.format == "gguf":
        kept = {key: value for key, value in source.metadata.items() if key.startswith("tokenizer.")}
        return {**kept, "tokenizer.chat_template": tokenizer.template}
    definition = tokenizer_files.parse_json(tokenizer.files.definition, tokenizer.where)
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
    """The keys of SentencePiece's BPE; RiyazError when scores give other ids than the tokenizer's merges."""
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
            # those are cut out of a text before its spaces become ▁
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
    _same_pieces(tokenizer, Tokenizer.from_gguf(metadata), vocabulary)
    return metadata


def _space_prefix(definition: dict[str, Any], where: str) -> bool:
    """Whether a text gets a space in front; RiyazError when it is cut in another way than the two that are read."""
    for prefix in (True, False):
        stub = {"tokenizer.ggml.model": "llama", "tokenizer.ggml.tokens": ["a"], "tokenizer.ggml.scores": [0.0]}
        files = Tokenizer.from_gguf({**stub, "tokenizer.ggml.add_space_prefix": prefix}).files
        known = tokenizer_files.parse_json(files.definition, where)
        bare = {**definition, "pre_tokenizer": _without_spaces(definition.get("pre_tokenizer"))}
        if _cut(known) == _cut(bare) and known["decoder"] == definition.get("decoder"):
            return prefix
    raise RiyazError("the tokenizer cuts a text in a way that has no name in GGUF", where, HINT)


def _without_spaces(pre_tokenizer: dict[str, Any] | None) -> dict[str, Any] | None:
    """None for a cut at spaces, which are all ▁ by then (Gemma's files have it); else the pre-tokenizer."""
    step = pre_tokenizer or {}
    return None if step.get("type") == "Split" and step.get("pattern") == {"String": " "} else pre_tokenizer


def _scores(merges: list[Any], vocabulary: list[str]) -> list[float]:
    """A score per token: the earlier a merge makes it the better; what no merge makes has the worst."""
    made: dict[str, float] = {}
    for place, merge in enumerate(merges):
        made.setdefault("".join(merge.split(" ") if isinstance(merge, str) else merge), -float(place))
    return [made.get(token, -float(len(merges))) for token in vocabulary]


def _same_pieces(wanted: Tokenizer, found: Tokenizer, pieces: list[str]) -> None:
    """Raises RiyazError when two tokenizers give other ids to texts of all pieces, one after the other."""
    texts = [piece.replace(SPACE, " ") for piece in pieces]
    for begin in range(0, len(texts), CHUNK):
        some = texts[begin : begin + CHUNK]
        text = "\n".join(some) + "\n" + "".join(some)
        if wanted.encode(text) != found.encode(text):
            what = "the tokenizer's merges do not follow from one score per piece, which is what llama.cpp reads"
            raise RiyazError(what, wanted.where, HINT)


def _pre(definition: dict[str, Any], where: str) -> str:
    """The name of the way a text is cut; RiyazError when llama.cpp has none that riyaz knows for it."""
    model = definition["model"]
    if model.get("type") != "BPE" or model.get("byte_fallback"):
        kind = "with byte fallback" if model.get("byte_fallback") else str(model.get("type"))
        raise RiyazError(f"a tokenizer of the kind {kind} is not written as GGUF", where, HINT)
    for name in PRES:
        stub = {"tokenizer.ggml.model": "gpt2", "tokenizer.ggml.pre": name, "tokenizer.ggml.tokens": ["a"]}
        with suppress(RiyazError):  # a name that the reader does not know
            if _cut(tokenizer_files.parse_json(Tokenizer.from_gguf(stub).files.definition, where)) == _cut(definition):
                return name
    raise RiyazError("the tokenizer cuts a text in a way that has no name in GGUF", where, HINT)


def _cut(definition: dict[str, Any]) -> tuple[Any, ...]:
    """All that decides how a text is cut before its pieces are merged."""
    whole_words = bool(definition["model"].get("ignore_merges"))
    return definition.get("normalizer"), _parts(definition.get("pre_tokenizer")), whole_words


def _parts(pre_tokenizer: dict[str, Any] | None) -> list[dict[str, Any]]:
    """The steps of a pre-tokenizer without what does not change ids."""
    steps = (pre_tokenizer or {}).get("pretokenizers", [pre_tokenizer] if pre_tokenizer else [])
    whole = [{"use_regex": True, **step} if step.get("type") == "ByteLevel" else step for step in steps]
    return [{key: value for key, value in step.items() if key != "trim_offsets"} for step in whole]


def _tokens(definition: dict[str, Any], tokenizer: Tokenizer, rows: int) -> tuple[list[str], list[int]]:
    """Every row's token and its type; rows without a token get a name that no text has."""
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
    """The named tokens' ids; every token that ends an answer is one of end of text, of turn, of message."""
    numbers = {token: number for number, token in enumerate(tokens)}
    settings, ids = tokenizer.files.settings, {}
    for role, name in ROLES.items():
        token = tokenizer_files.content(settings[name]) if settings.get(name) else None
        if token in numbers:
            ids[role] = numbers[token]
    if tokenizer.bos_id is not None:
        ids["bos"] = tokenizer.bos_id
    ids.setdefault("eos", tokenizer.end_of_turn)
    turn = [tokenizer.end_of_turn] if tokenizer.end_of_turn != ids["eos"] else []
    rest = turn + sorted(tokenizer.eos_ids - {ids["eos"], *turn})
    if len(rest) > 2:
        what = f"{1 + len(rest)} tokens end an answer ({ids['eos']}, {', '.join(map(str, rest))}), GGUF names three"
        raise RiyazError(what, tokenizer.where, HINT)
    ids |= dict(zip(("eot", "eom"), rest))
    return {f"tokenizer.ggml.{role}_token_id": number for role, number in ids.items()}
