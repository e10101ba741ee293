"""Converting a GGUF file's tokenizer to tokenizer files: byte-level BPE ("gpt2") and SentencePiece's BPE ("llama").

"gpt2" lists its merges and names its pre-tokenizer (how text is split before merging) in `tokenizer.ggml.pre`. "llama"
has a score per piece: the adjacent pair whose joined piece has the highest score is merged first. Both become a
`tokenizer.json`. An unknown kind, name or value raises RiyazError; nothing is guessed.
"""

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

from riyaz.errors import RiyazError
from riyaz.text.tokenizer_files import NO_FLAGS, TokenizerFiles, one_line

LLAMA3_SPLIT = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*"
    r"|\s*[\r\n]+|\s+(?!\S)|\s+"
)
QWEN2_SPLIT = LLAMA3_SPLIT.replace(r"\p{N}{1,3}", r"\p{N}")  # every digit is split off
BYTE_LEVEL = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True}
DIGITS = {"type": "Digits", "individual_digits": True}
KINDS = ("gpt2", "llama")
UNKNOWN, CONTROL, USER_DEFINED, BYTE = 2, 3, 4, 6  # tokenizer.ggml.token_type
GGUF_NAMES = {"bos": "bos_token", "eos": "eos_token", "unknown": "unk_token", "padding": "pad_token"}
ENDS = ("eos", "eot", "eom")
RANKED_BY_ID = ("gemma", "gemma2", "gemma3")  # these merge in order of the ids, not of the scores
MAX_PIECE = 1024  # characters; the longest real pieces have under 300
SPACE = "▁"
HINT = "use the model's Hugging Face folder"


def _split(pattern: str) -> list[dict]:
    """Pre-tokenizer steps: split by a pattern, then write each byte as one character."""
    step = {"type": "Split", "pattern": {"Regex": pattern}, "behavior": "Isolated", "invert": False}
    return [step, BYTE_LEVEL | {"use_regex": False}]


class PreTokenizer(NamedTuple):
    """The settings that a value of tokenizer.ggml.pre stands for."""

    steps: list[dict]  # how text is split before merging
    normalizer: dict | None = None
    whole_words: bool = False  # a word in the vocabulary is one token, whatever the merges
    begins_with_bos: bool = False  # the default of add_bos_token


GPT2, LLAMA3 = PreTokenizer([BYTE_LEVEL]), PreTokenizer(_split(LLAMA3_SPLIT), None, True, True)
PRE_TOKENIZERS = {  # by tokenizer.ggml.pre; "default" for old files without the key
    "default": GPT2,
    "gpt-2": GPT2,
    "smollm": PreTokenizer([DIGITS, BYTE_LEVEL]),
    "llama-bpe": LLAMA3,
    "llama3": LLAMA3,
    "llama-v3": LLAMA3,
    "qwen2": PreTokenizer(_split(QWEN2_SPLIT), {"type": "NFC"}),
}


class Vocabulary(NamedTuple):
    """The tokens of a GGUF file."""

    tokens: list[str]  # by id
    types: list[int]  # tokenizer.ggml.token_type; all 1 when the file has none
    roles: dict[str, int]  # such as "eos" -> id


def from_gguf(metadata: dict[str, Any], where: str) -> TokenizerFiles:
    """Tokenizer files made from GGUF metadata. Raises RiyazError for an unsupported kind and for invalid values."""
    kind = metadata.get("tokenizer.ggml.model")
    if kind not in KINDS:
        supported = "only 'gpt2' (byte-level BPE) and 'llama' (SentencePiece)"
        what = f"tokenizer kind {one_line(kind)} is not supported, {supported}"
        what = "the file holds no tokenizer (tokenizer.ggml.model)" if kind is None else what
        raise RiyazError(what, where, HINT)
    template = metadata.get("tokenizer.chat_template")
    if not isinstance(template, str | None):
        raise RiyazError("tokenizer.chat_template is not a string", where)
    vocabulary = _vocabulary(metadata, where)
    parts, begins = (_byte_level if kind == "gpt2" else _sentencepiece)(metadata, vocabulary, where)
    tokens, types, roles = vocabulary
    settings: dict[str, Any] = {GGUF_NAMES[name]: tokens[roles[name]] for name in roles if name in GGUF_NAMES}
    settings |= {"clean_up_tokenization_spaces": False, "tokenizer_class": "PreTrainedTokenizerFast"}
    context: Any = metadata.get(f"{metadata.get('general.architecture')}.context_length")
    if _is_integer(context):
        settings["model_max_length"] = int(context)
    definition = {
        "version": "1.0",
        "added_tokens": [
            {"id": number, "content": tokens[number], "special": type_ != USER_DEFINED, **NO_FLAGS}
            for number, type_ in enumerate(types)
            if type_ in (UNKNOWN, CONTROL, USER_DEFINED)
        ],
        "post_processor": _post_processor(metadata, vocabulary, begins, where),
        **parts,
    }
    eos_ids = [roles[name] for name in ENDS if name in roles]
    return TokenizerFiles(definition, settings, template, eos_ids)


