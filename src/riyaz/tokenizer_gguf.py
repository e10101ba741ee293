"""The tokenizer files that GGUF metadata stand for: byte-level BPE ("gpt2") and SentencePiece's BPE ("llama").

The first kind lists its merges; how a text is cut before them has only a name, `tokenizer.ggml.pre`. The second has a
score per piece: of two neighbours those are joined first whose piece has the best score. Both become a
`tokenizer.json`. Nothing is guessed: a kind, a name or a value that is not known is one RiyazError.
"""

import json
import math
from typing import Any, NamedTuple

from riyaz.errors import RiyazError
from riyaz.tokenizer_files import NO_FLAGS, Files, one_line

LLAMA3_SPLIT = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*"
    r"|\s*[\r\n]+|\s+(?!\S)|\s+"
)
QWEN2_SPLIT = LLAMA3_SPLIT.replace(r"\p{N}{1,3}", r"\p{N}")  # every digit alone
BYTE_LEVEL = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True}
DIGITS = {"type": "Digits", "individual_digits": True}
KINDS = ("gpt2", "llama")
UNKNOWN, CONTROL, USER_DEFINED, BYTE = 2, 3, 4, 6  # tokenizer.ggml.token_type
GGUF_NAMES = {"bos": "bos_token", "eos": "eos_token", "unknown": "unk_token", "padding": "pad_token"}
ENDS = ("eos", "eot", "eom")
BY_PLACE = ("gemma", "gemma2", "gemma3")  # their scores do not follow the order of merging, the places do
MAX_PIECE = 1024  # characters; the longest real ones have under 300
SPACE = "▁"
HINT = "use the model's Hugging Face folder"


def _split(pattern: str) -> list[dict]:
    """Cuts by a pattern, then spells bytes as characters."""
    step = {"type": "Split", "pattern": {"Regex": pattern}, "behavior": "Isolated", "invert": False}
    return [step, BYTE_LEVEL | {"use_regex": False}]


class Pre(NamedTuple):
    """How a text is cut before its pieces are merged, and what else goes with that name."""

    steps: list[dict]
    normalizer: dict | None = None
    whole_words: bool = False  # a word that is a token needs no merges
    begins_with_bos: bool = False  # unless the file says otherwise


GPT2, LLAMA3 = Pre([BYTE_LEVEL]), Pre(_split(LLAMA3_SPLIT), None, True, True)
PRE_TOKENIZERS = {  # tokenizer.ggml.pre; a file without it is older than the key
    "default": GPT2,
    "gpt-2": GPT2,
    "smollm": Pre([DIGITS, BYTE_LEVEL]),
    "llama-bpe": LLAMA3,
    "llama3": LLAMA3,
    "llama-v3": LLAMA3,
    "qwen2": Pre(_split(QWEN2_SPLIT), {"type": "NFC"}),
}


class Pieces(NamedTuple):
    """The vocabulary: token texts by id, their types (all 1 when the file has none), the ids with a role."""

    tokens: list[str]
    types: list[int]
    roles: dict[str, int]


def from_gguf(metadata: dict[str, Any], where: str) -> Files:
    """Build the files that GGUF metadata stand for; RiyazError names a kind of tokenizer that is not read."""
    kind = metadata.get("tokenizer.ggml.model")
    if kind not in KINDS:
        what = f"tokenizer kind {one_line(kind)} is not read, only 'gpt2' (byte-level BPE) and 'llama' (SentencePiece)"
        what = "the file holds no tokenizer (tokenizer.ggml.model)" if kind is None else what
        raise RiyazError(what, where, HINT)
    template = metadata.get("tokenizer.chat_template")
    if not isinstance(template, str | None):
        raise RiyazError("tokenizer.chat_template is not a text", where)
    pieces = _pieces(metadata, where)
    parts, begins = (_byte_level if kind == "gpt2" else _sentencepiece)(metadata, pieces, where)
    tokens, types, roles = pieces
    settings: dict[str, Any] = {GGUF_NAMES[name]: tokens[roles[name]] for name in roles if name in GGUF_NAMES}
    settings |= {"clean_up_tokenization_spaces": False, "tokenizer_class": "PreTrainedTokenizerFast"}
    context: Any = metadata.get(f"{metadata.get('general.architecture')}.context_length")
    if _whole(context):
        settings["model_max_length"] = int(context)
    definition = {
        "version": "1.0",
        "added_tokens": [
            {"id": number, "content": tokens[number], "special": type_ != USER_DEFINED, **NO_FLAGS}
            for number, type_ in enumerate(types)
            if type_ in (UNKNOWN, CONTROL, USER_DEFINED)
        ],
        "post_processor": _ends(metadata, pieces, begins, where),
        **parts,
    }
    eos_ids = [roles[name] for name in ENDS if name in roles]
    return Files(json.dumps(definition, ensure_ascii=False), settings, template, eos_ids)


