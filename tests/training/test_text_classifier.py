"""An encoder with vectors for labels in the training loop: its logits, and rows that begin alike."""

from pathlib import Path

import numpy as np
import pytest
import tiny_bert
import torch

from riyaz.data.packing import pack
from riyaz.data.rows import Row
from riyaz.engine.torch.embedder import TorchEmbedder
from riyaz.models import load_embedder
from riyaz.models.text_classifier import TextClassifier
from riyaz.sources import open_source
from riyaz.train import answer_loss, answer_nats, micro_batches, row_nats

TOLERANCE = 1e-5  # nats
V = tiny_bert.CONFIG["vocab_size"]  # labels are numbered behind it
TEXTS = ["where is my refund", "the card was declined", "bikes", "where is my bike, it was my bike"]
COMMON = "the card the card the card the card "  # more tokens than rows that begin alike must share to be packed so


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tiny_bert.write_folder(tmp_path / "embedder", seed=3)


def rows_of(embedder: TorchEmbedder, texts: list[str]) -> list[Row]:
    return [Row(tuple(ids.tolist()), (V + i % 3,)) for i, ids in enumerate(embedder.framed(texts))]


@pytest.mark.parametrize("common", ["", COMMON])
def test_a_rows_loss_is_that_of_its_cosines(folder: Path, common: str) -> None:
    source = open_source(folder)
    embedder, texts = TorchEmbedder(source), [common + text for text in TEXTS]
    prototypes = torch.randn(3, 64, generator=torch.Generator().manual_seed(1))
    model = TextClassifier(load_embedder(source), prototypes, temperature=0.5)
    rows = rows_of(embedder, texts)
    assert [micro.shared > 0 for micro in micro_batches(rows, 1000)] == [bool(common)]
    log_p = torch.log_softmax(torch.from_numpy(embedder.embed(texts)) @ prototypes.T / 0.5, 1)
    expected = [-log_p[i, row.answer[0] - V].item() for i, row in enumerate(rows)]
    assert row_nats(model, rows) == pytest.approx(expected, abs=TOLERANCE)
    assert answer_loss(model, rows) == pytest.approx(np.mean(expected), abs=TOLERANCE)


def test_rows_that_begin_alike_have_the_gradients_of_rows_alone(folder: Path) -> None:
    source, gradients = open_source(folder), []
    rows = rows_of(TorchEmbedder(source), [COMMON + text for text in TEXTS])
    for together in (True, False):
        model = TextClassifier(load_embedder(source).requires_grad_(True), torch.eye(64)[:3], temperature=0.5)
        for batch in [rows] if together else [[row] for row in rows]:
            answer_nats(model, pack(batch)).backward()
        gradients.append(torch.cat([weight.grad.flatten() for weight in model.parameters() if weight.grad is not None]))
    assert (gradients[0] - gradients[1]).norm() <= 1e-5 * gradients[0].norm()
