"""Tiny seeded llama models on disk for every test: numpy only, no torch, equal bytes for equal arguments.

`write_hf_folder(path)` writes what a Hugging Face folder holds; `write_gguf(path)` writes the same
weights and tokenizer through the `gguf` package, q and k rows in llama.cpp's order.
`Tiny(...)` names the sizes.
"""

import json
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np

SPECIALS = ("<|endoftext|>", "<|im_start|>", "<|im_end|>")  # ids 0, 1, 2 as in SmolLM2
SYSTEM = "You are a helpful assistant"
CHAT_TEMPLATE = (
    "{% for message in messages %}"
    "{% if loop.first and messages[0]['role'] != 'system' %}"
    "{{ '<|im_start|>system\n" + SYSTEM + "<|im_end|>\n' }}{% endif %}"
    "{{ '<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>' + '\n' }}"
    "{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
CORPUS = (
    f"""
{SYSTEM}. system user assistant. Classify the text. Answer with one label. Answer the question in a few words.
the card payment was declined and the transfer is pending; where is my refund, when does the order arrive?
please help me to change the address on my account, I cannot log in with the password that you sent.
what is the weather like in the city tomorrow? play some music, set an alarm, add this to the shopping list.
the quick brown fox jumps over the lazy dog, and then the other one returns to the place it came from.
billing delivery refund account login weather music reservation question answer label text example
language models read, predict the next word, are corrected, and repeat; practice makes them better each day.
"""
    * 3
)


@dataclass(frozen=True)
class Tiny:
    """Sizes of a tiny llama; `hidden` and `intermediate` are multiples of 32 so that every GGUF type fits."""

    seed: int = 0
    layers: int = 2
    hidden: int = 64
    heads: int = 4
    kv_heads: int = 2
    intermediate: int = 128
    vocab: int = 512
    context: int = 1024
    rope_theta: float = 10000.0
    rms_norm_eps: float = 1e-5
    tie: bool = True
    attention_bias: bool = False

    @property
    def head_dim(self) -> int:
        return self.hidden // self.heads


def plan(tiny: Tiny) -> dict[str, tuple[int, ...]]:
    """Hugging Face tensor names and shapes of the model."""
    c, kv, f = tiny.hidden, tiny.kv_heads * tiny.head_dim, tiny.intermediate
    shapes: dict[str, tuple[int, ...]] = {"model.embed_tokens.weight": (tiny.vocab, c)}
    for layer in range(tiny.layers):
        base = f"model.layers.{layer}."
        shapes[base + "input_layernorm.weight"] = (c,)
        for part, rows in (("q", c), ("k", kv), ("v", kv), ("o", c)):
            shapes[base + f"self_attn.{part}_proj.weight"] = (rows, c)
            if tiny.attention_bias:
                shapes[base + f"self_attn.{part}_proj.bias"] = (rows,)
        shapes[base + "post_attention_layernorm.weight"] = (c,)
        shapes[base + "mlp.gate_proj.weight"] = (f, c)
        shapes[base + "mlp.up_proj.weight"] = (f, c)
        shapes[base + "mlp.down_proj.weight"] = (c, f)
    shapes["model.norm.weight"] = (c,)
    if not tiny.tie:
        shapes["lm_head.weight"] = (tiny.vocab, c)
    return shapes


def weights(tiny: Tiny) -> dict[str, np.ndarray]:
    """Seeded float32 weights under Hugging Face names; logits have a spread of about one."""
    generator = np.random.default_rng(tiny.seed)
    arrays = {}
    for name, shape in plan(tiny).items():
        noise = generator.standard_normal(shape).astype(np.float32)
        if "norm" in name:
            arrays[name] = 1 + 0.1 * noise
        else:
            arrays[name] = noise * np.float32(0.1 if len(shape) == 1 else shape[-1] ** -0.5)
    return arrays


def config(tiny: Tiny) -> dict:
    """`config.json` as a SmolLM2 folder has it."""
    return {
        "architectures": ["LlamaForCausalLM"],
        "attention_bias": tiny.attention_bias,
        "attention_dropout": 0.0,
        "bos_token_id": 1,
        "eos_token_id": 2,
        "head_dim": tiny.head_dim,
        "hidden_act": "silu",
        "hidden_size": tiny.hidden,
        "initializer_range": 0.02,
        "intermediate_size": tiny.intermediate,
        "max_position_embeddings": tiny.context,
        "mlp_bias": False,
        "model_type": "llama",
        "num_attention_heads": tiny.heads,
        "num_hidden_layers": tiny.layers,
        "num_key_value_heads": tiny.kv_heads,
        "pad_token_id": 2,
        "rms_norm_eps": tiny.rms_norm_eps,
        "rope_scaling": None,
        "rope_theta": tiny.rope_theta,
        "tie_word_embeddings": tiny.tie,
        "torch_dtype": "float32",
        "use_cache": True,
        "vocab_size": tiny.vocab,
    }


@cache
def tokenizer_json(vocab: int) -> str:
    """A byte-level BPE of `vocab` tokens, trained on CORPUS, in the `tokenizer.json` format."""
    from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, trainers

    tokenizer = Tokenizer(models.BPE())
    byte_level = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True)
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.Digits(True), byte_level])
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab,
        show_progress=False,
        special_tokens=[AddedToken(token, special=True, normalized=False) for token in SPECIALS],
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
    )
    tokenizer.train_from_iterator(CORPUS.splitlines(), trainer)
    assert tokenizer.get_vocab_size() == vocab, f"CORPUS gives only {tokenizer.get_vocab_size()} tokens"
    return tokenizer.to_str(pretty=True)


