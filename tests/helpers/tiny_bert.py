"""A tiny seeded BERT embedder on disk, made as `tiny_llama` makes llamas: numpy only, the same bytes each time."""

import hashlib
import json
from pathlib import Path

import numpy as np
import tiny_llama

from riyaz.families import bert

WORDS = ["the", "card", "payment", "was", "declined", "where", "is", "my", "refund", "bike", "##s", "##ed", "##ing"]
SPECIALS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
CONFIG = {
    "architectures": ["BertModel"],
    "hidden_act": "gelu",
    "hidden_size": 64,
    "intermediate_size": 128,
    "layer_norm_eps": 1e-12,
    "max_position_embeddings": 320,
    "model_type": "bert",
    "num_attention_heads": 4,
    "num_hidden_layers": 2,
    "pad_token_id": 0,
    "position_embedding_type": "absolute",
    "type_vocab_size": 2,
    "vocab_size": 111,
}


def vocabulary() -> list[str]:
    """The tokens: specials, words, and every printable ASCII character at a word's start and inside it."""
    letters = [chr(code) for code in range(33, 127) if not chr(code).isupper()]
    inside = [f"##{letter}" for letter in letters if letter.isalpha()]
    return list(dict.fromkeys([*SPECIALS, *WORDS, *letters, *inside]))


def weights(seed: int = 0) -> dict[str, np.ndarray]:
    """Seeded float32 weights under Hugging Face names, and the tensors of a checkpoint that are not read."""
    generator = np.random.default_rng(seed)
    arrays = {}
    for name, shape in bert.layer_plan(bert.from_hf(CONFIG)).items():
        noise = generator.standard_normal(shape).astype(np.float32)
        if "LayerNorm" in name:
            arrays[name] = np.float32(name.endswith("weight")) + 0.1 * noise
        else:
            arrays[name] = noise * np.float32(0.1 if len(shape) == 1 else shape[-1] ** -0.5)
    width = CONFIG["hidden_size"]
    return arrays | {
        "pooler.dense.weight": np.zeros((width, width), np.float32),
        "pooler.dense.bias": np.zeros(width, np.float32),
    }


def write_folder(path: Path, seed: int = 0, **settings: object) -> Path:
    """A whole folder of the embedder; returns it. `settings` replace those of config.json."""
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors

    path = Path(path)
    (path / "1_Pooling").mkdir(parents=True)
    ids = {token: number for number, token in enumerate(vocabulary())}
    tokenizer = Tokenizer(models.WordPiece(ids, unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer()
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.post_processor = processors.BertProcessing(("[SEP]", ids["[SEP]"]), ("[CLS]", ids["[CLS]"]))
    tokenizer.add_special_tokens(SPECIALS)
    tokenizer.enable_truncation(8)  # as in the real file, which cuts and pads at 128
    tokenizer.enable_padding(length=8)
    tokenizer.save(str(path / "tokenizer.json"))
    files = {
        "config.json": CONFIG | settings,
        "tokenizer_config.json": {"tokenizer_class": "BertTokenizer", "cls_token": "[CLS]", "sep_token": "[SEP]"},
        "sentence_bert_config.json": {"max_seq_length": 256, "do_lower_case": False},
        "1_Pooling/config.json": {"pooling_mode_cls_token": False, "pooling_mode_mean_tokens": True},
    }
    for name, value in files.items():
        (path / name).write_text(json.dumps(value, indent=2), encoding="utf-8")
    tiny_llama.write_safetensors(path / "model.safetensors", weights(seed))
    return path


def keep(home: Path, name: str = "minilm") -> None:
    """The embedder in the store `home` under a name, as if it had been pulled."""
    folder = write_folder(home / "models" / name)
    entry = {"format": "hf", "origin": "a test", "licence": "none", "file": ".", "nbytes": 0}
    entry["sha256"] = hashlib.sha256((folder / "model.safetensors").read_bytes()).hexdigest()
    (folder / "entry.json").write_text(json.dumps(entry))
