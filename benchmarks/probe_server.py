"""The probe of benchmarks/decisions.py: scikit-learn's logistic regression on sentence vectors, in a Starlette server.

    python benchmarks/probe_server.py MODEL ROWS PORT THREADS loop|pool

MODEL is the folder of a sentence encoder, such as MiniLM, which transformers reads; the vector of a text is the mean of
its tokens' last states, with length 1. The regression is fitted to ROWS, JSON Lines with `text` and `label`, when the
server starts. POST / takes {"text": …} and answers {"label": …, "probabilities": {LABEL: P}}; GET / answers when it is
ready. One request is one batch, with so many of torch's threads, in the event loop or in the pool of threads in which
Starlette runs what blocks: which is faster depends on the machine. Imports nothing of riyaz.
"""

import json
import sys
from pathlib import Path

import numpy as np
import torch
import uvicorn
from sklearn.linear_model import LogisticRegression
from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route
from transformers import AutoModel, AutoTokenizer

LONGEST = 256  # tokens of a text; MiniLM was trained on no more
BATCH = 32  # rows that are read together before the fit


class Probe:
    """Sentence vectors and the regression on them."""

    def __init__(self, model: str) -> None:
        self.tokenizer = AutoTokenizer.from_pretrained(model)
        self.model = AutoModel.from_pretrained(model).eval()
        self.regression = LogisticRegression(max_iter=1000)

    @torch.inference_mode()
    def vectors(self, texts: list[str]) -> np.ndarray:
        """(n, C) float32, each of length 1."""
        inputs = self.tokenizer(texts, padding=True, truncation=True, max_length=LONGEST, return_tensors="pt")
        states = self.model(**inputs).last_hidden_state  # (n, T, C)
        mask = inputs["attention_mask"].unsqueeze(-1)
        means = (states * mask).sum(1) / mask.sum(1)
        return torch.nn.functional.normalize(means, dim=1).numpy()

    def fit(self, rows: list[dict[str, str]]) -> None:
        """Fit the regression to rows with a text and a label."""
        texts = [row["text"] for row in rows]
        vectors = np.concatenate([self.vectors(texts[i : i + BATCH]) for i in range(0, len(texts), BATCH)])
        self.regression.fit(vectors, [row["label"] for row in rows])

    def answer(self, text: str) -> dict[str, object]:
        """The likeliest label and the probability of each."""
        (probabilities,) = self.regression.predict_proba(self.vectors([text]))
        labels = self.regression.classes_.tolist()
        likeliest = labels[int(probabilities.argmax())]
        return {"label": likeliest, "probabilities": dict(zip(labels, probabilities.tolist()))}


def application(probe: Probe, pool: bool = False) -> Starlette:
    """The two routes; `pool` answers in the pool of threads."""

    async def classify(request: Request) -> JSONResponse:
        text = (await request.json())["text"]
        return JSONResponse(await run_in_threadpool(probe.answer, text) if pool else probe.answer(text))

    async def ready(request: Request) -> JSONResponse:
        return JSONResponse({"labels": len(probe.regression.classes_)})

    return Starlette(routes=[Route("/", classify, methods=["POST"]), Route("/", ready)])


def main() -> None:
    """Fit and serve."""
    model, rows, port, threads, where = sys.argv[1:]
    probe = Probe(model)
    probe.fit([json.loads(line) for line in Path(rows).read_text("utf-8").splitlines()])
    torch.set_num_threads(int(threads))
    uvicorn.run(
        application(probe, where == "pool"), host="127.0.0.1", port=int(port), log_level="warning", access_log=False
    )


if __name__ == "__main__":
    main()
