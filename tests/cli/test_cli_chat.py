"""chat and generate: how tokens are drawn, the system message, the limit, the commands and Ctrl-C."""

import io
import json
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import tiny_comparison
from conftest import Finished
from refusals import assert_refused
from tiny_comparison import Told, command

from riyaz.cli.sampling import decide, words
from riyaz.config import SamplingConfig
from riyaz.data.formats import load
from riyaz.engine.request import GREEDY, Sampling
from riyaz.predictor import FreePredictor, open_model
from riyaz.predictor.own_sampling import own_sampling
from riyaz.report.media.markup import printable

pytestmark = pytest.mark.usefixtures("one_core")
LIMIT = ("--max-tokens", "8")
DRAWN = {"do_sample": True, "temperature": 0.7, "top_p": 0.8, "top_k": 20, "repetition_penalty": 1.1}


def said(*answers: str) -> str:
    """What stdout has of answers: each on a line, without control characters."""
    return "".join(f"{printable(answer)}\n" for answer in answers)


def user(text: str) -> dict[str, str]:
    return {"role": "user", "content": text}


@pytest.fixture
def livelier(model_folder: Path, tmp_path: Path) -> Path:
    """The tiny model with settings of its own."""
    folder = tmp_path / "livelier"
    folder.mkdir()
    for file in model_folder.iterdir():
        (folder / file.name).write_bytes(file.read_bytes())
    (folder / "generation_config.json").write_text(json.dumps({"eos_token_id": 2, **DRAWN}))
    return folder


@pytest.fixture
def typed(monkeypatch: pytest.MonkeyPatch) -> Callable[..., Told]:
    """chat at a terminal where these lines are typed; an exception is raised in place of a line."""

    def run(*lines: str | BaseException, arguments: tuple[object, ...]) -> Told:
        left = iter(lines)

        def ask(prompt: str) -> str:
            line = next(left, EOFError())
            if isinstance(line, BaseException):
                raise line
            return line

        monkeypatch.setattr("sys.stdin", type("Terminal", (io.StringIO,), {"isatty": lambda self: True})())
        monkeypatch.setattr("builtins.input", ask)
        return command("chat", *arguments)

    return run


# how tokens are drawn


def test_the_models_own_settings_are_read() -> None:
    assert own_sampling({}) == own_sampling({"temperature": 0.5, "do_sample": False, "top_p": None}) == GREEDY
    assert own_sampling({"do_sample": True}) == Sampling(temperature=1.0)
    assert own_sampling(DRAWN) == Sampling(0.7, 20, 0.8, repetition_penalty=1.1)
    assert own_sampling({"repetition_penalty": 1.2}) == Sampling(repetition_penalty=1.2)
    for key, value in (("temperature", "hot"), ("top_p", 7), ("top_k", 2.5), ("repetition_penalty", -1)):
        with assert_refused(f"the model's generation_config.json: {key}: ", "give --" + key.replace("_", "-")):
            own_sampling({**DRAWN, key: value})


def test_generate_draws_as_the_model_says_unless_told_otherwise(livelier: Path, model_folder: Path) -> None:
    wanted = open_model(livelier).answer([user("hello")], 8, Sampling(0.7, 20, 0.8, repetition_penalty=1.1))
    told = command("generate", livelier, "hello", *LIMIT)
    assert told.out == said(wanted)
    line = (
        "tokens are drawn: temperature 0.7, top-k 20, top-p 0.8, repetition-penalty 1.1, seed 0 (from the model's gen"
    )
    assert line in told.err
    greedy = command("generate", livelier, "hello", *LIMIT, "--temperature", "0")
    assert greedy.out == said(open_model(model_folder).answer([user("hello")], 8)) and "(greedy)" in greedy.err
    plain = command("generate", model_folder, "hello", *LIMIT)
    assert plain.out == greedy.out and "each token is the likeliest one (greedy)\n" in plain.err
    seeds = [command("generate", livelier, "hello", *LIMIT, "--seed", seed).out for seed in (1, 1, 2)]
    assert seeds[0] == seeds[1] != seeds[2]


