"""Labels that stand in their prompts: put into the rows of the examples in many ways, and found; other rows are not."""

import base64
import json
import random
from collections.abc import Callable
from dataclasses import replace
from functools import cache
from pathlib import Path

import pytest

from riyaz.data import Dataset, Example, formats, task
from riyaz.data.answer_in_prompt import MOST_ROWS, AnswerInPrompt, answer_in_prompt, refuse_telling
from riyaz.errors import RiyazError

EXAMPLES = Path(__file__).parents[2] / "examples"
Written = Callable[[str, str, int], str]  # (text, label, number of the label) -> the prompt
DRAW = random.Random(7)
DESKS = ("ALPHA", "BRAVO", "CHARLIE", "DELTA", "ECHO", "FOX", "GOLF", "HOTEL", "INDIA", "JULIET")


@cache
def quickstart() -> Dataset:
    """450 messages with 10 labels, none of which stands in its message."""
    return formats.load(EXAMPLES / "quickstart" / "train.jsonl")


@cache
def tickets() -> Dataset:
    """240 tickets with five desks; three texts hold theirs."""
    return formats.load(EXAMPLES / "tickets" / "tickets.csv", prompt_column="text", answer_column="desk")


def asked(rows: Dataset) -> AnswerInPrompt:
    """What the prompts of a closed set tell."""
    found = answer_in_prompt(rows, None, task.detect(rows))
    assert found is not None
    return found


def changed(rows: Dataset, written: Written) -> Dataset:
    """The rows with other prompts."""
    labels = sorted({example.answer for example in rows.examples})
    return replace(rows, examples=tuple(
        replace(each, messages=({"role": "user", "content": written(each.prompt, each.answer, number)},))
        for each in rows.examples
        for number in [labels.index(each.answer)]
    ))  # fmt: skip


def anywhere(text: str, word: str) -> str:
    """The text with a word more, at a random place."""
    words = text.split(" ")
    words.insert(DRAW.randrange(len(words) + 1), word)
    return " ".join(words)


def base64_of(text: str) -> str:
    return base64.b64encode(text.encode()).decode()


LABELS: dict[str, Written] = {
    "brackets": lambda text, label, n: f"{text} [{label}]",
    "first": lambda text, label, n: f"({label}) {text}",
    "capitals": lambda text, label, n: f"{text} {label.upper()}",
    "base64": lambda text, label, n: f"{text} {base64_of(label)}",
    "base64 and noise": lambda text, label, n: anywhere(text, base64_of(f"{label}:{DRAW.randrange(10**6)}")),
    "backwards": lambda text, label, n: f"{text} {label[::-1]}",
    "unseen characters": lambda text, label, n: f"{text} " + "\u200b".join(label),
    "full width": lambda text, label, n: f"{text} " + "".join(chr(ord(c) + 0xFEE0) if c >= "!" else c for c in label),
    "a tag": lambda text, label, n: anywhere(text, "#" + label),
    "a line": lambda text, label, n: f"desk: {label}\n{text}",
    "a field": lambda text, label, n: anywhere(text, f'label="{label}"'),
    "a word": lambda text, label, n: anywhere(text, label),
}  # fmt: skip
CODES: dict[str, Written] = {
    "code": lambda text, label, n: f"{text} ticket-{DESKS[n]}-17",
    "code anywhere": lambda text, label, n: anywhere(text, f"ticket-{chr(65 + n) * 4}-{DRAW.randrange(99)}"),
    "hexadecimal": lambda text, label, n: f"{text} {label.encode().hex()}",
    "agents": lambda text, label, n: f"{text} agent {chr(65 + n)}{'xyz'[DRAW.randrange(3)]}",
    "suffix": lambda text, label, n: f"{text} {DRAW.randrange(10**5)}{chr(65 + n)}",
    "prefix": lambda text, label, n: anywhere(text, f"{chr(65 + n)}{DRAW.randrange(10**5)}"),
    "number of unseen characters": lambda text, label, n: text + "\u2060" * (n + 1),
    "white space": lambda text, label, n: text + " " * (n + 1),
}