def _byte_level(metadata: dict[str, Any], vocabulary: Vocabulary, where: str) -> tuple[dict, bool]:
    """Byte-level BPE: (parts of tokenizer.json, whether texts begin with BOS by default). Raises RiyazError."""
    name = metadata.get("tokenizer.ggml.pre", "default")
    if not isinstance(name, str) or name not in PRE_TOKENIZERS:
        supported = ", ".join(PRE_TOKENIZERS)
        raise RiyazError(f"pre-tokenizer {one_line(name)} is not supported, only {supported}", where, HINT)
    pre = PRE_TOKENIZERS[name]
    merges = _pairs(metadata, where)
    if any(len(pair) != 2 for pair in merges):
        raise RiyazError("tokenizer.ggml.merges are not pairs, so this is not a tokenizer", where)
    model = _model(vocabulary, merges, whole_words=pre.whole_words)
    steps = {"type": "Sequence", "pretokenizers": pre.steps}
    parts = {"normalizer": pre.normalizer, "pre_tokenizer": steps, "decoder": BYTE_LEVEL, "model": model}
    return parts, pre.begins_with_bos


def _sentencepiece(metadata: dict[str, Any], vocabulary: Vocabulary, where: str) -> tuple[dict, bool]:
    """SentencePiece's BPE: (parts of tokenizer.json, True: texts begin with BOS by default). Raises RiyazError.

    Spaces become ▁ and characters outside the vocabulary become bytes. A space is put before each text, and after each
    control token, unless `add_space_prefix` is false.
    """
    if "tokenizer.ggml.merges" in metadata:
        merges = _pairs(metadata, where)
    else:
        merges = _merges(vocabulary, _ranks(metadata, len(vocabulary.tokens), where))
    normalizer: dict = {"type": "Replace", "pattern": {"String": " "}, "content": SPACE}
    decoders: list[dict] = [{"type": "Replace", "pattern": {"String": SPACE}, "content": " "}]
    decoders += [{"type": "ByteFallback"}, {"type": "Fuse"}]
    if _flag(metadata, "add_space_prefix", True, where):
        steps = [{"type": "Prepend", "prepend": SPACE}, normalizer]
        normalizer = {"type": "Sequence", "normalizers": steps}
        decoders.append({"type": "Strip", "content": " ", "start": 1, "stop": 0})
    tokens, types, roles = vocabulary
    unknown = roles.get("unknown", types.index(UNKNOWN) if UNKNOWN in types else None)
    model = _model(vocabulary, merges) | {"byte_fallback": True, "fuse_unk": True}
    model["unk_token"] = None if unknown is None else tokens[unknown]
    decoder = {"type": "Sequence", "decoders": decoders}
    return {"normalizer": normalizer, "pre_tokenizer": None, "decoder": decoder, "model": model}, True


def _pairs(metadata: dict[str, Any], where: str) -> list[tuple[str, ...]]:
    """The merges that the file lists."""
    return [tuple(merge.split(" ")) for merge in _listed(metadata, "merges", (str,), where)]


def _model(vocabulary: Vocabulary, merges: Sequence[tuple[str, ...]], whole_words: bool = False) -> dict:
    ids = {token: number for number, token in enumerate(vocabulary.tokens)}
    return {"type": "BPE", "ignore_merges": whole_words, "vocab": ids, "merges": merges}


def _ranks(metadata: dict[str, Any], count: int, where: str) -> list[float]:
    """A rank per piece, the highest merged first: its score, or minus its id for RANKED_BY_ID. Raises RiyazError."""
    if metadata.get("general.architecture") in RANKED_BY_ID:
        return [-float(number) for number in range(count)]
    scores = _listed(metadata, "scores", (int, float), where)
    if len(scores) != count or not all(map(math.isfinite, scores)):
        raise RiyazError(f"tokenizer.ggml.scores are not {count} finite numbers, one per token", where)
    return scores


def _merges(vocabulary: Vocabulary, ranks: list[float]) -> list[tuple[str, ...]]:
    """Every pair of pieces that join to a piece, highest rank first; for one piece the longest left part first."""
    pieces = {
        token: number
        for number, (token, type_) in enumerate(zip(vocabulary.tokens, vocabulary.types, strict=True))
        if type_ not in (UNKNOWN, CONTROL, BYTE)  # these never result from merging text
    }
    joins = []
    for token, number in pieces.items():
        for cut in range(1, len(token)):
            left, right = token[:cut], token[cut:]
            if left in pieces and right in pieces:
                joins.append((-ranks[number], -cut, cut - len(token), number, left, right))
    return [(left, right) for *_, left, right in sorted(joins)]


