"""The gather.py of the examples, without a network: translation, sql, coding, summaries, shell, and what they share."""

import gettext
import io
import struct
import subprocess
import sys
import tomllib
import zipfile
from collections import Counter
from pathlib import Path

import pytest
from load_script import ROOT, load_script

EXAMPLES = ROOT / "examples"
sys.path.insert(0, str(EXAMPLES / "shell"))  # as Python does for a script: its literals.py
shared = load_script("examples/gathering.py")
translation = load_script("examples/translation/gather.py")
sql = load_script("examples/sql/gather.py")
coding = load_script("examples/coding/gather.py")
summaries = load_script("examples/summaries/gather.py")
shell = load_script("examples/shell/gather.py")
literals = load_script("examples/shell/literals.py")
TEMPLATES = tomllib.loads((EXAMPLES / "sql/templates.toml").read_text(encoding="utf-8"))["template"]
TASKS = tomllib.loads((EXAMPLES / "coding/tasks.toml").read_text(encoding="utf-8"))


def prompts(*texts: str) -> list[dict]:
    return [{"prompt": text} for text in texts]


def test_a_training_row_that_is_nearly_a_test_row_is_left_out(capsys: pytest.CaptureFixture[str]) -> None:
    train, test = prompts("Add a page to the list", "Delete the user", "Add page"), prompts("add a PAGE to the list!")
    assert shared.near(train, test) == [(0, 0)]
    assert shared.apart(train, test) == train[1:]
    assert "1 training rows left out" in capsys.readouterr().out


def test_rows_are_written_with_what_is_near_and_the_settings(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "example").mkdir()
    (tmp_path / "example/riyaz.toml").write_text('documents = "../pages"\n')
    test = [{"prompt": "one two three", "slice": "same"}, {"prompt": "quite another", "slice": "new"}]
    script = str(tmp_path / "example/gather.py")
    shared.write(script, tmp_path / "out", train=prompts("One two three."), test=test)
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["riyaz.toml", "test.jsonl", "train.jsonl"]
    assert (tmp_path / "out/riyaz.toml").read_text() == f'documents = "{tmp_path}/pages"\n', "still the same documents"
    said = capsys.readouterr().out
    assert "2 rows (same 1, new 1)" in said and said.splitlines()[-2].endswith("with a training row: same 1")


@pytest.mark.parametrize(
    ("content", "error", "said"),
    [
        (b"other", None, "SHA-256"),
        (None, None, "check the network"),
        (None, FileNotFoundError(), "is not on this machine; install it"),
    ],
)
def test_a_package_that_is_another_or_cannot_be_had_ends_in_one_line(
    monkeypatch: pytest.MonkeyPatch, content: bytes | None, error: Exception | None, said: str
) -> None:
    def run(command: list[str], cwd: str, **_: object) -> subprocess.CompletedProcess[str]:
        if error:
            raise error
        if content:
            (Path(cwd) / "it.whl").write_bytes(content)
        return subprocess.CompletedProcess(command, 0 if content else 1, "", "first\nno such version")

    monkeypatch.setattr(shared.subprocess, "run", run)
    with pytest.raises(SystemExit, match=said) as ended:
        shared.wheel("it", "1.0", "0" * 64, "MIT")
    assert "\n" not in str(ended.value)


def test_only_wheels_are_downloaded_so_that_nothing_of_a_package_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    commands = []
    monkeypatch.setattr(shared.subprocess, "run", lambda command, **_: commands.append(command))
    with pytest.raises(AttributeError):
        shared.wheel("it", "1.0", "0" * 64, "MIT")
    assert {"--only-binary=:all:", "--no-deps", "it==1.0"} <= set(commands[0])


# translation


def catalogue(pairs: dict[str, str]) -> bytes:
    """A compiled catalogue, as `msgfmt` writes it."""
    texts = [(key.encode(), value.encode()) for key, value in sorted(pairs.items())]
    start, tables, strings = 28 + 16 * len(texts), [b"", b""], b""
    for side in (0, 1):
        for text in texts:
            tables[side] += struct.pack("<2I", len(text[side]), start + len(strings))
            strings += text[side] + b"\0"
    return struct.pack("<7I", 0x950412DE, 0, len(texts), 28, 28 + 8 * len(texts), 0, 0) + b"".join(tables) + strings


TEXTS = {
    "": "Content-Type: text/plain; charset=UTF-8\n",
    "menu\x04Delete the %(name)s page": "Supprimer la page %(name)s",
    "%d page was deleted here\0%d pages were deleted here": "%d page supprimée ici\0%d pages supprimées ici",
    "Too short": "Trop court",
    "Delete the {page} of this": "Supprimer cela tout de suite",
}


