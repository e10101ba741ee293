"""Scores of JSON, commands, slots and lengths by hand-made cases, of executed answers by verdicts, and of nats."""

import json
import shlex
import sqlite3
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from grids import examples
from hypothesis import given, settings
from hypothesis import strategies as st
from linear_time import linear

from riyaz.data import Example
from riyaz.data.checks import Check
from riyaz.data.task import Task
from riyaz.errors import RiyazError
from riyaz.json_files import write_json, write_lines
from riyaz.metrics import sql
from riyaz.metrics.code import texts_of
from riyaz.metrics.commands import command
from riyaz.metrics.covered import first_words, length_ratio, slots
from riyaz.metrics.intervals import interval, mean_interval
from riyaz.metrics.paired import paired_test, shortfall
from riyaz.metrics.scores import row_extras, score_rows
from riyaz.metrics.sql import query_of
from riyaz.metrics.structured import exact_object, json_f1, parses, unfenced
from riyaz.predictor import Prediction
from riyaz.results import PREDICTIONS, RESULT, Answer, Evaluation
from riyaz.scoring import by_text, score
from riyaz.scoring import row_extras as scoring_extras

LEAVES = st.none() | st.booleans() | st.integers(-3, 3) | st.sampled_from(["a", "b", " a  b"])
N = 300_000  # characters of long answers
VALUES = st.recursive(
    LEAVES, lambda x: st.lists(x, max_size=3) | st.dictionaries(st.sampled_from("xyz"), x, max_size=3)
)


# JSON


@pytest.mark.parametrize(
    "prediction, answer, expected",
    [
        ('{"name": "Ann", "day": "Monday"}', '{"day": "Monday", "name": "Ann"}', 1),
        ('{"name": "Ann", "day": "Tuesday"}', '{"name": "Ann", "day": "Monday"}', 1 / 2),
        ('{"name": "Ann"}', '{"name": "Ann", "day": "Monday"}', 2 / 3),
        (
            '{"name": "Ann", "day": "Monday"}',
            '{"name": "Ann", "day": null}',
            2 / 3,
        ),  # a value in place of null is wrong
        ('{"name": "Ann"}', '{"name": "Ann", "day": null}', 1),  # a null is no field
        ("{}", '{"name": null, "tags": []}', 1),
        ("{}", '{"name": "Ann"}', 0),
        ('{"n": [1, 2, 2]}', '{"n": [2, 1, 2]}', 1),
        ('{"n": [1, 2]}', '{"n": [2, 2]}', 1 / 2),
        ('{"n": 1.0}', '{"n": 1}', 1),
        ('{"n": "1"}', '{"n": 1}', 0),
        ('{"n": true}', '{"n": 1}', 0),
        ('{"a": {"b": 1}}', '{"a.b": 1}', 0),
        ('{"s": " red   bike "}', '{"s": "red bike"}', 1),
        ('{"s": "Red bike"}', '{"s": "red bike"}', 0),
        ('```json\n{"n": 1}\n```', '{"n": 1}', 1),
        ('```json\n{"n": 1}', '{"n": 1}', 1),
        ('Here you are: {"n": 1}', '{"n": 1}', 0),
        ('{"n": 1', '{"n": 1}', 0),
        ('{"n": NaN}', '{"n": 1}', 0),
        ("[" * 100_000, '{"n": 1}', 0),
        ("", '{"n": null}', 0),
    ],
)
def test_json_f1(prediction: str, answer: str, expected: float) -> None:
    assert json_f1(prediction, [answer]) == pytest.approx(expected)


def leaves(value: Any, path: tuple[str, ...] = ()) -> list[tuple[object, ...]]:
    """The fields of a value by plain recursion."""
    if isinstance(value, dict):
        return [leaf for name, inner in value.items() for leaf in leaves(inner, (*path, name))]
    if isinstance(value, list):
        return [leaf for inner in value for leaf in leaves(inner, (*path, "[]"))]
    same = " ".join(value.split()) if isinstance(value, str) else value
    return [] if value is None else [(path, type(same), same)]


