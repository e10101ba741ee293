"""Which methods a comparison runs."""

from dataclasses import replace
from pathlib import Path

import pytest
import tiny_bert
from fit_context import TASK
from refusals import assert_refused

from riyaz.comparison import chosen_methods
from riyaz.comparison.chosen_methods import fitting_task, last_turn_note
from riyaz.config import CompareConfig
from riyaz.data import Example
from riyaz.events import Event, Note
from riyaz.methods import METHODS

FREE = replace(TASK, kind="free", labels=(), metric="rouge_l")


@pytest.fixture(autouse=True)
def one_for_labels(monkeypatch: pytest.MonkeyPatch) -> None:
    """`nearest` answers closed sets only."""
    changed = METHODS | {"nearest": replace(METHODS["nearest"], needs_labels=True)}
    monkeypatch.setattr(chosen_methods, "METHODS", changed)


def test_a_method_for_labels_takes_no_part_in_free_text_and_a_note_says_why() -> None:
    events: list[Event] = []
    assert fitting_task(("nearest", "lora"), FREE, CompareConfig(), events.append) == ("lora",)
    assert events == [Note("nearest chooses among labels, and these rows have free text as answers: left out")]
    assert fitting_task(("nearest", "lora"), TASK, CompareConfig(), events.append) == ("nearest", "lora")


def test_which_methods_read_a_part_of_a_conversation_is_said() -> None:
    asked, said = ({"role": "user", "content": "where is it?"}, {"role": "assistant", "content": "which one?"})
    system = {"role": "system", "content": "Sort."}
    whole, one = Example((asked, said, asked), ("delivery",)), Example((system, asked), ("delivery",))
    assert last_turn_note(("nearest", "linear", "lora"), [one, whole]) == [
        "nearest and linear read the last turn of a conversation only"
    ]
    assert last_turn_note(("lora",), [whole]) == last_turn_note(("nearest",), [one]) == []


def test_a_method_whose_model_is_not_pulled_takes_no_part_and_a_note_says_how_to_pull_it(
    monkeypatch: pytest.MonkeyPatch, own_store: Path
) -> None:
    changed = METHODS | {"nearest": replace(METHODS["nearest"], needs_model="minilm")}
    monkeypatch.setattr(chosen_methods, "METHODS", changed)
    events: list[Event] = []
    assert fitting_task(("nearest", "lora"), TASK, CompareConfig(), events.append) == ("lora",)
    assert events == [Note("nearest trains minilm, which has not been pulled yet (`riyaz pull minilm`): left out")]
    with assert_refused("nearest trains minilm, which has not been pulled yet", "run `riyaz pull minilm`"):
        fitting_task(("nearest", "lora"), TASK, CompareConfig(methods=("nearest",)), events.append)
    tiny_bert.keep(own_store)
    assert fitting_task(("nearest", "lora"), TASK, CompareConfig(), events.append) == ("nearest", "lora")


def test_one_that_was_named_is_refused() -> None:
    with assert_refused("nearest chooses among labels, and these rows have free text as answers", "--methods"):
        fitting_task(("nearest", "lora"), FREE, CompareConfig(methods=("nearest", "lora")), lambda event: None)
