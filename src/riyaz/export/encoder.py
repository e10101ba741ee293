"""Export of a fine-tuned sentence encoder and the vectors of its labels: a folder that transformers and
sentence-transformers load, and code that gives the same labels."""

from pathlib import Path

import numpy as np

from riyaz import __version__
from riyaz.artifact import Artifact
from riyaz.classifiers.encoder import EncoderClassifier
from riyaz.export.check import SAMPLES, ExportResult, checked_export
from riyaz.files import write_text
from riyaz.json_files import write_json
from riyaz.sources import open_source, safetensors

LABELS, WEIGHTS = "labels.json", "labels.safetensors"
# the modules of sentence-transformers and their folders
MODULES = {"Transformer": "", "Pooling": "1_Pooling", "Normalize": "2_Normalize"}
CODE = """\
import json

import torch
from safetensors.torch import load_file
from transformers import AutoModel, AutoTokenizer

folder = "{folder}"
tokenizer = AutoTokenizer.from_pretrained(folder)
model = AutoModel.from_pretrained(folder, dtype=torch.float32).eval()
with open(folder + "/labels.json", encoding="utf-8") as file:
    labels = json.load(file)
weights = load_file(folder + "/labels.safetensors")["weights"]  # (labels, width)


def vectors(texts):
    batch = tokenizer(texts, padding=True, truncation=True, max_length={window}, return_tensors="pt")
    with torch.no_grad():
        hidden = model(**batch).last_hidden_state  # (texts, tokens, width)
    mask = batch["attention_mask"][..., None]
    return torch.nn.functional.normalize((hidden * mask).sum(1) / mask.sum(1), dim=1)


texts = ["your text"]
for text, row in zip(texts, (vectors(texts) @ weights.T).softmax(1)):
    print(labels[row.argmax()], round(row.max().item(), 4))
"""
SENTENCE_TRANSFORMERS = """\
from sentence_transformers import SentenceTransformer

vectors = SentenceTransformer("{folder}").encode(["your text"], normalize_embeddings=True)
"""


def write(
    artifact: Path, document: Artifact, work: Path, out: Path, dtype: str | None, card: str | None
) -> ExportResult:
    """Write the encoder of an artifact in `dtype`, by default float32, and its labels into `work`, which becomes the
    folder `out`. README.md begins with `card` where there is one. Raises RiyazError unless the folder, opened again,
    gives the artifact's answers."""
    import torch

    from riyaz import models
    from riyaz.engine.opening import open_embedder

    assert document.task is not None
    dtype, labels, source = dtype or "float32", document.task.labels, open_source(artifact)
    classifier = EncoderClassifier.read(artifact, len(labels))
    weights = (classifier.prototypes / np.float32(classifier.document.temperature)).astype(np.float32)
    models.save_embedder(models.load_embedder(source, getattr(torch, dtype)), source, work)
    write_json(work / LABELS, list(labels), ascii=True)
    safetensors.write(work / WEIGHTS, {"weights": weights}, {"format": "pt"})
    embedder = open_embedder(str(work))
    _write_modules(work, embedder.dim)
    parts = [card.rstrip(), "## This folder"] if card else [f"# {out.resolve().name}"]
    parts += [
        f"A sentence encoder for transformers, trained whole on {len(labels)} labels, written by riyaz {__version__}.",
        "A label's probability is the softmax, over all labels, of the product of the text's vector and the label's row"
        f" of `{WEIGHTS}`, which holds the temperature too.",
        "## Use", _block(CODE.format(folder=out.as_posix(), window=embedder.window + 2)),
        "The same vectors with sentence-transformers:", _block(SENTENCE_TRANSFORMERS.format(folder=out.as_posix())),
    ]  # fmt: skip
    write_text(work / "README.md", "\n\n".join(parts) + "\n")
    ours = torch.from_numpy(classifier.vectors(SAMPLES) @ weights.T)
    return checked_export(ours, torch.from_numpy(embedder.embed(SAMPLES) @ weights.T), work, "hf", dtype)


def _write_modules(work: Path, dim: int) -> None:
    """What sentence-transformers reads beside the model: that a vector is the mean, scaled to length one."""
    modules = [
        {"idx": i, "name": str(i), "path": path, "type": f"sentence_transformers.models.{kind}"}
        for i, (kind, path) in enumerate(MODULES.items())
    ]
    write_json(work / "modules.json", modules, ascii=True)
    for path in filter(None, MODULES.values()):
        (work / path).mkdir()
    pooling = {"word_embedding_dimension": dim, "pooling_mode_cls_token": False, "pooling_mode_mean_tokens": True}
    write_json(work / "1_Pooling/config.json", pooling, ascii=True)


def _block(code: str) -> str:
    return f"```python\n{code}```"
