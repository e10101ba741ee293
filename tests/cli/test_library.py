"""Riyaz as a library: what docs/library.md shows runs, rows in memory give what their file gives, wrong input is one
line."""

import re
import runpy
import subprocess
import sys
import types
import typing
from collections.abc import Callable
from dataclasses import fields
from pathlib import Path
from typing import Any

import pandas
import pytest
import tiny_comparison
import tiny_llama
import tiny_notebook
from refusals import assert_refused
from tiny_store import keep

import riyaz
from riyaz import library
from riyaz.config import DEFAULT_MODEL, AdaptConfig, CompareConfig, DataConfig, LimitsConfig, PretrainConfig
from riyaz.engine.request import Sampling
from riyaz.events import ArmDone, Event
from riyaz.library import frames, options
from riyaz.library.model import SamplingOptions
from riyaz.report import words

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs/library.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"^```python\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)
TRAIN, TEST = tiny_comparison.closed_rows(45, "please"), tiny_comparison.closed_rows(18, "today")
ASKED: dict[str, Any] = {"methods": ["nearest", "zero_shot"], "budget": "3h", "seed": 3, "quiet": True}
THREE: dict[str, Any] = {**ASKED, "methods": "nearest,zero_shot,lora"}
QUESTION = "where is my order today 7"


