"""Where a model looks in the passages of its prompts: tokens, attention and counts, and the command."""

import json
from pathlib import Path

import numpy as np
import pytest
import tiny_llama
from refusals import assert_refused

from riyaz import artifact as artifacts
from riyaz.artifact import COLLECTION, Artifact, BaseModel, TextPart
from riyaz.cli import main as cli
from riyaz.data import Example
from riyaz.data.task import Task
from riyaz.engine.runner import TokenRun
from riyaz.inside import passages as module
from riyaz.inside.attention import last_weights, weights
from riyaz.inside.passages import PassageLook, PassageLooks, attention_on, holding, passage_looks, passage_tokens
from riyaz.inside.rows_document import passages as passages_document
from riyaz.predictor import FreePredictor, open_artifact
from riyaz.retrieval.collection import add
from riyaz.retrieval.documents import read_documents
from riyaz.retrieval.search import Hit
from riyaz.sources import open_source

TASK = Task("short", (), "exact_match", "Answer the question in a few words.", "")
PAGES = {
    "parcels.md": "# Parcels\n\nThe parcel door opens at nine. Ask Ms Vane for a label.\n",
    "bikes.md": "# Bikes\n\nThe bike cellar is behind the 23rd door. Ask Mr Quill for a key.\n",
    "dogs.md": "# Dogs\n\nThe parcel room takes no dogs. A dog may wait in the yard by the bike cellar.\n",
}
ROWS = [
    {"question": "when opens the parcel door?", "answer": "nine", "doc_id": "parcels.md"},
    {"question": "who has the key of the bike cellar?", "answer": "Mr Quill", "doc_id": "bikes.md"},
    {"question": "may a dog enter the parcel room?", "answer": "on Sundays", "doc_id": "dogs.md"},
    {"question": "what does a parcel of the bike cellar cost?", "answer": "not in the pages"},
]