def test_flags_reach_the_engine_and_the_document(model_folder: Path) -> None:
    flags = ("--temperature", "0.9", "--top-k", "30", "--top-p", "0.9", "--min-p", "0.01", "--seed", "4")
    told = command("generate", model_folder, "hello", *LIMIT, *flags, "--repetition-penalty", "1.3", "--json")
    sampling = Sampling(0.9, 30, 0.9, 0.01, 4, 1.3)
    assert told.document["answer"] == open_model(model_folder).answer([user("hello")], 8, sampling)
    assert told.document["sampling"] == {
        "temperature": 0.9, "top_k": 30, "top_p": 0.9, "min_p": 0.01, "seed": 4, "repetition_penalty": 1.3,
    }  # fmt: skip


@pytest.mark.parametrize(
    ("flags", "line"),
    [
        (("--temperature", "-1"), "--temperature: -1.0 is too small; give at least 0"),
        (("--temperature", "inf"), "--temperature: inf is not a finite number"),
        (("--top-p", "1.5"), "--top-p: 1.5 is too large; give at most 1"),
        (("--min-p", "-0.1"), "--min-p: -0.1 is too small"),
        (("--top-k", "-1"), "--top-k: -1 is too small"),
        (("--repetition-penalty", "0"), "--repetition-penalty: 0.0 is too small; give more than 0"),
        (("--top-p", "0.9"), "--top-p: has no effect where each token is the likeliest; give --temperature too"),
        (("--seed", "3"), "--seed: has no effect where each token is the likeliest; give --temperature too"),
    ],
)
def test_values_that_cannot_be_are_refused(model_folder: Path, flags: tuple[str, ...], line: str) -> None:
    for verb in (("generate", model_folder, "hello"), ("chat", model_folder)):
        told = command(*verb, *flags)
        assert told.status == 2 and told.line.startswith(f"error: {line}") and told.out == ""


def test_what_chooses_or_copies_its_answers_takes_no_sampling(quick: Finished) -> None:
    for method, how in (("nearest", "copied"), ("lora", "chosen from labels")):
        told = command("generate", quick.artifact(method), "where is my card", "--temperature", "0.5")
        assert told.line == f"error: --temperature: has no effect where answers are {how}; leave it out"
        plain = command("generate", quick.artifact(method), "where is my card")
        assert plain.status == 0 and plain.out.strip() in tiny_comparison.CLOSED and plain.err == ""
    told = command("chat", quick.artifact("nearest"), "--system", "Be brief.")
    assert told.line == "error: --system: has no effect where answers are copied; leave it out"
    assert command("generate", quick.artifact("lora"), "my card", "--system", "Be brief.").status == 0


def test_an_artifact_answers_as_it_was_measured(livelier: Path) -> None:
    from dataclasses import replace

    from pages_task import SHORT

    predictor = open_model(livelier)
    assert decide(SamplingConfig(), predictor)[0].temperature == 0.7
    assert decide(SamplingConfig(), replace(predictor, task=SHORT))[0] == GREEDY
    assert decide(SamplingConfig(temperature=0.2), replace(predictor, task=SHORT))[0] == Sampling(0.2)
    assert decide(SamplingConfig(temperature=0.2), predictor)[0] == Sampling(0.2), "and nothing of the file's"
    assert words(Sampling(0.2, seed=3)) == "tokens are drawn: temperature 0.2, seed 3"
    assert words(Sampling(0.2, 2_500_000, seed=20261126)).endswith("temperature 0.2, top-k 2500000, seed 20261126")
    assert words(Sampling(repetition_penalty=1.2)) == "each token is the likeliest one (greedy), repetition-penalty 1.2"


# system message and limit