def _byte_level(metadata: dict[str, Any], pieces: Pieces, where: str) -> tuple[dict, bool]:
    """Byte-level BPE with the file's merges; whether its texts begin with BOS by default."""
    name = metadata.get("tokenizer.ggml.pre", "default")
    if not isinstance(name, str) or name not in PRE_TOKENIZERS:
        known = ", ".join(PRE_TOKENIZERS)
        raise RiyazError(f"pre-tokenizer {one_line(name)} is not read, only {known}", where, HINT)
    pre = PRE_TOKENIZERS[name]
    merges = [merge.split(" ") for merge in _listed(metadata, "merges", (str,), where)]
    if any(len(pair) != 2 for pair in merges):
        raise RiyazError("tokenizer.ggml.merges are not pairs, so this is not a tokenizer", where)
    model = _model(pieces, merges, whole_words=pre.whole_words)
    steps = {"type": "Sequence", "pretokenizers": pre.steps}
    parts = {"normalizer": pre.normalizer, "pre_tokenizer": steps, "decoder": BYTE_LEVEL, "model": model}
    return parts, pre.begins_with_bos


def _sentencepiece(metadata: dict[str, Any], pieces: Pieces, where: str) -> tuple[dict, bool]:
    """SentencePiece's BPE: spaces are written as ▁, unknown characters as bytes; its texts begin with BOS.

    A text, and what follows a control token, gets a space in front unless `add_space_prefix` is false.
    """
    if "tokenizer.ggml.merges" in metadata:
        merges = [merge.split(" ") for merge in _listed(metadata, "merges", (str,), where)]
    else:
        merges = _merges(pieces, _ranks(metadata, len(pieces.tokens), where))
    normalizer: dict = {"type": "Replace", "pattern": {"String": " "}, "content": SPACE}
    decoders: list[dict] = [{"type": "Replace", "pattern": {"String": SPACE}, "content": " "}]
    decoders += [{"type": "ByteFallback"}, {"type": "Fuse"}]
    if _flag(metadata, "add_space_prefix", True, where):
        steps = [{"type": "Prepend", "prepend": SPACE}, normalizer]
        normalizer = {"type": "Sequence", "normalizers": steps}
        decoders.append({"type": "Strip", "content": " ", "start": 1, "stop": 0})
    unknown = pieces.roles.get("unknown", pieces.types.index(UNKNOWN) if UNKNOWN in pieces.types else None)
    model = _model(pieces, merges) | {"byte_fallback": True, "fuse_unk": True}
    model["unk_token"] = None if unknown is None else pieces.tokens[unknown]
    decoder = {"type": "Sequence", "decoders": decoders}
    return {"normalizer": normalizer, "pre_tokenizer": None, "decoder": decoder, "model": model}, True


def _model(pieces: Pieces, merges: list[list[str]], whole_words: bool = False) -> dict:
    vocabulary = {token: number for number, token in enumerate(pieces.tokens)}
    return {"type": "BPE", "ignore_merges": whole_words, "vocab": vocabulary, "merges": merges}


def _ranks(metadata: dict[str, Any], count: int, where: str) -> list[float]:
    """A number per piece, the best the highest: its score, or for some models its place."""
    if metadata.get("general.architecture") in BY_PLACE:
        return [-float(number) for number in range(count)]
    scores = _listed(metadata, "scores", (int, float), where)
    if len(scores) != count or not all(map(math.isfinite, scores)):
        raise RiyazError(f"tokenizer.ggml.scores are not {count} finite numbers, one per token", where)
    return scores


