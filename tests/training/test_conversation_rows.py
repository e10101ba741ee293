"""A conversation in one row: the same loss and gradient as its answers in rows of their own, and the served ids."""

import numpy as np
import pytest
import tiny_llama
import torch
from small_llama import small_model

from riyaz.data import Example
from riyaz.data.packing import pack
from riyaz.data.rows import Row, divided_note, encode_rows, joined, rows_per_step
from riyaz.text.tokenizer import Tokenizer
from riyaz.train import answer_loss, answer_nats

FORGETS = tiny_llama.CHAT_TEMPLATE.replace(
    "message['content'] +",
    "('earlier: ' if message['role'] == 'assistant' and not loop.last else '') + message['content'] +",
)


def turns_of(place: str, *texts: str) -> list[Example]:
    """The examples of a conversation: a question and an answer in turn."""
    roles = ("user", "assistant") * len(texts)
    messages = [{"role": role, "content": text} for role, text in zip(roles, texts)]
    return [
        Example(tuple(messages[:i]), (texts[i],), where=f"{place} turn {(i + 1) // 2}", group=place)
        for i in range(1, len(texts), 2)
    ]


TALK = turns_of("a.jsonl:1", "is it open", "yes", "and on sunday", "no, closed", "so when", "on monday at nine")
OTHER = turns_of("a.jsonl:2", "is it open", "yes", "can I order", "please do")


def tokenizer_of(folder, template: str = tiny_llama.CHAT_TEMPLATE) -> Tokenizer:
    path = tiny_llama.write_tokenizer(folder / "t")
    (path / "chat_template.jinja").write_text(template)
    return Tokenizer.from_folder(path)


def rows_of(tokenizer: Tokenizer, examples: list[Example]) -> list[Row]:
    return encode_rows(tokenizer, [(example.messages, example) for example in examples], 1000)[0]


def gradient(model: torch.nn.Module, packs) -> tuple[float, dict[str, torch.Tensor]]:
    """The summed loss of packs, and its gradient by parameter."""
    model.zero_grad()
    model.requires_grad_(True)
    nats = sum(answer_nats(model, rows) for rows in packs)
    nats.backward()
    return nats.item(), {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}


def test_a_conversation_in_one_row_has_the_loss_and_the_gradient_of_its_answers(tmp_path) -> None:
    apart = rows_of(tokenizer_of(tmp_path), [*TALK, *OTHER])
    whole = joined(apart)
    assert [row.answers for row in whole] == [3, 2] and sum(row.length for row in whole) < sum(r.length for r in apart)
    assert sorted(whole[0].labels) == sorted(token for row in apart[:3] for token in row.answer)
    model = small_model(vocab=512)
    wanted, expected = gradient(model, [pack([row]) for row in apart])
    for packs in ([pack([row]) for row in whole], [pack(whole)]):
        found, grads = gradient(model, packs)
        assert found == pytest.approx(wanted, rel=1e-5)
        for name, grad in expected.items():
            assert torch.allclose(grads[name], grad, rtol=1e-3, atol=1e-4 * grad.abs().max()), name
    assert pack(whole).shared > 0, "their common beginning is read once"
    assert answer_loss(model, whole) == pytest.approx(answer_loss(model, apart), rel=1e-5)


def test_equal_conversations_share_answers_in_their_common_beginning(tmp_path) -> None:
    """The first answer lies in the tokens that all rows begin with, and counts once for each of them."""
    twin = turns_of("a.jsonl:2", "is it open", "yes", "and on sunday", "no, closed", "so when", "never")
    apart = rows_of(tokenizer_of(tmp_path), [*TALK, *twin])
    both = pack(joined(apart))
    assert both.shared > min(both.label_index) + 1
    model = small_model(vocab=512)
    assert answer_nats(model, both).item() == pytest.approx(sum(answer_nats(model, pack([r])).item() for r in apart))


def test_labels_stand_behind_the_tokens_that_predict_them(tmp_path) -> None:
    (row,) = joined(rows_of(tokenizer_of(tmp_path), TALK))
    one = pack([row])
    stream = np.array([*row.prompt, *row.answer])
    assert (stream[one.label_index + 1] == one.labels).all() and len(one.tokens) == row.length


def test_the_row_is_what_is_served_at_every_turn(tmp_path) -> None:
    tokenizer = tokenizer_of(tmp_path)
    (row,) = joined(rows_of(tokenizer, TALK))
    tokens = (*row.prompt, *row.answer)
    spans = [*row.earlier, (len(row.prompt), len(tokens))]
    for example, (start, end) in zip(TALK, spans, strict=True):
        (prompt,) = tokenizer.render([list(example.messages)])
        assert tuple(prompt) == tokens[:start]
        assert tokens[start:end] == tuple(tokenizer.answer_ids([example.answer])[0])


def test_answers_that_the_template_writes_differently_later_stay_rows_of_their_own(tmp_path) -> None:
    tokenizer = tokenizer_of(tmp_path, FORGETS)
    rows = rows_of(tokenizer, TALK)
    assert joined(rows) == rows and divided_note(joined(rows)).startswith(
        "1 of 1 conversations are read more than once"
    )
    assert divided_note(joined(rows_of(tokenizer_of(tmp_path / "b"), TALK))) == ""


def test_some_turns_of_a_conversation_are_joined_too_and_other_rows_are_not(tmp_path) -> None:
    tokenizer = tokenizer_of(tmp_path)
    single = Example(TALK[0].messages, ("yes",), where="a.jsonl:3")
    rows = rows_of(tokenizer, [TALK[2], single, TALK[0]])
    found = joined(rows)
    assert [row.answers for row in found] == [2, 1] and found[1].example is single


def test_a_step_has_as_many_answers_as_planned() -> None:
    rows = [Row((1, 2), (3,), earlier=((1, 2),) * 3)] * 10  # four answers each
    assert rows_per_step(rows, 8) == 2 and rows_per_step(rows, 2) == 1
    assert rows_per_step([Row((1,), (3,))] * 5, 8) == 8