def test_a_system_message_stands_before_the_question(model_folder: Path) -> None:
    messages = [{"role": "system", "content": "Shout."}, user("hello")]
    told = command("generate", model_folder, "hello", *LIMIT, "--system", "Shout.")
    assert told.out == said(open_model(model_folder).answer(messages, 8))


def test_an_answer_that_the_limit_cuts_is_said_to_be(model_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    told = command("generate", model_folder, "hello", "--max-tokens", "3", "--json")
    assert told.document["cut"] is True and "cut off at 3 tokens; --max-tokens sets the limit" in told.err
    stream = open_model(model_folder).stream([user("hello")], max_tokens=3)
    assert not stream.cut and list(stream) and stream.cut
    monkeypatch.setattr("riyaz.text.tokenizer.Tokenizer.eos_ids", frozenset(stream.tokens))
    told = command("generate", model_folder, "hello", "--max-tokens", "3", "--json")
    assert told.document["cut"] is False and "cut off" not in told.err


# chat


def test_a_conversation_with_commands(typed: Callable[..., Told], model_folder: Path, tmp_path: Path) -> None:
    saved = tmp_path / "talk.jsonl"
    told = typed(
        "/help", "hello", "/system Shout.", "and you?", f"/save {saved}", "/reset", "hello", "/system",
        "", " /etc/hosts?", "/nonsense", "/save", arguments=(model_folder, *LIMIT),
    )  # fmt: skip
    model = open_model(model_folder)
    shout = {"role": "system", "content": "Shout."}
    first = model.answer([user("hello")], 8)
    second = model.answer([shout, user("and you?")], 8)
    third, fourth = model.answer([shout, user("hello")], 8), model.answer([user("/etc/hosts?")], 8)
    assert told.status == 0 and told.out == said(first, second, third, fourth)
    for line in (
        "/save FILE     write", "system message: Shout.; a new conversation begins\n", "3 messages in ",
        "\na new conversation begins\n", "no system message; a new conversation begins\n",
        "error: there is no command /nonsense; /help lists the commands", "error: /save: names no file",
        "cut off at 8 tokens",
    ):  # fmt: skip
        assert line in told.err, line
    (row,) = load(saved, answers_required=True).examples
    assert (*row.messages, {"role": "assistant", "content": row.answer}) == (
        shout, user("and you?"), {"role": "assistant", "content": second},
    )  # fmt: skip


def test_saving_overwrites_nothing_and_the_conversation_goes_on(
    typed: Callable[..., Told], model_folder: Path, tmp_path: Path
) -> None:
    taken = tmp_path / "taken"
    taken.write_text("mine")
    told = typed(
        f"/save {tmp_path / 'new'}", "hello", f"/save {taken}", f"/save {tmp_path / 'no/such'}", "hello again",
        arguments=(model_folder, *LIMIT),
    )  # fmt: skip
    assert taken.read_text() == "mine" and not (tmp_path / "new").exists()
    assert "error: /save: there is nothing to save yet" in told.err
    assert f"error: {taken}: exists already; choose another name" in told.err
    assert f"error: {tmp_path / 'no'}: the folder does not exist" in told.err
    assert told.status == 0 and len(told.out.splitlines()) == 2


def test_quiet_leaves_out_neither_errors_nor_what_commands_say(
    typed: Callable[..., Told], model_folder: Path, tmp_path: Path
) -> None:
    lines = ("/help", "hello", f"/save {tmp_path / 'talk.jsonl'}", "/nonsense", "/system Shout.", "word " * 9000)
    told = typed(*lines, arguments=(model_folder, *LIMIT, "--quiet"))
    assert told.status == 0 and len(told.out.splitlines()) == 1
    for line in (
        "/save FILE     write", "2 messages in ", "error: there is no command /nonsense", "message: Shout.; a new",
        "does not fit the context",
    ):  # fmt: skip
        assert line in told.err, line
    assert "cut off at" not in told.err and "a second" not in told.err and "Ctrl-D leaves" not in told.err


def test_a_conversation_longer_than_the_context_can_begin_anew(
    typed: Callable[..., Told], model_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    long = "word " * 700
    told = typed(long, long, "/reset", long, "/reset", long * 9, arguments=(model_folder, *LIMIT))
    assert told.status == 0 and len(told.out.splitlines()) == 2
    first, alone = [line for line in told.err.splitlines() if "does not fit the context" in line]
    assert first.endswith("; /reset begins a new conversation")
    assert alone.endswith("; shorten it or choose a model with a longer context")
    monkeypatch.setattr("sys.stdin", io.StringIO(f"{long}\n{long}\n"))
    told = command("chat", model_folder, *LIMIT)
    assert told.status == 2 and told.line.endswith("; an empty line begins a new conversation")
    told = command("generate", model_folder, long * 9, *LIMIT)
    assert told.line.endswith("; shorten it or choose a model with a longer context")


def test_each_question_draws_anew_and_a_seed_repeats_the_conversation(
    typed: Callable[..., Told], model_folder: Path
) -> None:
    arguments = (model_folder, *LIMIT, "--temperature", "1", "--seed", "3")
    out = [typed("hello", "", "hello", arguments=arguments).out for _ in range(2)]
    assert out[0] == out[1]
    first, second = out[0].splitlines()
    assert first != second


def interrupted(monkeypatch: pytest.MonkeyPatch, after: int, number: signal.Signals = signal.SIGINT) -> None:
    """Ctrl-C, or another signal, after so many pieces of the first answer."""
    stream, calls = FreePredictor._pieces, []

    def pieces(self: FreePredictor, prepared: Any, *more: Any) -> Iterator[str]:
        calls.append(prepared)
        for count, piece in enumerate(stream(self, prepared, *more)):
            if count == after and len(calls) == 1:
                signal.raise_signal(number)
            yield piece

    monkeypatch.setattr(FreePredictor, "_pieces", pieces)


def test_ctrl_c_stops_the_answer_and_the_conversation_goes_on(
    typed: Callable[..., Told], model_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = open_model(model_folder)
    pieces = list(model.stream([user("hello")], max_tokens=8))
    interrupted(monkeypatch, after=2)
    told = typed("hello", "and you?", arguments=(model_folder, *LIMIT))
    part = "".join(pieces[:2])
    assert "stopped\n" in told.err and told.status == 0
    after = model.answer([user("hello"), {"role": "assistant", "content": part}, user("and you?")], 8)
    assert told.out == said(part, after), "what was said is part of the conversation"


def test_a_signal_that_ends_commands_ends_chat_during_an_answer_too(
    typed: Callable[..., Told], model_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def end(number: int, frame: Any) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, end)
    try:
        interrupted(monkeypatch, after=1, number=signal.SIGTERM)
        told = typed("hello", "and you?", arguments=(model_folder, *LIMIT))
    finally:
        signal.signal(signal.SIGTERM, before)
    assert told.status == 130 and told.err.endswith("left the chat\n")
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_ctrl_c_at_the_prompt_leaves_in_words_of_its_own(typed: Callable[..., Told], model_folder: Path) -> None:
    told = typed("hello", KeyboardInterrupt(), arguments=(model_folder, *LIMIT))
    assert told.status == 130 and told.err.endswith("left the chat\n") and "same command" not in told.err


def test_ctrl_c_without_a_terminal_and_in_generate_says_stopped(
    model_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for verb in (("chat", model_folder), ("generate", model_folder, "hello")):
        with monkeypatch.context() as patch:
            patch.setattr("sys.stdin", io.StringIO("hello\n"))
            interrupted(patch, after=1)
            told = command(*verb, *LIMIT)
        assert told.status == 130 and told.err.endswith("\nstopped\n") and "same command" not in told.err


def test_piped_lines_are_questions_whatever_they_begin_with(
    model_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO("/help\n"))
    told = command("chat", model_folder, *LIMIT)
    assert told.out == said(open_model(model_folder).answer([user("/help")], 8))