@pytest.mark.parametrize("rows", [quickstart, tickets])
@pytest.mark.parametrize("written", LABELS.values(), ids=list(LABELS))
def test_a_label_in_every_prompt_is_found(written: Written, rows: Callable[[], Dataset]) -> None:
    found = asked(changed(rows(), written))
    assert found.telling_share > 0.95 and found.telling >= 0.95 * found.looked_at and found.sign, found
    assert found.first.startswith(rows().path.name)
    assert found.share > 0.75, "short labels are not looked for backwards"


@pytest.mark.parametrize("written", CODES.values(), ids=list(CODES))
def test_a_code_that_alone_tells_the_label_is_found(written: Written) -> None:
    found = asked(changed(quickstart(), written))
    assert found.telling_share > 0.9 and found.rows == 0 and found.sign


@pytest.mark.parametrize("share", [0.2, 0.5])
def test_a_label_in_a_part_of_the_prompts_is_found_and_counted(share: float) -> None:
    draw = random.Random(3)
    found = asked(changed(quickstart(), lambda text, label, n: f"{text} [{label}]" if draw.random() < share else text))
    assert found.telling == found.rows and found.telling_share == pytest.approx(share, abs=0.05) == found.share


def test_a_label_in_the_prompts_of_half_of_the_labels_is_found() -> None:
    found = asked(changed(quickstart(), lambda text, label, n: f"{text} [{label}]" if n % 2 else text))
    assert found.telling == found.rows == sum(
        rows for n, rows in enumerate(sizes(quickstart())) if n % 2
    ), "each of their rows"  # fmt: skip


def sizes(rows: Dataset) -> list[int]:
    """The number of rows of each label, in the order of the labels."""
    answers = [example.answer for example in rows.examples]
    return [answers.count(label) for label in sorted(set(answers))]


def test_a_mark_that_one_of_two_labels_always_has_is_found() -> None:
    rows = quickstart()
    kept = sorted({example.answer for example in rows.examples})[:2]
    two = replace(rows, examples=tuple(example for example in rows.examples if example.answer in kept))
    assert not asked(two).telling
    found = asked(changed(two, lambda text, label, n: text if n else f"[x] {text}"))
    assert found.telling >= 30 and "'x'" in found.sign and found.rows == 0


def test_test_rows_that_tell_more_than_the_training_rows_are_what_is_shown() -> None:
    rows = quickstart()
    told = changed(rows, LABELS["brackets"])
    found = answer_in_prompt(rows, told, task.detect(rows))
    assert found is not None and found.telling_share == 1
    assert answer_in_prompt(rows, replace(told, examples=()), task.detect(rows)) == asked(rows)


# what is no leak


def test_the_rows_of_the_examples_tell_nothing() -> None:
    assert asked(quickstart()).telling == asked(quickstart()).rows == 0
    found = asked(tickets())
    assert (found.telling, found.rows, found.looked_at, found.sign, found.first) == (0, 3, 240, "", "")


def test_an_everyday_word_that_is_a_label_is_no_leak() -> None:
    def written(text: str, label: str, n: int) -> str:
        return f"I want a refund. {text}" if label == named and draw.random() < 0.9 else text

    draw, rows = random.Random(1), quickstart()
    named = sorted({example.answer for example in rows.examples})[3]
    renamed = replace(rows, examples=tuple(
        replace(each, answers=("refund",)) if each.answer == named else each for each in changed(rows, written).examples
    ))  # fmt: skip
    found = asked(renamed)
    assert found.rows >= 25 and not found.telling