@settings(max_examples=examples(200), deadline=None)
@given(VALUES, VALUES)
def test_json_f1_equals_precision_and_recall(one: Any, other: Any) -> None:
    found, wanted = Counter(leaves(one)), Counter(leaves(other))
    hits = sum((found & wanted).values())
    precision, recall = (hits / max(1, sum(each.values())) for each in (found, wanted))
    expected = 2 * precision * recall / (precision + recall) if hits else float(not found and not wanted)
    assert json_f1(json.dumps(one), [json.dumps(other)]) == pytest.approx(expected)
    assert json_f1(json.dumps(one), [json.dumps(other), json.dumps(one)]) == 1


def test_parse_rate_and_whole_objects() -> None:
    assert [parses(text, []) for text in ('{"n": 1}', "[1]", "```\n{}\n```", "n", "{} {}")] == [1, 1, 1, 0, 0]
    assert exact_object('{"b": 2, "a": 1}', ['{"a": 1, "b": 2}']) == 1
    assert exact_object('{"a": 1}', ['{"a": 1, "b": null}']) == 0, "nulls count"
    assert exact_object("[2, 1]", ["[1, 2]"]) == 0 and exact_object("x", ["x"]) == 0
    assert exact_object('{"a": 1.0, "b": "e\u0301  x"}', ['{"a": 1, "b": "\u00e9 x"}']) == 1, "values are json_f1's"
    assert exact_object('{"a": [[1], []]}', ['{"a": [[1], [{}]]}']) == 0 and exact_object("[]", ["{}"]) == 0
    assert exact_object('{"a": "1"}', ['{"a": 1}']) == 0 and exact_object('{"a": true}', ['{"a": 1}']) == 0


@settings(max_examples=examples(200), deadline=None)
@given(VALUES, VALUES)
def test_a_whole_object_has_all_the_fields(one: Any, other: Any) -> None:
    some, others = json.dumps(one), json.dumps(other)
    assert exact_object(some, [some]) == 1 and exact_object(some, [others]) <= json_f1(some, [others])