@pytest.fixture(scope="module")
def artifact(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("passages")
    base = tiny_llama.write_hf_folder(folder / "model", seed=3, layers=3)
    (folder / "pages").mkdir()
    for name, text in PAGES.items():
        (folder / "pages" / name).write_text(text)
    add(folder / COLLECTION, read_documents(folder / "pages")[0], None)
    source = open_source(base)
    text = TextPart(TASK.instruction, passages=2, collection_file=COLLECTION)
    made = Artifact(
        "rag", text, base=BaseModel(source.name, str(base), source.sha256(), 1), task=TASK, max_new_tokens=4
    )
    artifacts.write(folder / "artifact", made, {COLLECTION: folder / COLLECTION})
    return folder / "artifact"


@pytest.fixture(scope="module")
def model(artifact: Path) -> FreePredictor:
    opened = open_artifact(artifact, precision="fp32")
    assert isinstance(opened, FreePredictor)
    return opened


def example(row: dict[str, str], number: int = 1) -> Example:
    names = (row["doc_id"],) if "doc_id" in row else ()
    return Example(
        ({"role": "user", "content": row["question"]},), (row["answer"],), doc_ids=names, where=f"t:{number}"
    )


def hit(doc_id: str, text: str) -> Hit:
    return Hit(doc_id, "", "", 0, len(text), text, 1.0)


@pytest.mark.parametrize("window", [0, 3])
def test_the_last_token_looks_as_in_the_whole_matrix(model: FreePredictor, window: int) -> None:
    sequence = model.lm.runner.open()
    _, trace = model.lm.runner.traced(TokenRun(sequence, [5, 9, 40, 7, 300, 12]))
    model.lm.runner.close(sequence)
    for layer in range(3):
        assert last_weights(trace, layer, window) == pytest.approx(weights(trace, layer, window)[:, -1], abs=1e-6)


def test_a_passage_holds_the_answer_word_for_word_in_a_named_document() -> None:
    hits = [hit("a", "Ask Mr\n  QUILL, the porter."), hit("b", "mr quill again"), hit("c", "behind the 23rd door")]
    row = Example(({"role": "user", "content": "?"},), ("Mr Quill",))
    named = Example(row.messages, row.answers, doc_ids=("b",))
    assert holding(hits, row) == (0, 1) and holding(hits, named) == (1,)
    assert holding(hits, Example(row.messages, ("3rd",))) == ()  # a part of a word is none
    assert holding(hits, Example(row.messages, ("23rd",))) == (2,)
    assert holding(hits, Example(row.messages, ("in spring",), doc_ids=("c",))) == (2,)  # said in other words
    assert holding(hits, Example(row.messages, ("in spring",))) == ()


def test_tokens_of_a_passage_are_its_text(model: FreePredictor) -> None:
    for row in ROWS:
        (prepared,) = model.prepare([example(row).messages], ["row"])
        spans = passage_tokens(model, prepared, row["question"])
        assert spans is not None and len(spans) == len(prepared.passages) == 2
        prompt = [*prepared.request.prefix, *prepared.request.tokens]
        for (begin, end), passage in zip(spans, prepared.passages):
            own = b"".join(model.tokenizer.bytes_of(token) for token in prompt[begin:end]).decode()
            # a token may begin before the text, or end behind it
            assert own.strip() in passage.text + "\n" and len(own) > len(passage.text) - 8
        assert passage_tokens(model, prepared, "another question") is None


def test_attention_on_passages_is_the_sum_over_their_tokens(model: FreePredictor) -> None:
    (prepared,) = model.prepare([example(ROWS[0]).messages], ["row"])
    spans = passage_tokens(model, prepared, ROWS[0]["question"])
    assert spans is not None
    seen = attention_on(model, prepared, spans)
    sequence = model.lm.runner.open()
    prompt = [*prepared.request.prefix, *prepared.request.tokens]
    _, trace = model.lm.runner.traced(TokenRun(sequence, prompt))
    model.lm.runner.close(sequence)
    for layer in range(3):
        whole = weights(trace, layer)[:, -1]  # (H, T)
        for place, (begin, end) in enumerate(spans):
            assert seen[layer, :, place] == pytest.approx(whole[:, begin:end].sum(1), abs=1e-5)
    assert seen.shape == (3, 4, 2) and (seen.sum(2) < 1).all()


def look(right: tuple[int, ...], attention: list, sizes: tuple[int, ...] = (10, 20), score: float = 0) -> PassageLook:
    return PassageLook("row", right, sizes, np.array(attention, float), score)


def test_counts_over_rows() -> None:
    looks = (  # (L, H, P): two layers of two heads
        look((0,), [[[0.5, 0.1], [0.1, 0.2]], [[0.3, 0.2], [0.0, 0.6]]], score=1),
        look((1,), [[[0.5, 0.1], [0.1, 0.2]], [[0.3, 0.2], [0.0, 0.8]]], score=0.5),
    )
    assert [each.most for each in looks] == [False, True]
    assert [(each.first, each.longest) for each in looks] == [(True, False), (False, True)]
    assert looks[0].most_by_layer.tolist() == [True, False] and looks[0].most_in.tolist() == [[True, False]] * 2
    made = passages_document(PassageLooks(looks, without=2, alike=1))
    assert (made["rows"], made["most"], made["first"], made["longest"], made["chance"]) == (2, 1, 1, 1, 0.5)
    assert [layer["most"] for layer in made["layers"]] == [1, 1] and (made["without"], made["alike"]) == (2, 1)
    assert made["layers"][0]["on_right"] == pytest.approx((0.5 + 0.1 + 0.1 + 0.2) / 4)
    assert (made["score_where_most"], made["score_elsewhere"]) == (0.5, 1)
    assert passages_document(PassageLooks((), without=4)) == {
        "rows": 0, "without": 4, "alike": 0, "too_long": 0, "rewritten": 0,
    }  # fmt: skip


def test_rows_are_counted_once(model: FreePredictor, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = [example(row, number) for number, row in enumerate(ROWS, 1)]
    looks = passage_looks(model, rows, np.arange(4), lambda *_: None)
    counted = len(looks.each) + looks.without + looks.alike + looks.too_long + looks.rewritten
    assert counted == 4 and looks.each and looks.without == 1  # the last row's answer stands nowhere
    assert [each.score for each in looks.each] == [int(each.where[2:]) - 1 for each in looks.each]
    monkeypatch.setattr(module, "TRACED", 8)
    with assert_refused("more than 8 tokens", "t:1", "fewer passages"):
        passage_looks(model, rows, np.zeros(4), lambda *_: None)


def test_the_command_shows_where_it_looks(artifact: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "test.jsonl").write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    words = ["inside", str(artifact), "--rows", str(tmp_path / "test.jsonl")]
    assert cli.main([*words, "--json"]) == 0
    made = json.loads(capsys.readouterr().out)
    part = made["passages"]
    assert part["rows"] == len(part["each"]) > 0 and "wrong" not in made and len(part["layers"]) == 3
    assert part["most"] == sum(each["most"] for each in part["each"])
    assert part["share"] == pytest.approx(part["most"] / part["rows"], abs=1e-5)
    assert cli.main(words) == 0
    shown = " ".join(capsys.readouterr().out.split())
    assert f"In {part['most']} of {part['rows']} rows" in shown and "Does it look at the right passage?" in shown