def test_words_that_many_texts_have_are_no_leak() -> None:
    draw = random.Random(2)
    labels = ["positive", "negative", "sport"]
    rows = [
        (f"{anywhere(example.prompt, draw.choice(labels))}", draw.choice(labels)) for example in quickstart().examples
    ]
    found = asked(of_pairs(rows))
    assert found.share == pytest.approx(1 / 3, abs=0.1) and not found.telling


def of_pairs(pairs: list[tuple[str, str]]) -> Dataset:
    """A file of (prompt, label) rows."""
    examples = tuple(Example(({"role": "user", "content": text},), (label,), None, f"train.jsonl:{line}")
                     for line, (text, label) in enumerate(pairs, 1))  # fmt: skip
    return Dataset(examples, "text,label", Path("train.jsonl"), "", ("text", "label"), 0, "label")


def test_listed_options_are_no_leak() -> None:
    draw = random.Random(5)
    rows = [
        (f"{example.prompt}\n A: yes it is\n B: no it is not", draw.choice("AB")) for example in quickstart().examples
    ]
    found = asked(of_pairs(rows))
    assert found.share == 1 and not found.telling


def test_one_text_with_many_numbers_counts_once() -> None:
    texts = {"my card was declined": "billing", "where is my order": "delivery", "the money went back": "refund"}
    rows = [(f"{text} {number}", label) for number in range(20) for text, label in texts.items()]
    found = asked(of_pairs(rows))
    assert (found.looked_at, found.telling) == (3, 0)


def test_open_answers_are_not_looked_at() -> None:
    rows = of_pairs([(f"say {number} twice", f"{number} {number}") for number in range(40)])
    open_rows = replace(rows, answer_column="answer")
    assert task.detect(open_rows).kind != "closed" and answer_in_prompt(open_rows, None, task.detect(open_rows)) is None


