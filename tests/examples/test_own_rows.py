"""The examples whose rows are made here: an answer says what stands in its prompt, and no test row was trained on."""

import json
import re
from collections import Counter
from pathlib import Path

import pytest
from load_script import ROOT, load_script

from riyaz.config import DataConfig, read_toml
from riyaz.data.formats import open_data
from riyaz.data.task import detect

EXAMPLES = ROOT / "examples"
OWN = ("chatbot", "content", "extraction", "tools")
ROWS = {"chatbot": (150, 200), "content": (300, 150), "extraction": (400, 200), "tools": (300, 154)}


@pytest.fixture(scope="module")
def gathered(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with each example as its gather.py writes it."""
    out = tmp_path_factory.mktemp("examples")
    with pytest.MonkeyPatch.context() as patch:
        for name in OWN:
            script = load_script(f"examples/{name}/gather.py")
            patch.setattr("sys.argv", ["gather.py", str(out / name)])
            script.main()
    return out


def rows(folder: Path, part: str) -> list[dict]:
    return [json.loads(line) for line in (folder / f"{part}.jsonl").read_text(encoding="utf-8").splitlines()]


def asked(row: dict) -> str:
    """All that a row gives to the model, in one text."""
    if "prompt" in row:
        return row["prompt"]
    return "\n".join(turn["content"] for turn in row["messages"][:-1])


def table(page: Path) -> list[list[str]]:
    """The cells of every row of a page's tables, without their links' addresses and backticks."""
    lines = [line for line in page.read_text(encoding="utf-8").splitlines() if re.match(r"\| [^-]", line)]
    return [[re.sub(r"\[(.*?)\]\(.*?\)", r"\1", cell).replace("`", "").strip() for cell in line[1:-1].split("|")]
            for line in lines]  # fmt: skip


def said(page: Path) -> dict[tuple[str, str], int]:
    """The rows of each file and slice, as the table of an example's README says."""
    found = {}
    for name, *cells in table(page):
        if named := re.fullmatch(r"(train|test)\.jsonl(?:, slice (.+))?", name):
            found[named[1], named[2] or ""] = int(cells[0].replace(",", ""))
    return found


@pytest.mark.parametrize("name", OWN)
def test_counts_are_those_of_the_readme(gathered: Path, name: str) -> None:
    train, test = rows(gathered / name, "train"), rows(gathered / name, "test")
    assert (len(train), len(test)) == ROWS[name]
    slices = Counter(row["slice"] for row in test)
    assert min(slices.values()) >= 15
    assert said(EXAMPLES / name / "README.md") == {
        ("train", ""): len(train), **{("test", part): count for part, count in slices.items()}
    }  # fmt: skip


def test_every_example_stands_in_the_table_of_all() -> None:
    listed = {cells[0]: cells for cells in table(EXAMPLES / "README.md")}
    folders = {path.parent.name for file in ("README.md", "gather.py") for path in EXAMPLES.glob(f"*/{file}")}
    assert folders == set(listed) - {"application", "example"}
    applications = load_script("examples/small.py").names()
    assert len(applications) == 9 and all(len(listed[name]) == len(listed["application"]) for name in applications)
    assert folders - set(applications) == {name for name in folders if len(listed[name]) == len(listed["example"])}


@pytest.mark.parametrize("name", OWN)
def test_no_test_row_is_a_training_row(gathered: Path, name: str) -> None:
    known = {asked(row) for row in rows(gathered / name, "train")}
    assert not [row for row in rows(gathered / name, "test") if asked(row) in known]


@pytest.mark.parametrize("name", OWN)
def test_the_same_seed_gives_the_same_rows(
    gathered: Path, name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.argv", ["gather.py", str(tmp_path)])
    load_script(f"examples/{name}/gather.py").main()
    for part in ("train", "test"):
        assert (tmp_path / f"{part}.jsonl").read_bytes() == (gathered / name / f"{part}.jsonl").read_bytes()


@pytest.mark.parametrize(("name", "metric"), list(zip(OWN, ("exact_match", "chrf", "json_f1", "tools"))))
def test_riyaz_reads_the_rows_as_the_example_says(gathered: Path, name: str, metric: str) -> None:
    files = open_data(gathered / name)
    settings = files.settings
    config = DataConfig(metric=settings["metric"], task=settings.get("task"))
    assert detect(files.train, metric=config.metric, kind=config.task).metric == metric


def test_small_talk_keeps_its_own_settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    chatbot = load_script("examples/chatbot/gather.py")
    talk = [{"messages": [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello"}]}]
    monkeypatch.setattr(chatbot, "style", lambda: (talk, talk))
    monkeypatch.setattr("sys.argv", ["gather.py", str(tmp_path), "--style"])
    chatbot.main()
    assert read_toml(tmp_path / "style/riyaz.toml")["metric"] == "nats"
    assert read_toml(tmp_path / "riyaz.toml")["metric"] == "exact_match"


def test_a_note_holds_what_its_message_says(gathered: Path) -> None:
    for row in rows(gathered / "extraction", "train") + rows(gathered / "extraction", "test"):
        note, said = json.loads(row["answer"]), row["prompt"].lower()
        for field in ("name", "bike", "problem"):
            assert note[field] is None or note[field].lower() in said
        assert note["day"] is None or note["day"][:3].lower() in said
        assert note["phone"] is None or note["phone"].replace("-", "") in re.sub(r"\D", "", said)


def test_sentences_of_an_offer_hold_its_facts(gathered: Path) -> None:
    for row in rows(gathered / "content", "train") + rows(gathered / "content", "test"):
        assert len(set(row["references"])) == 3
        for sentence in row["references"]:
            assert all(slot.lower() in sentence.lower() for slot in row["slots"])


def test_arguments_of_a_call_stand_in_the_request_and_fit_the_tool(gathered: Path) -> None:
    for row in rows(gathered / "tools", "train") + rows(gathered / "tools", "test"):
        tools = {tool["function"]["name"]: tool["function"]["parameters"] for tool in row["tools"]}
        for call in row["messages"][-1].get("tool_calls", ()):
            arguments = json.loads(call["function"]["arguments"])
            assert list(arguments) == tools[call["function"]["name"]]["required"]
            assert all(str(value) in asked(row) for value in arguments.values())


def test_an_answer_from_memory_was_said_before(gathered: Path) -> None:
    remembered = [row for row in rows(gathered / "chatbot", "test") if row["slice"] == "memory"]
    assert all(row["messages"][-1]["content"] in row["messages"][0]["content"] for row in remembered)


def test_the_line_of_an_example_without_a_floor(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    small = load_script("examples/small.py")
    monkeypatch.setattr(small, "OUT", tmp_path)
    arm = {"method": "lora", "metric": "command", "score": 0.25, "ms_per_answer": 8.0, "serve_rss_mb": 99.0}
    (tmp_path / "shell").mkdir()
    for floor, shown in (({}, "floor –"), ({"floor": {"score": 0.125}}, "floor 0.125")):
        (tmp_path / "shell/compare.json").write_text(json.dumps({"arms": [arm], "pick": "lora", **floor}))
        assert shown in small.line("shell", "") and "command 0.250" in small.line("shell", "")
