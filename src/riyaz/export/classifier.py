"""A classifier without a language model as a folder that answers without riyaz: its files, and a script of numpy."""

import json
from pathlib import Path

import numpy as np

from riyaz import __version__
from riyaz.artifact import CLASSIFIER, CLASSIFIER_WEIGHTS, Artifact
from riyaz.classifiers import open_classifier, terms
from riyaz.engine.embedder import MAX_TOKENS
from riyaz.errors import RiyazError
from riyaz.export.check import SAMPLES, ExportResult
from riyaz.export.targets import publish, workspace
from riyaz.files import write_text
from riyaz.json_files import read_json
from riyaz.retrieval.lexical import WORD
from riyaz.sources.catalogue import CATALOGUE
from riyaz.sources.store import link_or_copy

FORMAT, SCRIPT = "numpy", "classify.py"
CODE = '''"""python classify.py "a text": its label and how likely each label is. Needs numpy and safetensors{more}."""

import json
import re
import sys
import unicodedata
from collections import Counter
from pathlib import Path

import numpy as np
from safetensors.numpy import load_file

FOLDER = Path(__file__).parent
made = json.loads((FOLDER / "classifier.json").read_text("utf-8"))
tensors = load_file(FOLDER / "classifier.safetensors")


def words(text):
    single = re.findall(r"{word}", unicodedata.normalize("NFKC", text).casefold())
    return single + [f"{{one}} {{other}}" for one, other in zip(single, single[1:])]


def pieces(text):
    runs = [f" {{run}} " for run in text.casefold().split()]
    return [run[i : i + n] for run in runs for n in range({shortest}, {longest} + 1) for i in range(len(run) - n + 1)]

{vector}
def probabilities(text):
    logits = tensors["bias"].copy()
    for kind, terms in made["terms"].items():
        counts = Counter({{"words": words, "pieces": pieces}}[kind](text[:{read}]))
        known = [i for i, term in enumerate(terms) if term in counts]
        row = np.array([(1 + np.log(counts[terms[i]])) * tensors[f"{{kind}}.idf"][i] for i in known], "float32")
        logits += row / max(np.linalg.norm(row), 1e-6) @ tensors[f"{{kind}}.weights"][known]
{add}    powers = np.exp((logits - logits.max()) / made["temperature"])
    return dict(zip(made["labels"], (powers / powers.sum()).tolist()))


if __name__ == "__main__":
    each = probabilities(sys.argv[1])
    print(json.dumps({{"label": max(each, key=each.get), "probabilities": each}}, ensure_ascii=False))
'''
VECTOR = """
def vector(text):
    import torch
    from transformers import AutoModel, AutoTokenizer

    tokens = AutoTokenizer.from_pretrained({name})(text, truncation=True, max_length={tokens}, return_tensors="pt")
    with torch.no_grad():
        mean = AutoModel.from_pretrained({name})(**tokens).last_hidden_state[0].mean(0).numpy()
    return mean / np.linalg.norm(mean)

"""
ADD = '    logits += vector(text) @ tensors["vectors.weights"]\n'


def export(folder: Path, document: Artifact, out: Path, format: str, card: str | None = None) -> ExportResult:
    """Write the classifier of an artifact with a script that answers, and a README.md that begins with `card` where
    there is one. Raises RiyazError for another artifact or format."""
    if document.weights.kind != "linear" or document.task is None:
        what = f"the format {FORMAT} is of logistic regressions, and this artifact is none"
        raise RiyazError(what, str(folder), "choose another --format")
    if format != FORMAT:
        what = f"this artifact is a logistic regression, which {format} cannot hold"
        raise RiyazError(what, str(folder), f"export it with --format {FORMAT}")
    labels = document.task.labels
    with workspace(out) as work:
        for name in (CLASSIFIER, CLASSIFIER_WEIGHTS):
            link_or_copy(folder / name, work / name)
        embedder = read_json(work / CLASSIFIER)["embedder"]
        script = script_of(embedder and hub_name(embedder["name"]))
        write_text(work / SCRIPT, script)
        write_text(work / "README.md", _readme(document, out, script, card))
        before, after = (open_classifier(document.weights.kind, place, labels) for place in (folder, work))
        difference = np.abs(before.probabilities(SAMPLES) - after.probabilities(SAMPLES)).max()
        size = sum(path.stat().st_size for path in work.iterdir()) / 2**20
        publish(work, out)
    note = "the vectors are computed by transformers" if embedder else ""
    return ExportResult(str(out), FORMAT, "float32", size, float(difference), 0.0, tuple(filter(None, [note])))


def script_of(embedder: str | None) -> str:
    """The script; `embedder` is the name or path by which transformers finds the sentence vectors' model."""
    name = None if embedder is None else json.dumps(embedder)
    return CODE.format(
        word=WORD.pattern, shortest=terms.SHORTEST, longest=terms.LONGEST, read=terms.READ,
        more="" if name is None else ", torch and transformers",
        vector="" if name is None else VECTOR.format(name=name, tokens=MAX_TOKENS),
        add="" if name is None else ADD,
    )  # fmt: skip


def hub_name(embedder: str) -> str:
    """The repository of an embedder that `riyaz pull` knows; of another one its name."""
    known = CATALOGUE.get(embedder)
    return (known.hub if known else None) or embedder


def _readme(document: Artifact, out: Path, script: str, card: str | None) -> str:
    assert document.task is not None
    parts = [card.rstrip(), "## This folder"] if card else [f"# {out.resolve().name}"]
    parts += [
        f"A logistic regression over {len(document.task.labels)} labels, written by riyaz {__version__}. No language "
        "model runs.",
        "## Use", f'```bash\npython {out.as_posix()}/{SCRIPT} "your text"\n```',
        f"`{SCRIPT}` gives the answers and probabilities of riyaz:", f"```python\n{script}```",
    ]  # fmt: skip
    return "\n\n".join(parts) + "\n"