@pytest.fixture(scope="module")
def store(
    in_float32: None, one_core: pytest.MonkeyPatch, model_folder: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """A store in which the default model is the tiny one."""
    one_core.setenv("RIYAZ_HOME", str(tmp_path_factory.mktemp("home")))
    keep(model_folder, DEFAULT_MODEL)


@pytest.fixture(scope="module")
def compared(store: None, tmp_path_factory: pytest.TempPathFactory) -> library.Comparison:
    """Three arms on rows in memory, workers inside; nobody writes into it."""
    folder = tmp_path_factory.mktemp("compared")
    (folder / "general.txt").write_text(tiny_llama.CORPUS)
    with pytest.MonkeyPatch.context() as patch:
        tiny_comparison.workers_inside(patch)
        return riyaz.compare(TRAIN, test=TEST, **THREE, general=folder / "general.txt", out=folder / "out")


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty working folder."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


def run_page(folder: Path) -> dict[str, Any]:
    """Run the blocks of the page one after the other in a folder with the examples; what they leave behind."""
    tiny_notebook.few_examples(folder)
    (folder / "general.txt").write_text(tiny_llama.CORPUS)
    text = "\n".join(BLOCKS)
    assert all(long in text for long, _ in tiny_notebook.SHORTER["library"])
    (folder / "page.py").write_text(tiny_notebook.shortened("library", text), encoding="utf-8")
    return runpy.run_path(str(folder / "page.py"))


def test_the_page_runs(store: None, here: Path, inside: list, capsys: pytest.CaptureFixture) -> None:
    left = run_page(here)
    assert [arm.status for arm in left["comparison"].arms] == ["ok"] * 3
    assert (here / "quality.png").stat().st_size > 10_000
    assert (here / "my-lora/riyaz.json").is_file() and (here / "fresh/report.html").is_file()
    told = capsys.readouterr()
    assert "compare has no option 'budgt'; did you mean 'budget'?" in told.out.splitlines()
    assert re.search(r"nearest 0\.\d+\nzero_shot 0\.\d", told.out), "listen is told of every arm"
    assert "zero_shot: ok, accuracy" in told.err, "progress as the commands show it"


def test_rows_in_memory_give_what_their_files_give(
    compared: library.Comparison, here: Path, inside: list, store: None
) -> None:
    for name, rows in (("train", TRAIN), ("test", TEST)):
        tiny_comparison.write_rows(here / f"data/{name}.jsonl", rows)
    (here / "general.txt").write_text(tiny_llama.CORPUS)
    asked = {**ASKED, "general": here / "general.txt"}
    filed = riyaz.compare("data", **asked)
    framed = riyaz.compare(pandas.DataFrame(TRAIN), test=here / "data/test.jsonl", **asked)
    assert filed.folder == here / "riyaz-results/data"
    assert re.fullmatch(r"riyaz-results/data-[0-9a-f]{8}", str(framed.folder.relative_to(here)))
    for method in ("nearest", "zero_shot"):
        scores = {each.arm(method).score for each in (compared, filed, framed)}
        texts = {tuple(row.prediction for row in each.answer_rows(method)) for each in (compared, filed, framed)}
        assert len(scores) == len(texts) == 1
    assert [row.where for row in compared.answer_rows("nearest")] == [f"test row {n}" for n in range(1, 19)]
    assert [row.where for row in filed.answer_rows("nearest")] == [f"test.jsonl:{n}" for n in range(1, 19)]
    report = (compared.folder / "report.html").read_text(encoding="utf-8")
    assert compared.report == compared.folder / "report.html" and "riyaz.compare(list, test=list, methods=" in report


def test_the_same_rows_go_on_with_the_same_comparison(compared: library.Comparison, inside: list) -> None:
    asked = {**THREE, "general": compared.folder.with_name("general.txt"), "out": compared.folder}
    again = riyaz.compare(pandas.DataFrame(TRAIN), test=iter(TEST), **asked)
    assert inside == [] and again.result == compared.result
    with assert_refused("this folder holds another comparison (other data)"):
        riyaz.compare(TRAIN[:-1], test=TEST, **asked)
    assert library.Comparison.read(compared.folder).result == compared.result


def test_a_comparison_shows_itself(compared: library.Comparison) -> None:
    text, page = repr(compared), compared._repr_html_()
    assert compared.pick is not None and compared.decision in ("certified", "tie", "undecided")
    for arm in compared.arms:
        assert arm.method in text and f'<td style="text-align: left">{arm.method}' in page
    assert words.headline(compared.result) in text and "".join(compared.reason.split()) in "".join(text.split())
    assert f"<b>{words.headline(compared.result)}</b>" in page and page.count("font-weight: bold") == 1
    assert compared.arms == sorted(compared.arms, key=lambda arm: -(arm.score or 0))


def test_a_comparison_is_a_frame(compared: library.Comparison) -> None:
    short, frame = compared.frame(), compared.frame(all=True)
    assert list(short.columns) == [name for name in frames.USUAL if name != "base"] and len(short.columns) == 10
    assert all((short[name] == frame[name]).all() for name in ("method", "pick", "score", "status"))
    assert list(frame["method"]) == [arm.method for arm in compared.arms]
    assert list(frame["method"][frame["pick"]]) == [compared.pick]
    assert list(frame["score"]) == [arm.score for arm in compared.arms] and "macro_f1" in frame
    assert frame["ms_per_answer"].dtype == float and not {"curve", "checks", "extras"} & set(frame)


def test_without_pandas_one_line_says_so(compared: library.Comparison, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pandas", None)
    with assert_refused("frame() needs pandas, which is not installed; pip install pandas, or take arms, which needs"):
        compared.frame()
    with assert_refused("answers() needs pandas, which is not installed", "or take answer_rows(name), which needs no"):
        compared.answers("lora")


def test_answers_are_a_frame(compared: library.Comparison) -> None:
    rows, frame = compared.answer_rows("lora"), compared.answers("lora")
    assert len(frame) == len(rows) == len(TEST) and list(frame["prediction"]) == [row.prediction for row in rows]
    assert list(frame["score"]) == [row.score for row in rows] and list(frame["answers"]) == [r.answers for r in rows]
    assert "citations" not in frame, "a column that no row fills is left out"
    with assert_refused("there is no method 'lorra' here; did you mean 'lora'?"):
        compared.answers("lorra")


def test_a_comparison_gives_its_pictures(compared: library.Comparison) -> None:
    from matplotlib.figure import Figure

    assert {"quality", "learning", "forgetting", "slices"} <= set(compared.figures)
    for name in compared.figures:
        assert isinstance(compared.figure(name), Figure)
    with assert_refused("nothing was measured for the picture 'recall'"):
        compared.figure("recall")
    with assert_refused("there is no picture 'qualty' here; did you mean 'quality'?"):
        compared.figure("qualty")


def test_a_comparison_opens_its_arms(compared: library.Comparison) -> None:
    assert compared.artifact() == compared.artifact(compared.pick)
    model = compared.open("lora")
    assert model.answer(QUESTION) in tiny_comparison.CLOSED
    assert compared.open("nearest").answer(QUESTION) in tiny_comparison.CLOSED
    assert riyaz.open(compared.artifact("lora")).answers(TEST) == [
        row.prediction for row in compared.answer_rows("lora")
    ]
    with assert_refused("there is no method 'lorra' here; did you mean 'lora'?"):
        compared.open("lorra")
    with assert_refused("has no language model, so no next tokens"):
        compared.open("nearest").logprobs(QUESTION, "refund")
    with assert_refused("no limits were measured here; measure them: riyaz.open(…).limits(), or limits=True in"):
        compared.limits("lora")
    with assert_refused("there is no comparison here"):
        library.Comparison.read(compared.folder / "arms")


def test_a_comparison_is_found_from_another_folder(
    compared: library.Comparison, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(compared.folder)
    here = library.Comparison.read(".")
    monkeypatch.chdir(tmp_path)
    assert here.folder.is_absolute() and here.artifact("nearest").is_dir() and here.report.is_file()


def test_one_method_leaves_an_artifact(store: None, here: Path, inside: list) -> None:
    adapted = riyaz.adapt("few_shot", TRAIN, test=TEST, out="shown", budget="3h", quiet=True)
    assert adapted.path == here / "shown" and adapted.result.method == "few_shot"
    assert adapted.open().answer(QUESTION) in tiny_comparison.CLOSED
    assert "few_shot" in repr(adapted) and "few_shot" in adapted._repr_html_()
    assert f"the artifact of few_shot is in {here / 'shown'}: accuracy " in repr(adapted).replace("\n", " ")
    with assert_refused("shown: already exists; choose another out or remove it"):
        riyaz.adapt("few_shot", TRAIN, out="shown", quiet=True)


def test_a_new_model_is_trained_and_opened(store: None, here: Path) -> None:
    text = here / "text.txt"
    text.write_text("the quick brown fox jumps over the lazy dog and then the other one\n" * 400)
    run = riyaz.pretrain(text, out="fresh", size="1m", steps=6, tokenizer="bytes", context=64, layers=1, width=32,
                         heads=2, batch=4, quiet=True)  # fmt: skip
    assert run.result.status == "done" and run.report.is_file()
    assert len(run.frame()) == 6 and list(run.frame()["step"]) == [step.step for step in run.metrics]
    assert "bits per byte" in repr(run) and run._repr_html_().startswith("<pre>")
    assert {"loss", "bits"} <= set(run.figures) and run.figure("loss").axes
    assert len(run.open().next_tokens("the", top=4)) == 4
    assert library.Pretraining.read("fresh").result == run.result
    assert run.result.command.startswith("riyaz.pretrain('")
    with assert_refused("this folder holds a run already (done)"):
        riyaz.pretrain(text, out="fresh", size="1m", quiet=True)
    with assert_refused("there is no pretraining run here"):
        library.Pretraining.read(here)


def test_progress_is_heard_shown_or_not(store: None, here: Path, inside: list, capsys: pytest.CaptureFixture) -> None:
    heard: list[Event] = []
    (here / "general.txt").write_text(tiny_llama.CORPUS)
    rows = {"test": TEST, **ASKED, "general": here / "general.txt"}
    riyaz.compare(TRAIN, **{**rows, "quiet": False, "listen": heard.append, "out": "heard"})
    assert [event.arm["method"] for event in heard if isinstance(event, ArmDone)] == ["nearest", "zero_shot"]
    riyaz.compare(TRAIN, **{**rows, "out": "quiet"})
    assert capsys.readouterr() == ("", "")
    riyaz.compare(TRAIN, **{**rows, "quiet": False, "out": "shown"})
    out, err = capsys.readouterr()
    assert out == "" and "nearest: ok, accuracy" in err


@pytest.fixture(scope="module")
def model(store: None) -> library.Model:
    return riyaz.open(DEFAULT_MODEL)


def test_a_string_is_a_users_message(model: library.Model) -> None:
    messages = [{"role": "user", "content": QUESTION}]
    answer = model.answer(QUESTION, max_tokens=6)
    assert answer == model.answer(messages, max_tokens=6) == "".join(model.stream(QUESTION, max_tokens=6))
    assert model.chat(messages, max_tokens=6) == {"role": "assistant", "content": answer}
    assert model.answers([QUESTION], max_tokens=6) == model.answers([messages], max_tokens=6) == [answer]
    assert model.answers([{"question": QUESTION}], max_tokens=6) == [answer]
    assert repr(model) == "riyaz.open('smollm2-135m')"


def test_many_are_answered_however_they_come(model: library.Model, here: Path) -> None:
    texts = [row["text"] for row in TEST]
    wanted = model.answers(texts, max_tokens=4)
    path = tiny_comparison.write_rows(here / "rows.jsonl", [{"said": text} for text in texts])
    frame = pandas.DataFrame({"said": texts})
    told: list[tuple[int, int]] = []
    for rows, named in ((path, "said"), (str(path), "said"), (frame, "said"), (frame["said"], None)):
        assert model.answers(rows, prompt_column=named, max_tokens=4) == wanted
    made = model.predictions(iter(texts), max_tokens=4, progress=lambda done, total: told.append((done, total)))
    assert [prediction.text for prediction in made] == wanted and told[-1] == (18, 18)
    assert model.answers([]) == []


def test_drawn_answers_come_again(model: library.Model) -> None:
    drawn = [model.answer(QUESTION, max_tokens=12, temperature=1.0, seed=seed) for seed in (1, 1, 2)]
    assert drawn[0] == drawn[1] != drawn[2]
    assert model.chat(QUESTION, max_tokens=12, temperature=1.0, seed=1)["content"] == drawn[0]
    assert "".join(model.stream(QUESTION, max_tokens=12, temperature=1.0, seed=2)) == drawn[2]
    assert model.answer(QUESTION, max_tokens=12) != model.answer(QUESTION, max_tokens=12, repetition_penalty=3.0)


def test_log_probabilities_are_those_of_the_next_tokens(model: library.Model) -> None:
    tokens = model.logprobs(QUESTION, "the order")
    assert "".join(token.text for token in tokens[:-1]) == "the order" and tokens[-1].text == "<|im_end|>"
    (likeliest,) = model.next_tokens("the quick", top=1)
    most = model.next_tokens("the quick", top=512)
    cooler = model.next_tokens("the quick", top=512, temperature=0.5)
    assert cooler[0].id == most[0].id and cooler[0].probability > most[0].probability
    assert sum(token.probability for token in cooler) == pytest.approx(1, abs=1e-4)
    assert most[0] == likeliest and sum(token.probability for token in most) == pytest.approx(1, abs=1e-4)


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        (lambda model: model.answer(""), "messages: the message is empty"),
        (lambda model: model.answer(7), "messages: int is not a list of messages"),
        (lambda model: model.answer([{"role": "usr", "content": "a"}]), "messages: role 'usr' is not one of"),
        (lambda model: model.answer([{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]),
         "messages: the last message is not the user's"),
        (lambda model: model.answer("a", temprature=1),
         "there is no option 'temprature'; options: max_tokens, schema, temp"),
        (lambda model: model.answer("a", top_p=2), "top_p: 2.0 is too large; give at most 1"),
        (lambda model: model.answer("a", seed=0.5), "seed: 0.5 is not a whole number"),
        (lambda model: model.answer("a", max_tokens=0), "max_tokens: 0 tokens are too few; give at least 1"),
        (lambda model: model.answer("a", max_tokens=2**29), "an answer of 536,870,912 tokens does not fit the context"),
        (lambda model: model.answer("a " * 2000), "does not fit the context of 1024"),
        (lambda model: model.answers("rows.jsonl"), "rows.jsonl: no such file"),
        (lambda model: model.answers(["a", 7]), "data row 2: int is not a list of messages"),
        (lambda model: model.answers([{"said": "a", "by": "b"}]), "among said, by; pass prompt_column"),
        (lambda model: model.answers([{"role": "user", "content": "a"}]), "data: is one conversation; ask for its"),
        (lambda model: model.answers({"text": ["a"]}), "data: dict is not a list of rows"),
        (lambda model: model.next_tokens("a", top=0), "top: 0 tokens are too few"),
        (lambda model: model.next_tokens("a", temperature=0.0), "temperature: 0 is no temperature to divide by"),
        (lambda model: riyaz.open("nobody"), "unknown model 'nobody'"),
        (lambda model: riyaz.open("nobody", precision="int3"), "precision: unknown precision 'int3'"),
        (lambda model: riyaz.compare(TRAIN, budgt="1m"), "compare has no option 'budgt'; did you mean 'budget'?"),
        (lambda model: riyaz.compare(TRAIN, colour="red"), "compare has no option 'colour'; options: "),
        (lambda model: riyaz.compare(TRAIN, budget="10"), "'10' is not a duration; write it with its unit"),
        (lambda model: riyaz.compare(TRAIN, methods=["lorra"]), "methods: unknown method 'lorra'"),
        (lambda model: riyaz.compare(TRAIN, methods=["rag"]), "methods: rag needs documents to retrieve from"),
        (lambda model: riyaz.compare(TRAIN[:9]), "data: 9 rows: too few to learn from and to test"),
        (lambda model: riyaz.compare(TRAIN, test=TRAIN, methods="nearest"), "or pass allow_leakage=True"),
        (lambda model: riyaz.compare([*TRAIN, {"text": "a"}]), "data row 46: the row has no 'label'"),
        (lambda model: riyaz.compare("nothing.jsonl"), "nothing.jsonl: no such file"),
        (lambda model: riyaz.compare(7), "data: int is not a list of rows"),
        (lambda model: riyaz.adapt("lora", TRAIN, out="x", margin=0.1), "adapt has no option 'margin'"),
        (lambda model: riyaz.adapt("lorra", TRAIN, out="x"), "unknown method 'lorra'"),
        (lambda model: riyaz.pretrain("nothing.txt", out="x", size="2m"), "size: unknown size '2m'; choose one of 1m"),
        (lambda model: riyaz.pretrain("nothing.txt", out="x"), "nothing.txt: no such file"),
        (lambda model: riyaz.pretrain(["a.txt"], out="x"), "text: ['a.txt'] is not a path; give a path"),  # type: ignore[arg-type]
        (lambda model: riyaz.pretrain("a.txt", out=7), "out: 7 is not a path; give a path"),  # type: ignore[arg-type]
        (lambda model: riyaz.compare(TRAIN, budget=-5), "budget: -5 is too small; give at least 1"),
        (lambda model: riyaz.compare([{"text": 10**5000}]), "data row 1: cannot be written"),
    ],
)  # fmt: skip
def test_wrong_input_is_one_line(
    model: library.Model, here: Path, inside: list, wrong: Callable[[library.Model], Any], says: str
) -> None:
    with assert_refused(says):
        wrong(model)
    assert inside == [] and not [path for path in here.iterdir() if path.name not in ("riyaz-results", "x")]


def test_without_torch_one_line_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torch", None)
    for call in (lambda: riyaz.compare(TRAIN), lambda: riyaz.pretrain("a.txt", out="x")):
        with assert_refused("torch is not installed"):
            call()


def kinds(hint: Any) -> set[Any]:
    """The types of a hint, None left out and literals with their values."""
    parts = typing.get_args(hint) if typing.get_origin(hint) in (types.UnionType, typing.Union) else (hint,)
    return {part for part in parts if part is not type(None)}


@pytest.mark.parametrize(
    ("given", "config", "without"),
    [
        (options.ReadingOptions, DataConfig, set()),
        (options.CompareOptions, CompareConfig, {"test"}),
        (options.PretrainOptions, PretrainConfig, set()),
        (options.LimitsOptions, LimitsConfig, set()),
        (SamplingOptions, Sampling, set()),
    ],
)
def test_the_typed_options_are_the_fields_of_the_configuration(given: Any, config: Any, without: set[str]) -> None:
    hints, wanted = typing.get_type_hints(given), typing.get_type_hints(config)
    reading = set(typing.get_type_hints(options.ReadingOptions)) if config is CompareConfig else set()
    assert set(hints) - reading == {option.name for option in fields(config)} - without
    for name in set(hints) - reading:
        if kinds(wanted[name]) & {int, bool} or any(typing.get_origin(kind) for kind in kinds(wanted[name])):
            several = name in ("methods", "model", "places", "suite", "pairs", "questions")
            assert several or kinds(hints[name]) == kinds(wanted[name]), name


def test_adapting_takes_what_its_command_takes() -> None:
    from riyaz.cli.options import ABSENT, AdaptFlags

    absent = {name for name, hint in AdaptFlags.__annotations__.items() if ABSENT in typing.get_args(hint)}
    taken = set(typing.get_type_hints(options.CompareOptions)) - absent - {"out"}
    own = {option.name for option in fields(AdaptConfig)}
    assert set(typing.get_type_hints(options.AdaptOptions)) == taken | own


def test_the_package_names_what_it_has_and_nothing_else() -> None:
    assert set(library.__all__) | {"RiyazError"} == set(riyaz.__all__) <= set(dir(riyaz))
    for name in riyaz.__all__:
        assert getattr(riyaz, name).__doc__
    with pytest.raises(AttributeError, match="module 'riyaz' has no attribute 'comprae'"):
        riyaz.comprae  # noqa: B018
    assert (Path(riyaz.__file__).parent / "py.typed").is_file()


@pytest.mark.slow
def test_a_type_checker_sees_the_signatures(tmp_path: Path) -> None:
    script = tmp_path / "use.py"
    script.write_text(
        "import riyaz\n"
        "reveal_type(riyaz.compare([{'text': 'a'}], budget='10m').pick)\n"
        "reveal_type(riyaz.open('x').answer('y', temperature=0.5))\n"
        "riyaz.compare('x', budgt='10m')\n"
        "riyaz.comprae\n"
    )
    # As of an installed package, errors inside riyaz are not told (`make lint` does). Torch plays no part in the
    # signatures, and its own types take longer to read than all of riyaz's.
    (tmp_path / "mypy.ini").write_text(
        "[mypy]\nignore_missing_imports = True\n[mypy-riyaz.*]\nfollow_imports = silent\n"
        "[mypy-torch.*,matplotlib.*]\nfollow_imports = skip\n"
    )
    done = subprocess.run(
        [sys.executable, "-m", "mypy", script.name],
        cwd=tmp_path, capture_output=True, text=True, env={"MYPYPATH": str(ROOT / "src"), "PATH": "/usr/bin:/bin"},
    )  # fmt: skip
    lines = [line for line in done.stdout.splitlines() if "defined in" not in line]
    assert [line.split(": ")[1] for line in lines[:4]] == ["note", "note", "error", "error"], done.stdout
    assert '"str | None"' in lines[0] and '"str"' in lines[1] and "budgt" in lines[2] and "comprae" in lines[3]