@pytest.mark.parametrize(
    "text",
    ["\n" * N, " " * N, "```x\n" + "\n" * N, "```x\n" + "\n   " * (N // 4), "`" * N, "```" + "a" * N, "[" * N,
     "select " + "[" * N, "with a (\n" * (N // 9), "def\n" * (N // 4), "```\n" * (N // 4), "select a\n" + "\n" * N,
     "x: " * (N // 3), "'" * N, "~~~ " + "\t" * N, "{" * N, "{a," * (N // 3), "`{" * (N // 2)],
)  # fmt: skip
def test_long_answers_of_any_kind_are_read_in_linear_time(text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sql, "LONGEST", 2 * N)  # a longer one is no query
    with linear():
        unfenced(text), texts_of(text), query_of(text), query_of("select 1\n" + text), command(text, ["ls"])


# Commands

MANY = [f"-o{i} {i}" for i in range(12)]  # more than every set of which is tried


@pytest.mark.parametrize(
    "prediction, answer, expected",
    [
        ("ls -l src", "ls src -l", 1),
        ("ls   -l 'src'", 'ls -l "src"', 1),
        ("tar -x -f a.tar", "tar -f a.tar -x", 1),
        ("sort -k 2 -t , -r f", "sort -r -t , -k 2 f", 1),
        ("head -n 5 f", "head f -n 5", 1),
        ("head -n 5 f", "head -n 6 f", 0),
        ("cp a b", "cp b a", 0),
        ("cp -r a b", "cp -r b a", 0),
        ("tool -a 1 -b 2", "tool -a 2 -b 1", 0),  # each option keeps its value
        ("rm -- -a -b", "rm -- -b -a", 0),  # names behind --
        ("cat f|wc -l", "cat f | wc -l", 1),
        ("wc -l | cat f", "cat f | wc -l", 0),
        ("cat f ; wc -l", "cat f | wc -l", 0),
        ("grep '#x' f", "grep '#x' f", 1),
        ("$ git log --oneline -n 1", "git log -n 1 --oneline", 1),
        ("```sh\ngit status\n```", "git status", 1),
        ("git status  # shows it", "git status", 0),
        ("grep '|' f", "grep | f", 0),
        ("grep '|' f", 'grep "|" f', 1),
        ("grep '|' f", "grep \\| f", 1),
        ("rm *.txt", "rm '*.txt'", 0),
        ("rm a?", "rm 'a?'", 0),
        ("rm [ab]", "rm '[ab]'", 0),
        ("rm *.txt  f", 'rm *."txt" f', 1),
        ("ls ~", "ls '~'", 0),
        ("ls a~", "ls 'a~'", 1),
        ('echo "$HOME"', "echo '$HOME'", 0),
        ('echo "$HOME"', "echo $HOME", 1),  # expanded in both
        ('echo "\\$HOME"', "echo '$HOME'", 1),
        ('echo "`date`"', "echo '`date`'", 0),
        ("echo '#x'", "echo #x", 0),
        ("echo 'a>b'", "echo a>b", 0),
        ("echo ';' '&' '<'", "echo ; & <", 0),
        ("cd a\nls", "cd a ls", 0),
        ("cd a\n\nls", "cd a; ls", 1),
        ("cat f |\n  wc", "cat f | wc", 1),
        ("ls \\\n  -l", "ls -l", 1),
        ("echo 'a\nb'", "echo a\nb", 0),
        ("make 2>f", "make 2 >f", 0),
        ("make 2>f", "make 2> f", 1),
        ("a && b", "a & & b", 0),
        ("(cd a;(ls))", "( cd a ; ( ls ) )", 1),
        ("echo \\", "echo", 0),
        ("echo 'open", "echo open", 0),
        ("", "ls", 0),
        ("tool " + " ".join(MANY), "tool " + " ".join(reversed(MANY)), 1),
    ],
)
def test_command(prediction: str, answer: str, expected: float) -> None:
    assert command(prediction, [answer]) == expected


@pytest.mark.parametrize(
    "prediction, answer, expected",
    [
        ("`ls -l`", "ls -l", 1),
        ("`$ ls -l`", "ls -l", 1),
        ("`ls -l", "ls -l", 0),
        ("`ls` `pwd`", "ls pwd", 0),
        ("ls -l;", "ls -l", 1),
        ("ls -l ;\n", "ls -l", 1),
        ("cd a; ls;", "cd a\nls", 1),
        ("ls ';'", "ls", 0),
        ("ls;;", "ls", 0),
        ("ls &", "ls", 0),
        (";", "", 0),
        ("find . -exec rm {} \\;", "find . -exec rm {}", 0),
        ("find . -exec rm {} \\;", "find . -exec rm '{}' ';'", 1),  # no list in the braces: a word like others
        ("echo {a,b}", "echo '{a,b}'", 0),
        ("echo {1..3}", 'echo "{1..3}"', 0),
        ("echo {a,b}", 'echo {"a",b}', 1),
        ("git stash drop stash@{0}", "git stash drop 'stash@{0}'", 1),
        ("echo ${HOME}", 'echo "${HOME}"', 1),
        ("echo ${a},{b}", 'echo "${a},{b}"', 1),
        ("{ ls; }", "'{' ls; }", 0),
    ],
)
def test_signs_around_a_command_and_braces_in_it(prediction: str, answer: str, expected: float) -> None:
    assert command(prediction, [answer]) == command(answer, [prediction]) == expected


@pytest.mark.parametrize(
    "prediction, answer, expected",
    [
        ('find . -delete -name "*.tmp"', 'find . -name "*.tmp" -delete', 0),
        ("/usr/bin/find . -delete -empty", "/usr/bin/find . -empty -delete", 0),
        ("sudo find . -delete -empty", "sudo find . -empty -delete", 0),
        ("if find . -delete -empty", "if find . -empty -delete", 0),
        ("A=1 find . -delete -empty", "A=1 find . -empty -delete", 0),
        ("grep -r find -i .", "grep -i find -r .", 1),  # a word of another program
        ("ffmpeg -c copy -i a b", "ffmpeg -i a -c copy b", 0),
        ("xargs -r rm", "xargs rm -r", 0),
        ("cat f | xargs -r rm", "cat f | xargs rm -r", 0),
        ("ssh host ls -t", "ssh -t host ls", 0),
        ("timeout -k 5 10 ls", "timeout 5 -k 10 ls", 0),
        ("nohup ls -l a", "nohup ls a -l", 0),
        ("-l ls", "ls -l", 0),
        ("xargs -n 1 -P 4 rm", "xargs -P 4 -n 1 rm", 1),  # nothing stands between the options
        ("sudo -u ann ls -l -a", "sudo -u ann ls -a -l", 1),
        ("docker run --rm -it ubuntu ls", "docker run -it --rm ubuntu ls", 1),
        ("docker run --name web --rm ubuntu", "docker run --rm --name web ubuntu", 1),
        ("docker run ubuntu ls --rm", "docker run --rm ubuntu ls", 0),
        ("docker --rm run ubuntu", "docker run --rm ubuntu", 0),
        ("git -p log", "git log -p", 0),  # before and behind the subcommand
        ("git push origin main --force", "git push --force origin main", 1),
    ],
)
def test_options_keep_their_place_where_it_decides(prediction: str, answer: str, expected: float) -> None:
    assert command(prediction, [answer]) == command(answer, [prediction]) == expected


@pytest.mark.parametrize(
    "prediction, answer, expected",
    [
        ("ls -al", "ls -la", 1),
        ("rm -fr a", "rm -rf a", 1),
        ("ls -al", "ls -a -l", 0),
        ("ls -al", "ls -lA", 0),
        ("tar -zxvf a.tgz", "tar -xzvf a.tgz", 1),
        ("tar -xzfv a.tgz", "tar -xzvf a.tgz", 0),  # a file called v
        ("git commit -ma x", "git commit -am x", 0),
        ("head -n12", "head -n21", 0),
        ("tool --la", "tool --al", 0),
        ("rm -- -al", "rm -- -la", 0),
        ("rm '-al'", "rm -la", 1),
        ("ssh -tA host", "ssh -At host", 0),
        ("find . -al", "find . -la", 0),
    ],
)
def test_letters_behind_one_dash(prediction: str, answer: str, expected: float) -> None:
    assert command(prediction, [answer]) == command(answer, [prediction]) == expected


@settings(max_examples=examples(100), deadline=None)
@given(st.lists(st.text("ab -'\"\\|;$#é", min_size=1, max_size=6), min_size=1, max_size=6))
def test_a_command_equals_itself_in_other_quotes(words: list[str]) -> None:
    line = shlex.join(words)
    assert command("   ".join(f"'{word}'" if "'" not in word else shlex.quote(word) for word in words), [line]) == 1


# Written text


def test_slots_occur_as_they_stand_or_with_an_ending() -> None:
    assert slots("Ann's RED  bikes cost 45 euros.", ["Ann", "red bike", "45"]) == 1
    assert slots("It costs 145 or 45.50 or 2,45.", ["45"]) == 0 and slots("It costs 45.", ["45"]) == 1
    assert slots("The phone costs it.", ["one"]) == 0 and slots("A (one-way) l'one", ["one"]) == 1
    assert slots("An A4 page, 2x45", ["4", "45"]) == 0 and slots("$45 a5, 'cat'", ["45", "cat"]) == 1
    assert slots("Fahrrad, Rad", ["rad"]) == 1 and slots("Fahrrad", ["rad"]) == 0
    assert slots("私は東京へ5回", ["東京", "5"]) == 1, "writing without spaces has no such boundary"
    assert slots('It’s “new” and it\'s "old"', ["it's", "“old”", '"new"', "it’s"]) == 1, "curly quotes are quotes"
    assert slots("Ann", ["Ann", "Ben", "Cem"]) == pytest.approx(1 / 3) and slots("", []) == 1


def test_length_ratio_takes_the_nearest_reference() -> None:
    assert length_ratio("x" * 12, ["y" * 10, "z" * 20]) == pytest.approx(1.2)
    assert length_ratio("", ["y"]) == 0 and length_ratio("ab", [""]) == 2


def test_text_beyond_the_limit_of_words_earns_nothing() -> None:
    row = Example((), ("the cat sat on the mat",))
    long = "a dog lay there then the cat sat on the mat"
    whole, cut = score_rows("rouge_l", [long], [row]), score_rows("rouge_l", [long], [row], max_words=4)
    assert whole[0] > 0.7 and cut[0] == 0 and first_words(" a  b\nc d", 3) == " a  b\nc"
    (extra,) = row_extras("rouge_l", [long], [row], max_words=4)
    assert extra["chrf"] < 0.2 and extra["length_ratio"] == pytest.approx(len(long) / 22), (
        "lengths are of the whole text"
    )
    assert score_rows("json_f1", ['{"a": "b c"}'], [Example((), ('{"a": "b c"}',))], max_words=1)[0] == 1


def test_slots_stand_beside_the_score_of_rows_that_have_some() -> None:
    rows = [Example((), ("Ann rides",), check=Check(slots=("Ann", "bike"))), Example((), ("Ben walks",))]
    first, second = row_extras("chrf", ["Ann rides", "Ben walks"], rows)
    assert first["slots"] == 0.5 and "slots" not in second
    assert score_rows("slots", ["Ann rides"], rows[:1]).tolist() == [0.5]
    assert row_extras("slots", ["Ann's bike", "Ann"], [rows[0], rows[0]])[0]["slots_all"] == 1
    assert row_extras("slots", ["Ann"], rows[:1])[0]["slots_all"] == 0


def test_an_answer_to_a_row_with_a_schema_fits_it_or_not() -> None:
    schema = {"type": "object", "properties": {"n": {"type": "integer"}, "day": {"enum": ["Mon", "Tue"]}},
              "required": ["n", "day"], "additionalProperties": False}  # fmt: skip
    row = Example((), ('{"n": 1, "day": "Mon"}',), where="t:1", check=Check(schema=json.dumps(schema)))
    said = ['{"n": 2,"day": "Tue"}', '```json\n{"n": 2, "day": "Tue"}\n```', '{"day": "Tue", "n": 2}',
            '{"n": 2, "day": "Sun"}', '{"n": 2, "day": "Tue"', '{"n": 2, "day": "Tue"} yes', ""]  # fmt: skip
    for metric in ("json_f1", "rouge_l"):
        task = Task("free", (), metric, "", "")  # type: ignore[arg-type]
        made = scoring_extras(task, [Prediction(text) for text in said], [row] * len(said))
        assert [each["fits_schema"] for each in made] == [1, 1, 0, 0, 0, 0, 0]
        bare = Example((), ('{"n": 1}',))
        mixed = score(task, [Prediction(said[0]), Prediction("{}"), Prediction("x")], [row, bare, row])
        assert mixed.extras["fits_schema"] == 0.5, "the mean of the rows that have a schema"
    closed = Task("closed", ("a", "b"), "accuracy", "", "")
    assert "fits_schema" not in scoring_extras(closed, [Prediction("a")], [row])[0]


# Executed answers


def test_queries_and_code_are_scored_with_the_share_that_runs(tmp_path: Path) -> None:
    with sqlite3.connect(tmp_path / "d.sqlite") as connection:
        connection.execute("create table t (n integer)")
        connection.executemany("insert into t values (?)", [(1,), (2,), (3,)])
    row = Example((), ("select n from t where n > 1",), where="t:1", check=Check(database=str(tmp_path / "d.sqlite")))
    predicted = ["SELECT n FROM t WHERE n >= 2", "select n from t", "select gone from t"]
    assert score_rows("sql", predicted, [row] * 3).tolist() == [1, 0, 0]
    assert [each["runs"] for each in row_extras("sql", predicted, [row] * 3)] == [1, 1, 0]
    code = Example(
        (), ("def double(n): return 2 * n",), check=Check(tests="assert double(2) == 4\nassert double(3) == 6")
    )
    predicted = ["```python\ndef double(n):\n    return n + n", "def double(n): return n + 2", "def double(n) return"]
    assert score_rows("pass@1", predicted, [code] * 3).tolist() == [1, 0, 0]
    assert [each["runs"] for each in row_extras("pass@1", predicted, [code] * 3)] == [1, 1, 0]


# Log-probabilities


def test_nats_are_of_the_answers_characters() -> None:
    task = Task("free", (), "nats", "", "")
    rows = [Example((), ("four",), slice="a"), Example((), ("twelve chars",), slice="b")]
    predictions = [Prediction("four", accepted_log_probability=-2.0), Prediction("x", accepted_log_probability=-24.0)]
    scored = score(task, predictions, rows)
    assert scored.rows.tolist() == [-0.5, -2.0] and scored.mean == -1.25 and scored.slices["b"].score == -2
    assert scored.extras["chrf"] == pytest.approx(0.5, abs=0.05)
    with pytest.raises(AssertionError):
        score(task, [Prediction("four"), Prediction("x")], rows)
    assert score(by_text(task), [Prediction("four"), Prediction("x")], rows).rows[0] == 1


def test_only_nats_are_read_below_zero(tmp_path: Path) -> None:
    row = Answer("t:1", "p", ["a"], "b", -1.5, answer_log_probability=-6.0)
    write_lines(tmp_path / PREDICTIONS, [row])
    assert Answer.read(tmp_path / PREDICTIONS) == [row], "no result.json says otherwise"
    for metric, is_read in (("nats", True), ("rouge_l", False)):
        write_json(tmp_path / RESULT, Evaluation(metric=metric, checks={}, eval_seconds=1, peak_rss_mb=1))
        if is_read:
            assert Answer.read(tmp_path / PREDICTIONS) == [row]
        else:
            with pytest.raises(RiyazError, match=r"score is -1\.5"):
                Answer.read(tmp_path / PREDICTIONS)


def test_intervals_and_bounds_of_scores_below_zero_are_not_clipped() -> None:
    generator = np.random.default_rng(0)
    a = -np.abs(generator.normal(4, 1, 60))
    b = a - 2 - generator.normal(0, 0.1, 60)
    low, high = interval(a)
    assert low < a.mean() < high < -3 and (low, high) == mean_interval(a)
    groups = np.arange(60) // 2
    assert interval(a, groups) == mean_interval(a, groups) and interval(a, groups)[0] < a.mean()
    for which in (None, groups):
        test = paired_test(a, b, which)
        assert test.low < 2 < test.high and test.low > 1.7, "a difference of two nats lies beyond 1"
    assert shortfall(np.stack([a, b])).upper[1] > 1.9
    assert shortfall(np.stack([a, b]) > -5).upper.max() <= 1


def test_a_predictor_without_a_model_gives_no_nats() -> None:
    from riyaz.scoring import with_accepted

    class Copies:
        has_model = False

    task = Task("free", (), "nats", "", "")
    with pytest.raises(RiyazError, match="gives an accepted answer no probability"):
        with_accepted(Copies(), task, [Prediction("x")], [Example((), ("x",))])  # type: ignore[arg-type]