def test_a_catalogue_is_read_as_gettext_reads_it() -> None:
    content = catalogue(TEXTS)
    found = dict(translation.pairs(content))
    peer = gettext.GNUTranslations(io.BytesIO(content))
    assert found["Too short"] == peer.gettext("Too short")
    assert found["Delete the %(name)s page"] == peer.pgettext("menu", "Delete the %(name)s page")
    assert len(found) == 4 and found["%d page was deleted here"] == "%d page supprimée ici"


def test_sentences_keep_their_placeholders_and_have_words() -> None:
    held = io.BytesIO()
    with zipfile.ZipFile(held, "w") as package:
        package.writestr("it/locale/fr/LC_MESSAGES/django.mo", catalogue(TEXTS))
        package.writestr("it/locale/fr_CA/LC_MESSAGES/django.mo", catalogue(TEXTS))
        package.writestr("it/locale/frp/LC_MESSAGES/django.mo", catalogue(TEXTS))
    found = translation.distinct(list(translation.rows(zipfile.ZipFile(held), "fr", "ui")))
    assert {row["prompt"]: row["slots"] for row in found} == {
        "Delete the %(name)s page": ["%(name)s"],
        "%d page was deleted here": ["%d"],
    }
    assert translation.row("%(a)s %(b)s of %(c)s", "%(a)s %(b)s de %(c)s", "ui") is None  # no sentence
    assert translation.row("Save the page and go on", "Save the page and go on", "ui") is None  # not translated


# sql


