"""What a request says that its answer may repeat beside the prompt: answers that training rows share."""

from pathlib import Path

import tiny_llama

from riyaz.artifact import TextPart
from riyaz.data import Example
from riyaz.engine.drafts import LEAD
from riyaz.predictor import FreePredictor, open_model

ANSWERS = ("sorry, no", "ask the desk", "sorry, no", "ask the desk", "sorry, no", "only once")


def test_answers_that_rows_share_are_looked_for_behind_the_prompt(tmp_path: Path) -> None:
    plain = open_model(tiny_llama.write_hf_folder(tmp_path / "tiny"))
    rows = tuple(Example(({"role": "user", "content": f"row {i}"},), (text,)) for i, text in enumerate(ANSWERS))
    predictor = FreePredictor(
        tokenizer=plain.tokenizer, lm=plain.lm, examples=rows, text=TextPart(examples="nearest", k=1, common=("none",))
    )
    ((prepared,), ids) = predictor.prepare([[{"role": "user", "content": "where"}]]), plain.tokenizer
    request = prepared.request
    lead = (*request.prefix, *request.tokens)[-LEAD:]
    wanted = [(*lead, *ids.encode(text), ids.end_of_turn) for text in ("ask the desk", "sorry, no", "none")]
    assert list(request.likely) == wanted  # what follows last is found first
    assert plain.prepare([[{"role": "user", "content": "where"}]])[0].request.likely == ()


def test_the_beginning_of_a_shared_answer_is_drafted(tmp_path: Path) -> None:
    plain = open_model(tiny_llama.write_hf_folder(tmp_path / "tiny"))
    question = [{"role": "user", "content": "where"}]
    plain.lm.drafts.mode = "off"
    own = plain.answers([question], max_tokens=12)[0].text
    rows = tuple(Example(({"role": "user", "content": f"row {i}"},), (own,)) for i in range(2))
    predictor = FreePredictor(
        tokenizer=plain.tokenizer, lm=plain.lm, examples=rows, text=TextPart(examples="none"), max_new_tokens=12
    )
    plain.lm.drafts.mode = "on"
    assert predictor.answers([question])[0].text == own
    assert plain.lm.drafts.counts.drafted > 0
