"""Four kinds of tokenizer folder, small and built in the test, and what people write into a chat."""

import json
import tempfile
from functools import cache
from pathlib import Path

import tiny_llama
from tokenizers import AddedToken, Regex, decoders, models, normalizers, pre_tokenizers, processors, trainers
from tokenizers import Tokenizer as Backend

from riyaz.text.tokenizer import Row, Tokenizer
from riyaz.text.tokenizer_gguf import LLAMA3_SPLIT

TEXTS = [
    "",
    "the quick brown fox",
    " leading and trailing  ",
    "\n\nlines\r\n\tand tabs\n",
    "naïve café, Ångström; e\u0301 \u212b",
    "日本語のテキスト 한국어 العربية ١٢٣ हिन्दी ไทย",
    "🙂👩‍👩‍👧 𝔘𝔫𝔦𝔠𝔬𝔡𝔢 \U0001f9ff",
    "def f(x):\n    return {'a': x ** 2}  # 12345 6.78e-9\n",
    "<b>a < b && c > d | e</b> <|> |> <| <s",
    "I'll we've DON'T 1234567",
    "\x00\x07\x7f\u200b\u2028 \ufffd",
    "_▁ ▁▁x",
]
MESSAGES = [
    [{"role": "user", "content": "Hello"}],
    *([{"role": "system", "content": "Be brief."}, {"role": "user", "content": text}] for text in TEXTS),
    [
        {"role": "user", "content": "one"},
        {"role": "assistant", "content": "two two"},
        {"role": "user", "content": "3"},
    ],
]
LLAMA3_TEMPLATE = (
    "{% for m in messages %}{% if loop.first %}{{ bos_token }}{% endif %}"
    "{{ '<|start_header_id|>' + m['role'] + '<|end_header_id|>\n\n' + m['content'] | trim + '<|eot_id|>' }}"
    "{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|start_header_id|>assistant<|end_header_id|>\n\n' }}{% endif %}"
)
LLAMA2_TEMPLATE = (
    "{% for m in messages %}{% if m['role'] == 'assistant' %}{{ ' ' + m['content'] + ' ' + eos_token }}"
    "{% else %}{{ bos_token + '[INST] ' + m['content'] + ' [/INST]' }}{% endif %}{% endfor %}"
)
ZEPHYR_TEMPLATE = (
    "{% for m in messages %}{{ '<|' + m['role'] + '|>\n' + m['content'] + eos_token + '\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|assistant|>\n' }}{% endif %}"
)
SPECIAL_LLAMA3 = [
    "<|begin_of_text|>",
    "<|end_of_text|>",
    "<|start_header_id|>",
    "<|end_header_id|>",
    "<|eot_id|>",
]


def special(tokens: list[str], **flags: bool) -> list[AddedToken]:
    return [AddedToken(token, special=True, normalized=False, **flags) for token in tokens]


def write(folder: Path, backend: Backend, config: dict, template: str | None, **generation: object) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    config = {"tokenizer_class": "PreTrainedTokenizerFast", "clean_up_tokenization_spaces": False, **config}
    backend.save(str(folder / "tokenizer.json"))
    (folder / "tokenizer_config.json").write_text(json.dumps(config))
    if template is not None:
        (folder / "chat_template.jinja").write_text(template)
    if generation:
        (folder / "generation_config.json").write_text(json.dumps(generation))
    return folder


def smollm(folder: Path) -> Path:
    return tiny_llama.write_tokenizer(folder)