def _vocabulary(metadata: dict[str, Any], where: str) -> Vocabulary:
    """The checked vocabulary. Raises RiyazError for duplicate or too long tokens and for roles without a token."""
    tokens = _listed(metadata, "tokens", (str,), where)
    types = _listed(metadata, "token_type", (int,), where)
    if not tokens or len(types) not in (0, len(tokens)):
        raise RiyazError("tokenizer.ggml.tokens are missing or not as many as token_type", where)
    if max(map(len, tokens)) > MAX_PIECE:
        number = next(number for number, token in enumerate(tokens) if len(token) > MAX_PIECE)
        raise RiyazError(f"token {number} has {len(tokens[number])} characters, the limit is {MAX_PIECE}", where)
    if metadata["tokenizer.ggml.model"] == "llama":
        listed = set(tokens)  # llama.cpp's converter writes runs of ▁ as spaces
        tokens = [_with_marks(token) if _with_marks(token) not in listed else token for token in tokens]
    if len(set(tokens)) != len(tokens):
        raise RiyazError("tokenizer.ggml.tokens has a duplicate token", where)
    roles: dict[str, int] = {}
    for name in dict.fromkeys([*GGUF_NAMES, *ENDS]):
        token_id: Any = metadata.get(f"tokenizer.ggml.{name}_token_id")
        if token_id is None:
            continue
        if not _is_integer(token_id) or not 0 <= int(token_id) < len(tokens):
            raise RiyazError(f"{name}_token_id {one_line(token_id)} is outside the {len(tokens)} tokens", where)
        roles[name] = int(token_id)
    return Vocabulary(tokens, types or [1] * len(tokens), roles)


def _with_marks(token: str) -> str:
    """A token of spaces only as the same number of ▁; other tokens unchanged."""
    return SPACE * len(token) if token and not token.strip(" ") else token


def _listed(metadata: dict[str, Any], name: str, kinds: tuple[type, ...], where: str) -> list[Any]:
    """A list in the metadata, [] when missing. Raises RiyazError when an element is of another type."""
    values = metadata.get(f"tokenizer.ggml.{name}", [])
    values = values.tolist() if hasattr(values, "tolist") else values
    if not isinstance(values, list) or not {*map(type, values)} <= {*kinds}:
        raise RiyazError(f"tokenizer.ggml.{name} is not a list of {' or '.join(t.__name__ for t in kinds)}", where)
    return values


def _is_integer(value: Any) -> bool:
    """Whether a metadata value is an integer, Python's or numpy's."""
    return hasattr(value, "__index__") and not isinstance(value, bool)


def _flag(metadata: dict[str, Any], name: str, default: bool, where: str) -> bool:
    """A boolean in the metadata, Python's or numpy's. Raises RiyazError for any other type, such as "false"."""
    value = metadata.get(f"tokenizer.ggml.{name}", default)
    value = value.tolist() if hasattr(value, "tolist") else value
    if not isinstance(value, bool):
        raise RiyazError(f"tokenizer.ggml.{name} is {one_line(value)}, neither true nor false", where, HINT)
    return value


def _post_processor(metadata: dict[str, Any], vocabulary: Vocabulary, begins: bool, where: str) -> dict | None:
    """The post-processor that puts BOS before and EOS after a text if the file asks for it; None for neither.

    `begins` is the default of add_bos_token. Raises RiyazError.
    """
    _, _, roles = vocabulary
    wanted = {"bos": _flag(metadata, "add_bos_token", begins, where)}
    wanted["eos"] = _flag(metadata, "add_eos_token", False, where)
    tokens = {name: vocabulary.tokens[roles[name]] for name in wanted if wanted[name] and name in roles}
    if not tokens:
        return None

    def around(*texts: str) -> list[dict]:
        """The template's entries for these texts, each with its BOS and EOS."""
        parts: list[dict] = []
        for number, text in enumerate(texts):
            parts += [{"SpecialToken": {"id": tokens["bos"], "type_id": number}}] if "bos" in tokens else []
            parts += [{"Sequence": {"id": text, "type_id": number}}]
            parts += [{"SpecialToken": {"id": tokens["eos"], "type_id": number}}] if "eos" in tokens else []
        return parts

    special = {token: {"id": token, "ids": [roles[name]], "tokens": [token]} for name, token in tokens.items()}
    return {"type": "TemplateProcessing", "single": around("A"), "pair": around("A", "B"), "special_tokens": special}