def airports(count: int = 420) -> bytes:
    """A table as the package has it, of invented airports."""
    codes = [each.split()[0] for line in sql.COUNTRIES.splitlines() for each in line.partition(": ")[2].split(", ")]
    lines = ["icao,iata,name,city,subd,country,elevation,lat,lon,tz,lid"]
    for place in range(count):
        code = codes[place % len(codes)]
        iata = "".join(chr(ord("A") + place // 26**power % 26) for power in (2, 1, 0))
        name, city, region = f"Field {iata}", f"City {place // 40}{code}", f"Region {place % 5}{code}"
        height, north = place * 37 % 6000 + 1, place % 60 + place / 1000
        lines.append(f"X,{iata},{name},{city},{region},{code},{height},{north:.3f},{place / 7:.4f},Zone/{code},")
    return "\n".join(lines).encode()


def test_sql_rows_have_answers_and_test_rows_share_no_query_with_training() -> None:
    base = sql.database(airports())
    train, test = sql.deal(base, TEMPLATES)
    assert len(train) == sql.TRAIN and len({row["prompt"] for row in train + test}) == len(train + test)
    assert not {row["answer"] for row in train} & {row["answer"] for row in test}
    slices = Counter(row["slice"] for row in test)
    assert slices["known"] > 100 and slices["phrasing"] > 50 and slices["template"] > 50
    assert all(0 < len(base.execute(row["answer"]).fetchall()) <= sql.MOST for row in test)
    assert any("the United States" in row["prompt"] and "'United States'" in row["answer"] for row in train)


def test_a_query_whose_answer_is_empty_or_a_tie_is_left_out() -> None:
    base = sql.database(airports(60))
    highest = "SELECT name FROM airports ORDER BY elevation_ft DESC LIMIT 1"
    assert sql.answered(base, highest)
    base.execute("UPDATE airports SET elevation_ft = 9000 WHERE iata IN ('AAA', 'AAB')")
    assert not sql.answered(base, highest)
    assert not sql.answered(base, "SELECT name FROM airports WHERE iata = 'ZZZ'")
    assert not sql.answered(base, "SELECT COUNT(*) FROM airports WHERE iata = 'ZZZ'")


def test_no_template_of_the_test_is_one_of_training() -> None:
    known, held = ([each for each in TEMPLATES if bool(each.get("heldout")) is side] for side in (False, True))
    assert len(known) >= 18 and len(held) >= 8
    assert all(len(each["ask"]) == 3 and each["later"] not in each["ask"] for each in known)
    assert not {each["sql"] for each in known} & {each["sql"] for each in held}
    wordings = [text for each in TEMPLATES for text in (*each["ask"], each.get("later"))]
    assert max(Counter(filter(None, wordings)).values()) == 1


# coding


@pytest.fixture(scope="module")
def tasks() -> tuple[list[dict], list[dict]]:
    code, _ = coding.library((EXAMPLES / "coding/brindle.py").read_text(encoding="utf-8"))
    return coding.deal(code, TASKS)


RUN = """import runpy, sys
for path in sys.argv[1:]:
    try:
        runpy.run_path(path)
    except AssertionError:
        print(path.rpartition("/")[2])
"""


def test_every_gold_answer_passes_its_tests_and_nothing_does_not(
    tasks: tuple[list[dict], list[dict]], tmp_path: Path
) -> None:
    train, test = tasks
    assert len(train) == coding.TRAIN
    assert Counter(row["slice"] for row in test) == {
        "known": coding.KNOWN,
        "unseen": coding.UNSEEN,
        "two calls": coding.TWO,
    }
    for place, row in enumerate((*train[::4], *test)):  # our own answers alone: they run without confinement
        (tmp_path / f"{place}-right.py").write_text(f"{row['answer']}\n{row['tests']}", encoding="utf-8")
    for place, row in enumerate(test[::2]):
        nothing = row["answer"].partition("return")[0] + "pass"
        (tmp_path / f"{place}-wrong.py").write_text(f"{nothing}\n{row['tests']}", encoding="utf-8")
    files = sorted(map(str, tmp_path.iterdir()))
    done = subprocess.run([sys.executable, "-I", "-c", RUN, *files], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == [Path(path).name for path in files if path.endswith("-wrong.py")]


def test_training_never_calls_what_is_unseen_and_never_has_the_words_of_the_test(
    tasks: tuple[list[dict], list[dict]],
) -> None:
    train, test = tasks
    unseen = {task["call"].partition("(")[0] for task in TASKS["one"] if task.get("unseen")}
    assert len(unseen) == 10
    assert not [row for row in train if any(f"brindle.{name}(" in row["answer"] for name in unseen)]
    asked = [{row["prompt"].partition(": ")[2] for row in rows} for rows in (train, test)]
    assert not asked[0] & asked[1]


def test_the_documents_tell_of_every_function_and_the_tests_hold_the_whole_library() -> None:
    brindle = load_script("examples/coding/brindle.py")
    code, groups = coding.library((EXAMPLES / "coding/brindle.py").read_text(encoding="utf-8"))
    functions = {name for name in vars(brindle) if not name.startswith("_") and callable(getattr(brindle, name))}
    told = "\n".join(entry for entries in groups.values() for entry in entries)
    assert len(functions) == 40
    for name in functions:
        assert f"## brindle.{name}(" in told and f"def {name}(" in code and getattr(brindle, name).__doc__ in told
    assert '"""' not in code and "GROUPS" not in code
    called = {word for task in (*TASKS["one"], *TASKS["two"]) for word in functions if f"{word}(" in task["call"]}
    assert called == functions


def test_the_library_does_what_its_documents_say() -> None:
    brindle = load_script("examples/coding/brindle.py")
    assert brindle.order_code(41, 7) == "R04107-D"  # 7·3 + 0·5 + 1·7 + 4·3 + 0·5 = 40, and 40 is 2 modulo 19
    assert (brindle.shelf_price(1000), brindle.member_price(1000, 9), brindle.deposit(8000)) == (1490, 880, 2000)
    assert brindle.walk(["Z03", "Y02", "Z01", "Y09"]) == ["Z01", "Z03", "Y09", "Y02"]
    assert [brindle.is_open(day) for day in (1, 3, 7)] == [True, False, False]
    assert brindle.clash(("09:00", "10:00"), ("10:09", "11:00")) and brindle.price_tag(1205) == "12·05"


# summaries


@pytest.mark.parametrize(
    ("docstring", "kept"),
    [
        ("Give the shelf a name.\n\n" + "It stands on the front board of each shelf. " * 4, True),
        ("Give the shelf a name.\n\n" + "Short.", False),
        ("Give the shelf a name.\n\n" + "    code of the shelf and its name\n" * 9, False),
        ("Give the shelf a name.\n\nGive the shelf a name. " + "It stands on its front board. " * 4, False),  # a copy
        ("give the shelf a name\n\n" + "It stands on the front board of each shelf. " * 4, False),
        ("Name.\n\n" + "It stands on the front board of each shelf. " * 4, False),
    ],
)
def test_a_docstring_becomes_a_row_if_both_parts_are_prose(docstring: str, kept: bool) -> None:
    row = summaries.row("name_shelf", docstring)
    assert (row is not None) is kept
    if row:
        assert row["answer"] == "Give the shelf a name." and row["prompt"].endswith("This documents `name_shelf`.")


def test_the_summary_has_no_more_words_than_the_instruction_allows() -> None:
    settings = tomllib.loads((EXAMPLES / "summaries/riyaz.toml").read_text(encoding="utf-8"))
    assert f"at most {summaries.SUMMARY[1]} words" in settings["instruction"]


def test_modules_are_read_and_not_run(tmp_path: Path) -> None:
    text = "It stands on the front board of each shelf. " * 4
    (tmp_path / "one.py").write_text(f'raise SystemExit\ndef name():\n    """Give a shelf a name.\n\n    {text}"""\n')
    (tmp_path / "broken.py").write_text("def (")
    assert [row["answer"] for row in summaries.rows(tmp_path)] == ["Give a shelf a name."]


# shell

SCRIPT = r"""var a=/["'{]/,o=[{name:["-q","--quiet"],description:"Say \u201cnothing\u201d at all"}],p={go:{name:"go",
description:"Go on with it",options:[...o,{name:["-m","--message"],description:"Use this text as the message",
args:{name:"text"}},{name:"-x",description:`Same as -q`}]}},f=e=>{return{name:"it",x:`${e}`}},
t={name:"it",description:"A tool",subcommands:[p.go,{name:["c"],options:o}],options:[{name:"--all",
description:"Take everything that is there",isRequired:!0,args:{generators:f(1,{a:[2]}),isOptional:!0}}]};""".replace(
    "\n", ""
)


def test_literals_are_read_with_the_names_that_they_use() -> None:
    spec = literals.largest(SCRIPT, "it")
    assert spec["description"] == "A tool" and spec["options"][0]["isRequired"] is True
    assert spec["options"][0]["args"] == {"generators": None, "isOptional": True}
    assert spec["subcommands"][0]["options"][0]["description"] == "Say “nothing” at all"
    assert literals.largest(SCRIPT, "none") == {} == literals.largest('x={name:"none",a:[', "none")
    assert literals.largest('a={name:"n",b:a};', "n")["name"] == "n"  # inside itself: read so many times, and no more
    assert literals.largest('{name:"n",b:' + "[" * 5000, "n") == {}


def test_an_option_becomes_a_command_line_with_its_other_spellings() -> None:
    found = {row["prompt"]: row for row in shell.rows(literals.largest(SCRIPT, "it"))}
    message = found["it go: Use this text as the message (value: text)"]
    assert message["answer"] == "it go --message text"
    assert message["references"] == ["it go -m text", "it go --message=text"]
    assert found["it: Go on with it"]["answer"] == "it go"
    assert found["it: Say “nothing” at all"]["answer"] == "it --quiet"  # the subcommand `c` is only a letter
    assert found["it: Take everything that is there"]["answer"] == "it --all"
    assert not [prompt for prompt in found if "Same as" in prompt]
    assert "- `it go --quiet`: Say “nothing” at all" in shell.document("it", list(found.values()))


def test_two_options_of_one_description_are_both_right_unless_it_goes_on() -> None:
    options = [{"name": name, "description": "Do it now please"} for name in ("--now", "--soon")]
    (row,) = shell.rows({"name": "it", "options": options})
    assert (row["answer"], row["references"]) == ("it --now", ["it --soon"])
    options[1]["description"] += ". But not yet"
    assert shell.rows({"name": "it", "options": options}) == []  # which one is meant cannot be told


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("This option bypasses the hooks. See also githooks[5]", "Bypasses the hooks"),
        ("Print sizes (default true)", "Print sizes"),
        ("Before making a commit out of staged contents so far, stage the contents of p", ""),  # cut
        ("See --all", ""),
        ("Of ciphers> SSL ciphers to use", ""),
        ("List all entries except for . and ..  Always set", "List all entries except for . and .. Always set"),
        ("Quiet", ""),
        (None, ""),
    ],
)
def test_a_description_is_its_first_sentence(text: str | None, sentence: str) -> None:
    assert shell.sentence(text) == sentence


def test_what_users_ask_is_learned_by_its_description_alone() -> None:
    made = [{"prompt": f"it: {word} the thing", "answer": f"it --{word}", "references": []} for word in
            (f"w{place}" for place in range(300))]  # fmt: skip
    asked = [{"prompt": "Please, seven.", "answer": "it --w7"}]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(shell, "MOST", 300)
        train, test = shell.deal({"it": made}, asked)
    assert made[7] in train and {row["slice"] for row in test} == {"option", "asked"}
    assert not {row["prompt"] for row in train} & {row["prompt"] for row in test}
    assert not {row["answer"] for row in train} & {row["answer"] for row in test if row["slice"] == "option"}
    with pytest.raises(SystemExit, match="it --none"):
        shell.deal({"it": made}, [{"prompt": "x", "answer": "it --none"}])


# what riyaz makes of them


@pytest.mark.parametrize(
    ("name", "metric"),
    [("translation", "chrf"), ("sql", "sql"), ("coding", "pass@1"), ("summaries", "rouge_l"), ("shell", "command")],
)
def test_the_settings_are_riyaz_s(name: str, metric: str) -> None:
    from riyaz.config import read_toml

    settings = read_toml(EXAMPLES / name / "riyaz.toml")
    assert settings["metric"] == metric and "\n\n" not in str(settings["instruction"])
    if name == "sql":
        assert sql.schema().count("CREATE TABLE") == 2 and sql.schema() in str(settings["instruction"])
