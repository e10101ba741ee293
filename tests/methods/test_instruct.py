"""Instruction search: the pool, its halving on the same rows, and who else uses the chosen instruction."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import tiny_comparison
from fit_context import TASK, examples, fit_context
from refusals import assert_refused

from riyaz.artifact import Artifact
from riyaz.comparison.by_hand import MOST_OWN, own_instructions
from riyaz.data import Example
from riyaz.data.task import Task
from riyaz.errors import RiyazError
from riyaz.methods import METHODS, instruct
from riyaz.methods.fitting import choices, instructions
from riyaz.methods.fitting.base import Context, instruction_only
from riyaz.methods.fitting.choices import base_predictor, choose, rows_scored
from riyaz.methods.fitting.instructions import MOST, Instruction
from riyaz.predictor import ModelPredictor

pytestmark = pytest.mark.usefixtures("in_float32")


@pytest.fixture
def context(model_folder: Path, tmp_path: Path) -> Context:
    return fit_context(model_folder, tmp_path)


def pool(context: Context) -> list[Instruction]:
    return instructions.instructions(context, base_predictor(context))


def written(monkeypatch: pytest.MonkeyPatch, *texts: str) -> None:
    """Let the model write these texts in turn where it is asked for an instruction."""
    answers = iter(texts * 10)
    monkeypatch.setattr(instructions.PromptedModel, "text_of", lambda *_: next(answers))


# the pool


def test_the_pool_begins_with_the_tasks_own_instruction_and_holds_each_once(context: Context) -> None:
    own = (TASK.instruction.upper(), "Where does it belong?", "where does it belong")
    tried = pool(replace(context, instructions=own))
    assert tried[:2] == [Instruction(TASK.instruction, "task"), Instruction(TASK.instruction, "task", list_labels=True)]
    assert [each.text for each in tried if each.origin == "yours"] == ["Where does it belong?"]
    assert Instruction("", "riyaz") in tried, "the model's default turn"
    shown = next(each.text for each in tried if "such as" in each.text)
    assert all(f"\n{label}: such as “" in shown for label in TASK.labels)
    assert len({(each.text.casefold(), each.list_labels) for each in tried}) == len(tried) <= MOST


def test_the_model_writes_instructions_from_rows_of_the_training(
    context: Context, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []
    render = type(context.tokenizer).render

    def listening(self: object, conversations: Sequence[list[dict]], **rest: object) -> object:
        asked.extend(each[-1]["content"] for each in conversations if instructions.ASKED in each[-1]["content"])
        return render(self, conversations, **rest)  # type: ignore[arg-type]

    monkeypatch.setattr(type(context.tokenizer), "render", listening)
    more = "The person followed an instruction."
    written(monkeypatch, '1. Instruction: "Sort the mail."\nMore', "billing", "two words", more, "**Say what it is**")
    texts = [each.text for each in pool(context) if each.origin == "model"]
    assert texts == ["Sort the mail.", "Say what it is"], "answers and fragments are no instructions"
    inputs = [row for text in asked for row in text.split("\n\n")[:-1]]
    assert inputs and all(any(f"Input: {row.prompt}\nOutput: {row.answer}" == one for row in context.train)
                          for one in inputs)  # fmt: skip
    assert len(set(inputs)) == len(inputs), "no row is shown twice"


def test_what_the_model_writes_depends_on_the_seed_alone(context: Context) -> None:
    one, again, other = (pool(replace(context, seed=seed)) for seed in (3, 3, 4))
    assert one == again
    assert [each for each in one if each.origin != "model"] == [each for each in other if each.origin != "model"]


def test_an_instruction_longer_than_a_quarter_of_the_context_is_left_out(
    context: Context, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain = base_predictor(context)
    plain.lm.context = 400
    written(monkeypatch, "")
    context = replace(context, instructions=("Sort it. " * 100, "Sort these."))
    tried = instructions.instructions(context, plain)
    assert [each.text for each in tried if each.origin == "yours"] == ["Sort these."]


@pytest.mark.parametrize("kind", ["short", "free"])
def test_answers_that_are_written_have_wordings_of_their_own(context: Context, kind: str) -> None:
    task = Task(kind, (), "exact_match", "Say where.", "")  # type: ignore[arg-type]
    tried = pool(replace(context, task=task, prompt_text=instruction_only(task)))
    assert tried[0] == Instruction("Say where.", "task") and not any(each.list_labels for each in tried)
    assert any(each.text.startswith("Say where. ") for each in tried)
    assert not any("{words}" in each.text for each in tried)


# the search


def search(
    context: Context, monkeypatch: pytest.MonkeyPatch, means: Sequence[float], spread: float
) -> tuple[str, list[dict], list[tuple[str, int]]]:
    """(choice, record, what was scored) among candidates that score these means, each row `spread` above or below."""
    plain, done = base_predictor(context), list[tuple[str, int]]()

    def points(_: Context, predictor: ModelPredictor, rows: Sequence[Example]) -> list[tuple]:
        name = predictor.text.instruction
        done.append((name, len(rows)))
        sign = np.array([(-1.0) ** int(row.where.rpartition(":")[2]) for row in rows])
        values = means[int(name)] + spread * sign * (name != "0")
        return [(predictor, False, values, np.zeros(len(rows)))]

    monkeypatch.setattr(choices, "candidate_points", points)
    candidates = [replace(plain, text=replace(plain.text, instruction=str(place))) for place in range(len(means))]
    notes = [{"origin": f"of {place}"} for place in range(len(means))]
    choice = choose(context, candidates, instruct.ROUNDS, notes=notes, first_stays=True)
    return choice.predictor.text.instruction, choice.record, done


def test_the_pool_is_halved_on_the_same_rows_and_the_first_stays(
    context: Context, monkeypatch: pytest.MonkeyPatch
) -> None:
    context = replace(context, valid=examples(60, "today"), valid_rows=48)
    means = [0.1, *(0.2 + 0.01 * place for place in range(23))]
    chosen, record, done = search(context, monkeypatch, means, 0.0)
    assert chosen == "23"
    rows = [[name for name, count in done if count == 8][:24], [n for n, c in done if c == 8][24:],
            [n for n, c in done if c == 16][:6], [n for n, c in done if c == 16][6:]]  # fmt: skip
    assert [len(each) for each in rows] == [24, 12, 6, 3] and all(each[0] == "0" for each in rows)
    assert rows[3] == ["0", "22", "23"]
    assert sum(count for _, count in done) == rows_scored(24, 60, instruct.ROUNDS) == 432
    last = record[-1]
    assert last == last | {"origin": "of 23", "rows": 48, "difference": pytest.approx(0.32), "error": 0.0}


def test_the_first_is_kept_unless_another_is_better_by_more_than_two_standard_errors(
    context: Context, monkeypatch: pytest.MonkeyPatch
) -> None:
    context = replace(context, valid=examples(60, "today"), valid_rows=48)
    error = 1.0 / np.sqrt(47)  # of 48 differences that are 1 above or below their mean
    assert search(context, monkeypatch, [0.5, 0.5 + 2.1 * error], 1.0)[0] == "1"
    assert search(context, monkeypatch, [0.5, 0.5 + 1.9 * error], 1.0)[0] == "0"
    assert search(context, monkeypatch, [0.5, 0.4], 0.0)[0] == "0"
    assert search(context, monkeypatch, [0.5, 0.5], 0.0)[0] == "0"


def test_the_fit_names_its_instruction_and_every_candidate(context: Context) -> None:
    fitted = METHODS["instruct"].fit(context)
    tried = fitted.chosen["candidates"]
    assert fitted.text.instruction == fitted.chosen["instruction"] in {each["instruction"] for each in tried}
    assert {"instruction", "origin", "difference", "error", "validation", "rows"} <= tried[0].keys()
    assert {each["origin"] for each in tried} >= {"task", "riyaz"}


# the user's own


def test_a_file_has_an_instruction_in_each_line(tmp_path: Path) -> None:
    path = tmp_path / "own.txt"
    path.write_text("\ufeffSort it.\n\n  Sort it. \nName the desk.\n", encoding="utf-8")
    assert own_instructions(path, ["instruct"], {}, "") == (("Sort it.", "Name the desk."), [])
    assert own_instructions(None, ["lora"], {}, "") == (None, [])


def test_instructions_that_cannot_be_tried_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "own.txt"
    with assert_refused("own.txt", "cannot be read"):
        own_instructions(path, ["instruct"], {}, "")
    many = "".join(f"{number}\n" for number in range(MOST_OWN + 1))
    for content, words in (("\n \n", "holds no instructions"), (many, f"holds {MOST_OWN + 1} instructions")):
        path.write_text(content, encoding="utf-8")
        with assert_refused("own.txt", words):
            own_instructions(path, ["instruct"], {}, "")
    with assert_refused("--instructions", "run instruct"):
        own_instructions(path, ["lora"], {}, "")
    unused = own_instructions(path, ["lora"], {"instructions": path}, "data/riyaz.toml")
    assert unused == (None, ["data/riyaz.toml: instructions has no effect, as lora cannot take it"])


# in a comparison


@pytest.mark.parametrize("budget", ["3h", "10m"])
def test_few_shot_comes_later_and_tries_the_chosen_instruction(
    tmp_path: Path, home: Path, asked: tuple, budget: str
) -> None:
    tiny_comparison.write_rows(tmp_path / "data/train.jsonl", tiny_comparison.closed_rows(45, "please"))
    tiny_comparison.write_rows(tmp_path / "data/test.jsonl", tiny_comparison.closed_rows(18, "today"))
    (tmp_path / "own.txt").write_text("Where does it belong?\n")
    with tiny_comparison.small_machine(home) as patch:
        done = tiny_comparison.workers_inside(patch)
        patch.setattr(choices, "_is_better", lambda one, other: True)
        with_budget = [budget if each == "3h" else each for each in asked]
        told = tiny_comparison.command(
            "compare", tmp_path / "data", *with_budget, "--methods", "few_shot,instruct,zero_shot", "--instructions",
            tmp_path / "own.txt", "--out", tmp_path / "out",
        )  # fmt: skip
    assert told.status == 0, told.err
    fitted = [name for work, name, *_ in (entry for entry in done if entry[0] == "fit")]
    assert fitted.index("instruct") < fitted.index("few_shot")
    arms = {arm["method"]: arm for arm in told.document["arms"]}
    chosen = arms["instruct"]["chosen"]["instruction"]
    assert chosen != TASK.instruction
    assert "Where does it belong?" in {each["instruction"] for each in arms["instruct"]["chosen"]["candidates"]}
    artifacts = {name: Artifact.read(tmp_path / f"out/arms/{name}/kept/artifact") for name in arms}
    assert artifacts["instruct"].text.instruction == chosen
    last = arms["few_shot"]["chosen"]["candidates"][-2:]
    assert [entry["instruction"] for entry in last] == [chosen, chosen], "without and with null prompts"
    assert artifacts["few_shot"].text.instruction in (chosen, TASK.instruction)
    assert artifacts["zero_shot"].text.instruction == TASK.instruction


@pytest.mark.parametrize(("score", "better"), [(0.6, True), (0.5, False), (0.4, False), (None, False)])
def test_another_arms_instruction_is_kept_where_the_same_prompts_score_higher_with_it(
    context: Context, monkeypatch: pytest.MonkeyPatch, score: float | None, better: bool
) -> None:
    plain, asked = base_predictor(context), list[str]()
    first = choices.Choice(plain, False, 0.5, [{"validation": 0.5}], 0.0, np.zeros(0))

    def tried(_: Context, candidates: Sequence[ModelPredictor]) -> choices.Choice:
        (candidate,) = candidates
        asked.append(candidate.text.instruction)
        if score is None:
            raise RiyazError("the prompt does not fit")
        return replace(first, predictor=candidate, score=score, record=[{"validation": score}])

    monkeypatch.setattr(choices, "choose", tried)
    for wording in (None, TASK.instruction):
        assert choices.reworded(replace(context, wording=wording), first) is first and not asked
    made = choices.reworded(replace(context, wording="Name the desk."), first)
    assert asked == ["Name the desk."]
    assert made.predictor.text == replace(plain.text, instruction=asked[0] if better else TASK.instruction)
    more = [] if score is None else [{"validation": score, "instruction": "Name the desk."}]
    assert (made.score, made.record) == (max(score or 0.0, 0.5), [*first.record, *more])
