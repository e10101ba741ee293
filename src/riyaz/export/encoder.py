"""Export of a fine-tuned sentence encoder and the vectors of its labels: a folder that transformers and
sentence-transformers load, and code that gives the same labels."""

from pathlib import Path

import numpy as np

from riyaz import __version__
from riyaz.artifact import CLASSIFIER, CLASSIFIER_WEIGHTS, Artifact
from riyaz.classifiers.encoder import EncoderClassifier, EncoderDocument
from riyaz.export.check import SAMPLES, ExportResult, checked_export
from riyaz.export.classifier import SCRIPT, hub_name, script_of
from riyaz.files import write_text
from riyaz.json_files import read_json, write_json
from riyaz.metrics.calibration import LEAST
from riyaz.sources import open_source, safetensors
from riyaz.sources.store import link_or_copy

LABELS, WEIGHTS = "labels.json", "labels.safetensors"
# the modules of sentence-transformers and their folders
MODULES = {"Transformer": "", "Pooling": "1_Pooling", "Normalize": "2_Normalize"}
CODE = """\
import json
{imports}
import torch
from safetensors.torch import load_file
from transformers import AutoModel, AutoTokenizer

folder = "{folder}"
tokenizer = AutoTokenizer.from_pretrained(folder)
model = AutoModel.from_pretrained(folder, dtype=torch.float32).eval()
with open(folder + "/labels.json", encoding="utf-8") as file:
    labels = json.load(file)
weights = load_file(folder + "/labels.safetensors")["weights"]  # (labels, width)
{regression}

def vectors(texts):
    batch = tokenizer(texts, padding=True, truncation=True, max_length={window}, return_tensors="pt")
    with torch.no_grad():
        hidden = model(**batch).last_hidden_state  # (texts, tokens, width)
    mask = batch["attention_mask"][..., None]
    return torch.nn.functional.normalize((hidden * mask).sum(1) / mask.sum(1), dim=1)


texts = ["your text"]
for text, scores in zip(texts, vectors(texts) @ weights.T):
{add}    p = scores.softmax(0)
    print(labels[p.argmax()], round(p.max().item(), 4))
"""
# where a logistic regression takes part
REGRESSION = """\
sys.path.insert(0, folder)
from classify import probabilities  # of the logistic regression
"""
ADD = """\
    of_words = torch.tensor(list(probabilities(text).values()))
    scores = scores + {factor} * of_words.clamp_min({least}).log()
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
    classifier = EncoderClassifier.read(artifact, labels)
    weights = (np.float32(classifier.document.cosine) * classifier.prototypes).astype(np.float32)
    models.save_embedder(models.load_embedder(source, getattr(torch, dtype)), source, work)
    write_json(work / LABELS, list(labels), ascii=True)
    safetensors.write(work / WEIGHTS, {"weights": weights}, {"format": "pt"})
    embedder = open_embedder(str(work))
    _write_modules(work, embedder.dim)
    if classifier.document.linear:
        _write_regression(artifact, work)
    parts = [card.rstrip(), "## This folder"] if card else [f"# {out.resolve().name}"]
    parts += [
        _what(document, classifier.document),
        "## Use",
        _block(_code(out, embedder.window + 2, classifier.document)),
    ]
    use = SENTENCE_TRANSFORMERS.format(folder=out.as_posix())
    parts += ["The same vectors with sentence-transformers:", _block(use)]
    write_text(work / "README.md", "\n\n".join(parts) + "\n")
    ours = torch.from_numpy(classifier.vectors(SAMPLES) @ weights.T)
    return checked_export(ours, torch.from_numpy(embedder.embed(SAMPLES) @ weights.T), work, "hf", dtype)


def _what(document: Artifact, factors: EncoderDocument) -> str:
    """What the folder is, and how a label's probability comes about."""
    assert document.task is not None
    added = "" if not factors.linear else f", plus {factors.linear:.4g} times its log-probability by `{SCRIPT}`"
    return (
        f"A sentence encoder for transformers, trained whole on {len(document.task.labels)} labels, written by riyaz "
        f"{__version__}.\n\nA label's score is the product of the text's vector and the label's row of `{WEIGHTS}`"
        f"{added}; the softmax of the scores are the probabilities."
    )


def _code(out: Path, window: int, factors: EncoderDocument) -> str:
    """Python that answers as the artifact does."""
    together = {"imports": "", "regression": "", "add": ""}
    if factors.linear:
        add = ADD.format(factor=repr(factors.linear), least=LEAST)
        together = {"imports": "import sys\n", "regression": REGRESSION, "add": add}
    return CODE.format(folder=out.as_posix(), window=window, **together)


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


def _write_regression(artifact: Path, work: Path) -> None:
    """The logistic regression of an artifact, and the script that computes its probabilities."""
    for name in (CLASSIFIER, CLASSIFIER_WEIGHTS):
        link_or_copy(artifact / name, work / name)
    embedder = read_json(work / CLASSIFIER)["embedder"]
    write_text(work / SCRIPT, script_of(embedder and hub_name(embedder["name"])))


def _block(code: str) -> str:
    return f"```python\n{code}```"