def _merges(pieces: Pieces, ranks: list[float]) -> list[list[str]]:
    """Every way to join two pieces into one, the best piece first; of one piece the longest left part first."""
    whole = {
        token: number
        for number, (token, type_) in enumerate(zip(pieces.tokens, pieces.types, strict=True))
        if type_ not in (UNKNOWN, CONTROL, BYTE)  # no text spells these
    }
    found = []
    for token, number in whole.items():
        for cut in range(1, len(token)):
            left, right = token[:cut], token[cut:]
            if left in whole and right in whole:
                found.append((-ranks[number], -cut, cut - len(token), number, left, right))
    return [[left, right] for *_, left, right in sorted(found)]


def _pieces(metadata: dict[str, Any], where: str) -> Pieces:
    """The vocabulary, checked: every token a different text of bounded length, every role the id of one."""
    tokens = _listed(metadata, "tokens", (str,), where)
    types = _listed(metadata, "token_type", (int,), where)
    if not tokens or len(types) not in (0, len(tokens)):
        raise RiyazError("tokenizer.ggml.tokens are missing, double, or not as many as token_type", where)
    for place, token in enumerate(tokens):
        if len(token) > MAX_PIECE:
            raise RiyazError(f"token {place} has {len(token)} characters, the limit is {MAX_PIECE}", where)
    if metadata["tokenizer.ggml.model"] == "llama":
        known = set(tokens)  # llama.cpp's converter writes runs of ▁ as spaces
        tokens = [_spelt(token) if _spelt(token) not in known else token for token in tokens]
    if len(set(tokens)) != len(tokens):
        raise RiyazError("tokenizer.ggml.tokens has a token double", where)
    roles: dict[str, int] = {}
    for name in dict.fromkeys([*GGUF_NAMES, *ENDS]):
        number: Any = metadata.get(f"tokenizer.ggml.{name}_token_id")
        if number is None:
            continue
        if not _whole(number) or not 0 <= int(number) < len(tokens):
            raise RiyazError(f"{name}_token_id {one_line(number)} is outside the {len(tokens)} tokens", where)
        roles[name] = int(number)
    return Pieces(tokens, types or [1] * len(tokens), roles)


def _spelt(token: str) -> str:
    return SPACE * len(token) if token and not token.strip(" ") else token


def _listed(metadata: dict[str, Any], name: str, kinds: tuple[type, ...], where: str) -> list[Any]:
    """A list in the metadata, empty when absent; RiyazError when an element is of another type."""
    values = metadata.get(f"tokenizer.ggml.{name}", [])
    values = values.tolist() if hasattr(values, "tolist") else values
    if not isinstance(values, list) or not all(type(value) in kinds for value in values):
        raise RiyazError(f"tokenizer.ggml.{name} is not a list of {' or '.join(t.__name__ for t in kinds)}", where)
    return values


def _whole(value: Any) -> bool:
    """Whether a metadata value is a whole number, numpy's too."""
    return hasattr(value, "__index__") and not isinstance(value, bool)


def _flag(metadata: dict[str, Any], name: str, default: bool, where: str) -> bool:
    """A truth value in the metadata, numpy's too; the text "false" would count as true."""
    value = metadata.get(f"tokenizer.ggml.{name}", default)
    value = value.tolist() if hasattr(value, "tolist") else value
    if not isinstance(value, bool):
        raise RiyazError(f"tokenizer.ggml.{name} is {one_line(value)}, neither true nor false", where, HINT)
    return value


def _ends(metadata: dict[str, Any], pieces: Pieces, begins: bool, where: str) -> dict | None:
    """The post-processor that puts BOS before a text and EOS behind it, where the file wants them."""
    wanted = {"bos": _flag(metadata, "add_bos_token", begins, where)}
    wanted["eos"] = _flag(metadata, "add_eos_token", False, where)
    tokens = {name: pieces.tokens[pieces.roles[name]] for name in wanted if wanted[name] and name in pieces.roles}
    if not tokens:
        return None

    def around(*texts: str) -> list[dict]:
        """The texts, each with what stands around it."""
        parts: list[dict] = []
        for number, text in enumerate(texts):
            parts += [{"SpecialToken": {"id": tokens["bos"], "type_id": number}}] if "bos" in tokens else []
            parts += [{"Sequence": {"id": text, "type_id": number}}]
            parts += [{"SpecialToken": {"id": tokens["eos"], "type_id": number}}] if "eos" in tokens else []
        return parts

    special = {token: {"id": token, "ids": [pieces.roles[name]], "tokens": [token]} for name, token in tokens.items()}
    return {"type": "TemplateProcessing", "single": around("A"), "pair": around("A", "B"), "special_tokens": special}