def test_long_files_and_long_prompts_are_looked_at_in_part() -> None:
    longest = {1: "lorem " * 9000}
    pairs = [(f"{longest.get(number, '')}{number:b} {'ab'[number % 2] * (number % 90)}", "ab"[number // 2 % 2])
             for number in range(2 * MOST_ROWS + 2)]  # fmt: skip
    assert 0 < asked(of_pairs(pairs)).looked_at <= MOST_ROWS


@pytest.mark.parametrize(
    "text",
    ["", " \n ", "\u200b", "=" * 5000, "A" * 5000 + "=", "a:" * 1000, "((((" * 2000, "👍" * 99, "a" * 20_000 + " :"],
)
def test_odd_prompts_are_read(text: str) -> None:
    rows = [(f"{text}{'xyz'[number % 3] * (number // 3)}", "ab"[number % 2]) for number in range(60)]
    assert not asked(of_pairs(rows)).telling


def test_prompts_that_tell_are_refused_unless_that_is_allowed() -> None:
    found = asked(changed(quickstart(), LABELS["brackets"]))
    with pytest.raises(RiyazError) as error:
        refuse_telling(found, "train.jsonl", allow=False)
    assert str(error.value) == (
        "train.jsonl: 450 of 450 different prompts (100.0%) tell their label, such as train.jsonl:1: it stands at "
        "the end; remove it from the prompts, or pass --allow-answer-in-prompt if it will stand in new prompts too"
    )
    assert error.value.options == {"allow_answer_in_prompt": True}
    refuse_telling(found, "train.jsonl", allow=True)
    refuse_telling(asked(quickstart()), "train.jsonl", allow=False)
    refuse_telling(None, "train.jsonl", allow=False)


SIGNS = {
    "emoji": ("\U0001f600", "\U0001f621", "\U0001f914"), "hearts": ("\u2764\ufe0f", "\u2b50", "\u2b55"),
    "signs": ("+", "-", "="), "signed numbers": ("-1", "0", "1"),
    "tails": ("C", "C++", "C#"), "marks": ("!", "!!", "?!"),
}  # fmt: skip
AT: dict[str, Written] = {
    "end": lambda text, label, _: f"{text} {label}", "brackets": lambda text, label, _: f"{text} [{label}] thanks",
    "beginning": lambda text, label, _: f"{label} {text}",
    "after a name": lambda text, label, _: f"rated: {label} {text}",
}  # fmt: skip


def signed(names: tuple[str, ...]) -> Dataset:
    """300 rows with labels that are no words."""
    rows = quickstart()
    number = {label: place % 3 for place, label in enumerate(sorted({each.answer for each in rows.examples}))}
    examples = tuple(replace(each, answers=(names[number[each.answer]],)) for each in rows.examples[:300])
    return replace(rows, examples=examples)


def told(rows: Dataset) -> AnswerInPrompt:
    found = answer_in_prompt(rows, None, task.detect(rows, kind="closed"))
    assert found is not None
    return found


@pytest.mark.parametrize("at", AT)
@pytest.mark.parametrize("kind", SIGNS)
def test_a_label_without_letters_is_found(kind: str, at: str) -> None:
    rows = signed(SIGNS[kind])
    found = told(changed(rows, AT[at]))
    assert found.telling_share > 0.9 and found.share > 0.9, found
    assert not told(rows).telling


def test_a_coloured_and_a_plain_form_are_one_emoji() -> None:
    rows = signed(SIGNS["hearts"])
    assert told(changed(rows, lambda text, label, _: f"{text} {label.replace(chr(0xFE0F), '')}")).telling_share > 0.9


def test_signs_between_words_are_no_labels() -> None:
    """Nearly every text has hyphens and full stops: they tell nothing."""
    rows = changed(signed(("-", ".", ",")), lambda text, _, __: f"well-known, {text} - or so, in short.")
    assert not told(rows).telling


QUESTIONS = [
    {"name": "desk", "type": "choice", "instructions": "Which desk?", "column": "desk",
     "choices": [{"value": name} for name in DESKS[:4]]},
    {"name": "angry", "type": "predicate", "instructions": "Is the customer angry?", "column": "angry"},
    {"name": "stars", "type": "score", "instructions": "How content?", "column": "stars",
     "levels": [{"label": str(number)} for number in range(1, 6)]},
]  # fmt: skip


def questioned(tmp_path: Path, leak: str) -> tuple[Dataset, task.Task]:
    """200 rows that answer three questions, of which one stands in the prompts."""
    lines, draw = [], random.Random(3)
    for number, each in enumerate(quickstart().examples[:200]):
        row: dict[str, object] = {
            "desk": draw.choice(DESKS[:4]),
            "angry": draw.choice(["yes", "no"]),
            "stars": "12345"[number % 5],
        }
        told = {"angry": {"yes": "true", "no": "false"}.get(str(row["angry"]))}.get(leak, row.get(leak))
        lines.append(json.dumps({"text": f"{each.prompt} <{told}>" if leak else each.prompt, **row}))
    file = tmp_path / "rows.jsonl"
    file.write_text("\n".join(lines))
    rows = formats.load(file, prompt_column="text", questions=QUESTIONS)
    return rows, task.detect(rows)


@pytest.mark.parametrize("leak", ["desk", "angry", "stars"])
def test_the_answer_of_a_typed_question_is_found(tmp_path: Path, leak: str) -> None:
    rows, asked_of = questioned(tmp_path, leak)
    found = answer_in_prompt(rows, None, asked_of)
    assert found is not None and found.telling_share > 0.9 and found.sign.endswith(f"(question {leak!r})"), found
    with pytest.raises(RiyazError, match=f"question '{leak}'"):
        refuse_telling(found, "rows.jsonl", False)


def test_typed_questions_whose_answers_are_not_there_tell_nothing(tmp_path: Path) -> None:
    rows, asked_of = questioned(tmp_path, "")
    found = answer_in_prompt(rows, None, asked_of)
    assert found is not None and not found.telling and found.looked_at > 150