def bfloat16(array: np.ndarray) -> np.ndarray:
    """The bits of float32 values rounded to bfloat16 (nearest even), as uint16."""
    bits = np.ascontiguousarray(array, np.float32).view(np.uint32).astype(np.uint64)
    return ((bits + 0x7FFF + ((bits >> 16) & 1)) >> 16).astype(np.uint16)


def write_tokenizer(path: Path, vocab: int = 512) -> Path:
    """The tokenizer files of a model folder."""
    path = Path(path)
    path.mkdir(parents=True, exist_ok=True)
    settings = {
        "add_prefix_space": False,
        "additional_special_tokens": ["<|im_start|>", "<|im_end|>"],
        "bos_token": "<|im_start|>",
        "clean_up_tokenization_spaces": False,
        "eos_token": "<|im_end|>",
        "model_max_length": 1024,
        "pad_token": "<|im_end|>",
        "tokenizer_class": "PreTrainedTokenizerFast",
        "unk_token": "<|endoftext|>",
    }
    (path / "tokenizer.json").write_text(tokenizer_json(vocab), encoding="utf-8")
    (path / "tokenizer_config.json").write_text(json.dumps(settings, indent=2), encoding="utf-8")
    (path / "chat_template.jinja").write_text(CHAT_TEMPLATE, encoding="utf-8")
    return path


def write_safetensors(path: Path, arrays: dict[str, np.ndarray], dtype: str = "F32") -> None:
    """The arrays in one safetensors file, written out by hand; `dtype` F32, F16 or BF16."""
    convert = {"F32": np.float32, "F16": np.float16}
    header: dict[str, object] = {"__metadata__": {"format": "pt"}}
    chunks, end = [], 0
    for name, array in arrays.items():
        data = (bfloat16(array) if dtype == "BF16" else array.astype(convert[dtype])).tobytes()
        offsets = [end, end + len(data)]
        header[name] = {"dtype": dtype, "shape": list(array.shape), "data_offsets": offsets}
        chunks.append(data)
        end += len(data)
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    Path(path).write_bytes(len(text).to_bytes(8, "little") + text + b"".join(chunks))