def llama3(folder: Path) -> Path:
    """Control tokens behind the vocabulary, whole words first, BOS by the post-processor, several end ids."""
    backend = Backend(models.BPE(ignore_merges=True))
    split = pre_tokenizers.Split(Regex(LLAMA3_SPLIT), behavior="isolated")
    backend.pre_tokenizer = pre_tokenizers.Sequence(
        [split, pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)]
    )
    backend.decoder = decoders.ByteLevel()
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    backend.train_from_iterator(
        tiny_llama.CORPUS.splitlines(),
        trainers.BpeTrainer(vocab_size=400, initial_alphabet=alphabet, show_progress=False),
    )
    backend.add_special_tokens(special(SPECIAL_LLAMA3))
    bos = backend.token_to_id(SPECIAL_LLAMA3[0])
    backend.post_processor = processors.TemplateProcessing(
        single=f"{SPECIAL_LLAMA3[0]} $A", special_tokens=[(SPECIAL_LLAMA3[0], bos)]
    )
    config = {"bos_token": SPECIAL_LLAMA3[0], "eos_token": {"content": "<|eot_id|>", "__type": "AddedToken"}}
    return write(folder, backend, config, LLAMA3_TEMPLATE, eos_token_id=[bos + 1, bos + 4])


def sentencepiece(folder: Path, template: str = LLAMA2_TEMPLATE) -> Path:
    """The older way of Llama 2: a normalizer puts the word mark, bytes where a character is unknown."""
    tokens = ["<unk>", "<s>", "</s>"]
    backend = Backend(models.BPE(unk_token="<unk>", byte_fallback=True, fuse_unk=True))
    backend.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    bytes_ = [f"<0x{byte:02X}>" for byte in range(256)]
    trainer = trainers.BpeTrainer(
        vocab_size=600, special_tokens=[*special(tokens), *bytes_], show_progress=False, max_token_length=12
    )
    backend.train_from_iterator(tiny_llama.CORPUS.splitlines(), trainer)
    plain = json.loads(backend.to_str())
    plain["added_tokens"] = plain["added_tokens"][:3]
    backend = Backend.from_str(json.dumps(plain))
    steps = [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    backend.decoder = decoders.Sequence(steps)
    config = {"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>"}
    return write(folder, backend, config, template)


def metaspace(folder: Path) -> Path:
    """A prefix space at the first piece only; one turn token not flagged special, two that eat spaces."""
    backend = Backend(models.Unigram())
    backend.normalizer = normalizers.NFKC()
    backend.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="first")
    backend.decoder = decoders.Metaspace(prepend_scheme="first")
    trainer = trainers.UnigramTrainer(
        vocab_size=200,
        special_tokens=special(["<unk>", "<s>", "</s>"]),
        unk_token="<unk>",
        show_progress=False,
    )
    backend.train_from_iterator(tiny_llama.CORPUS.splitlines(), trainer)
    backend.add_special_tokens(special(["<|user|>", "<|system|>"], rstrip=True))
    backend.add_tokens([AddedToken("<|assistant|>", normalized=False), AddedToken("  ", normalized=False)])
    config = {"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>"}
    return write(folder, backend, config, ZEPHYR_TEMPLATE)


KINDS = {kind.__name__: kind for kind in (smollm, llama3, sentencepiece, metaspace)}


@cache
def pair(kind: str):
    """Our tokenizer and transformers' on one folder."""
    from transformers import AutoTokenizer

    with tempfile.TemporaryDirectory() as folder:
        KINDS[kind](Path(folder))
        return Tokenizer.from_folder(folder), AutoTokenizer.from_pretrained(folder)


def user(text: str) -> list[dict[str, str]]:
    return [{"role": "user", "content": text}]


def row_of(tokenizer: Tokenizer, messages: list[dict[str, str]], answer: str) -> Row:
    """The training row of one conversation and its answer."""
    return tokenizer.rows([(messages, answer)])[0]


def full_ids(tokenizer: Tokenizer, messages: list[dict[str, str]], answer: str) -> list[int]:
    """Ids of the conversation with the answer as the assistant's turn, as the template writes it."""
    return tokenizer.render([[*messages, {"role": "assistant", "content": answer}]], add_generation_prompt=False)[0]


def control(kind: str, ids: list[int]) -> list[str]:
    """The template's own tokens among the ids, by transformers' list of them."""
    _, theirs = pair(kind)
    tokens = theirs.get_added_vocab().keys() - {"<unk>", "  "}  # unknown characters; an ordinary added token
    return [token for token in theirs.convert_ids_to_tokens(ids) if token in tokens]
