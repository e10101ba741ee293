"""`riyaz generate` and `riyaz chat` say how fast an answer came, unless --quiet."""

import io
import re
from pathlib import Path

import pytest
import tiny_comparison

from riyaz.cli.stream import figures, pace
from riyaz.predictor import Stream, open_model
from riyaz.predictor.prediction import Timing

RATE = r"(?:\d{1,2}(?:\.\d+)?|\d{1,3}(?:,\d{3})*) a second"
LINE = re.compile(rf"^(\d+) tokens, {RATE}; prompt of (\d+) tokens in \d+\.\d\d s$", re.MULTILINE)
ANSWER = ("hello", "--max-tokens", 6)
command = tiny_comparison.command


def test_generate_says_it_on_stderr_and_in_json(model_folder: Path) -> None:
    told = command("generate", model_folder, *ANSWER)
    (found,) = LINE.findall(told.err)
    document = command("generate", model_folder, *ANSWER, "--json").document
    assert (int(found[0]), int(found[1])) == (document["tokens"], document["prompt_tokens"])
    messages = [{"role": "user", "content": "hello"}]
    (prompt,) = open_model(model_folder).tokenizer.render([messages])
    assert document["prompt_tokens"] == len(prompt) and document["tokens"] == 6
    assert document["tokens_s"] > 0 and document["prompt_s"] > 0


def test_quiet_is_silent(model_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    told = command("generate", model_folder, *ANSWER, "--quiet")
    assert told.out.strip() and told.err == ""
    for flags, lines in ((("--quiet",), 0), ((), 2)):
        monkeypatch.setattr("sys.stdin", io.StringIO("hello\nhello again\n"))
        told = command("chat", model_folder, "--max-tokens", 6, *flags)
        assert told.status == 0 and len(LINE.findall(told.err)) == lines
        assert flags == () or told.err == ""


def test_the_rate_is_of_the_tokens_after_the_first() -> None:
    def stream(*times: float) -> Stream:
        return Stream(iter(()), tokens=[0] * max(0, len(times) - 1), timing=Timing(1250, list(times)))

    assert pace(stream(10.0, 10.5, 10.75, 11.0)) == "3 tokens, 4 a second; prompt of 1,250 tokens in 0.50 s"
    assert ", 85.5 a second;" in pace(stream(0.0, 10.0, 10.0117))
    assert ", 1,710 a second;" in pace(stream(0.0, 10.0, 10.0 + 1 / 1710))
    assert ", 100 a second;" in pace(stream(0.0, 10.0, 10.0 + 1 / 99.96))
    assert pace(stream(10.0, 10.5)) == "1 token; prompt of 1,250 tokens in 0.50 s"
    assert pace(stream(10.0)) == pace(stream()) == pace(Stream(iter(()))) == ""
    assert figures(stream(10.0, 10.5, 11.0)) == {
        "tokens": 2, "tokens_s": 2.0, "prompt_tokens": 1250, "prompt_s": 0.5,
    }  # fmt: skip
    assert figures(stream(10.0))["tokens"] == 0 and figures(stream(10.0))["tokens_s"] is None
    assert set(figures(Stream(iter(["copied"]))).values()) == {None}, "an answer that is not generated"