def write_hf_folder(
    path: Path, seed: int = 0, layers: int = 2, hidden: int = 64, *, dtype: str = "F32", **sizes
) -> Path:
    """A whole Hugging Face folder of a tiny llama; returns it. `sizes`: the other fields of Tiny."""
    tiny = Tiny(seed=seed, layers=layers, hidden=hidden, **sizes)
    path = write_tokenizer(Path(path), tiny.vocab)
    settings = {**config(tiny), "torch_dtype": {"F16": "float16", "BF16": "bfloat16"}.get(dtype, "float32")}
    generation = {"bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 2}
    (path / "config.json").write_text(json.dumps(settings, indent=2), encoding="utf-8")
    (path / "generation_config.json").write_text(json.dumps(generation, indent=2), encoding="utf-8")
    write_safetensors(path / "model.safetensors", weights(tiny), dtype)
    return path


def shard(folder: Path, **index: object) -> Path:
    """Splits a folder's default weights into two files; `index` replaces entries of the weight_map."""
    arrays = weights(Tiny())
    names = list(arrays)
    parts = {"model-1-of-2.safetensors": names[:5], "model-2-of-2.safetensors": names[5:]}
    for file, members in parts.items():
        write_safetensors(folder / file, {name: arrays[name] for name in members})
    mapping = {name: file for file, members in parts.items() for name in members}
    (folder / "model.safetensors").unlink()
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": {**mapping, **index}}))
    return folder


def gguf_name(name: str) -> str:
    """The llama.cpp name of a Hugging Face llama tensor."""
    whole = {"model.embed_tokens": "token_embd", "model.norm": "output_norm", "lm_head": "output"}
    parts = {
        "input_layernorm": "attn_norm",
        "post_attention_layernorm": "ffn_norm",
        "self_attn.q_proj": "attn_q",
        "self_attn.k_proj": "attn_k",
        "self_attn.v_proj": "attn_v",
        "self_attn.o_proj": "attn_output",
        "mlp.gate_proj": "ffn_gate",
        "mlp.up_proj": "ffn_up",
        "mlp.down_proj": "ffn_down",
    }
    stem, kind = name.rsplit(".", 1)
    if stem in whole:
        return f"{whole[stem]}.{kind}"
    _, _, layer, part = stem.split(".", 3)
    return f"blk.{layer}.{parts[part]}.{kind}"


def permute(array: np.ndarray, heads: int) -> np.ndarray:
    """Rows of q or k in llama.cpp's order: the two halves of each head interleaved."""
    rows, *rest = array.shape
    halves = array.reshape(heads, 2, rows // heads // 2, *rest)
    return np.ascontiguousarray(halves.swapaxes(1, 2)).reshape(array.shape)


def _add_tokenizer(writer, vocab: int) -> None:
    from gguf import TokenType

    model = json.loads(tokenizer_json(vocab))["model"]
    tokens = sorted(model["vocab"], key=model["vocab"].__getitem__)
    merges = [merge if isinstance(merge, str) else " ".join(merge) for merge in model["merges"]]
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("smollm")
    writer.add_token_list(tokens)
    writer.add_token_types([TokenType.CONTROL if t in SPECIALS else TokenType.NORMAL for t in tokens])
    writer.add_token_merges(merges)
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(2)
    writer.add_unk_token_id(0)
    writer.add_pad_token_id(2)
    writer.add_add_space_prefix(False)
    writer.add_add_bos_token(False)
    writer.add_chat_template(CHAT_TEMPLATE)


def write_gguf(path: Path, seed: int = 0, layers: int = 2, hidden: int = 64, *, dtype: str = "F32", **sizes) -> Path:
    """The same model as one GGUF file; returns it. `dtype`: F32, F16, BF16, Q8_0, Q4_0 or Q4_1 (vectors stay
    F32, and the embedding of a Q4 file is Q8_0, as llama.cpp makes them)."""
    from gguf import GGMLQuantizationType, GGUFWriter
    from gguf.quants import quantize

    path, tiny = Path(path), Tiny(seed=seed, layers=layers, hidden=hidden, **sizes)
    path.parent.mkdir(parents=True, exist_ok=True)
    writer = GGUFWriter(str(path), "llama")
    writer.add_name("tiny")
    writer.add_block_count(tiny.layers)
    writer.add_context_length(tiny.context)
    writer.add_embedding_length(tiny.hidden)
    writer.add_feed_forward_length(tiny.intermediate)
    writer.add_head_count(tiny.heads)
    writer.add_head_count_kv(tiny.kv_heads)
    writer.add_rope_freq_base(tiny.rope_theta)
    writer.add_layer_norm_rms_eps(tiny.rms_norm_eps)
    writer.add_vocab_size(tiny.vocab)
    writer.add_rope_dimension_count(tiny.head_dim)
    _add_tokenizer(writer, tiny.vocab)
    for name, array in weights(tiny).items():
        if ".q_proj." in name or ".k_proj." in name:
            array = permute(array, tiny.heads if ".q_proj." in name else tiny.kv_heads)
        kind = "F32" if array.ndim == 1 else dtype
        if kind.startswith("Q4") and name in ("model.embed_tokens.weight", "lm_head.weight"):
            kind = "Q8_0"
        quantization = GGMLQuantizationType[kind]
        writer.add_tensor(gguf_name(name), quantize(array, quantization), raw_dtype=quantization)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path
