"""Wrong input on the command line: one line that says what, where and what to do; exit status 2; nothing left."""

import errno
import json
import os
import shlex
import shutil
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import tiny_comparison
import tiny_llama
from conftest import Finished
from test_documents import pdf
from tiny_comparison import Told, command, files

from riyaz import artifact as artifacts
from riyaz import hardware
from riyaz.comparison import documents
from riyaz.events import Listen
from riyaz.retrieval import collection
from riyaz.text import template

pytestmark = pytest.mark.usefixtures("one_core")
ROWS = tiny_comparison.closed_rows(45, "please")
LOOP = "".join(f"{{% for {name} in range(9999) %}}" for name in "ijk") + 3 * "{% endfor %}"


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Every test works in a folder of its own, with workers inside this process."""
    tiny_comparison.workers_inside(monkeypatch)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def lines(count: int, **replaced: str) -> str:
    """Rows as JSON lines; `line17="…"` replaces one."""
    written = [json.dumps(row) for row in tiny_comparison.closed_rows(count, "please")]
    for name, text in replaced.items():
        written[int(name.removeprefix("line")) - 1] = text
    return "".join(line + "\n" for line in written)


def refused(*arguments: object, out: str = "results/deep/out") -> str:
    """The line that `riyaz compare …` ends with; it must leave the folder as it was."""
    before = files(Path())
    told = command("compare", *arguments, "--out", out)
    assert told.status == 2 and told.out == "", told
    assert files(Path()) == before and not Path("results").exists()
    return told.line


# the rows


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (None, "error: rows.jsonl: no such file; check the path"),
        ("", "error: rows.jsonl: the file is empty; write one example per line"),
        ("\n \n", "error: rows.jsonl: the file is empty"),
        (lines(45, line17='{"text": "where'), "error: rows.jsonl:17: not JSON ("),
        (lines(45, line17="[1, 2]"), "error: rows.jsonl:17: an array, not a JSON object"),
        (lines(45, line9='{"text": "where is it"}'), "error: rows.jsonl:9: the row has no 'label'"),
        (lines(45, line9='{"text": "where is it", "label": " "}'), "error: rows.jsonl:9: the row has no 'label'"),
        (lines(45).replace("delivery", "refund").replace("billing", "refund"),
         "error: rows.jsonl: all 45 rows have the same answer 'refund'; add rows with other answers"),
        (lines(19), "error: rows.jsonl: 19 rows: too few to learn from and to test; give at least 20 rows"),
        (lines(19) * 2, "error: rows.jsonl: 38 rows with only 19 different prompts: too few"),
    ],
)  # fmt: skip
def test_rows_that_cannot_be_used(model_folder: Path, text: str | None, expected: str) -> None:
    if text is not None:
        Path("rows.jsonl").write_text(text)
    assert refused("rows.jsonl", "--model", model_folder).startswith(expected)


@pytest.fixture
def rows() -> Path:
    return tiny_comparison.write_rows(Path("rows.jsonl"), ROWS)


@pytest.mark.parametrize(
    ("flags", "expected"),
    [
        (("--methods", "lora,prompt"), "--methods: unknown method 'prompt'; choose from nearest, linear, encoder"),
        (("--prompt-column", "txt"), "rows.jsonl: no column 'txt'"),
        (("--answer-column", "labels"), "rows.jsonl: no column 'labels'"),
        (("--limit-train", "5"), "--limit-train: 5 is too small; give at least 20"),
        (("--test", "absent.jsonl"), "absent.jsonl: no such file"),
        (("--general", "absent.txt"), "absent.txt: cannot be read as text"),
    ],
)  # fmt: skip
def test_flags_that_cannot_be_used(asked: tuple, rows: Path, flags: tuple, expected: str) -> None:
    given = [a for i, a in enumerate(asked) if flags[0] not in (a, asked[i - 1]) and a != "--json"]
    methods = () if "--methods" in flags else ("--methods", "nearest,zero_shot")
    assert expected in refused(rows, *given, *methods, *flags)


def test_the_budget_that_a_refusal_asks_for_is_enough_and_goes_into_the_same_folder(
    asked: tuple, rows: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    done = tiny_comparison.workers_inside(monkeypatch)
    given = ("compare", rows, *asked[:2], *asked[4:], "--methods", "nearest,zero_shot", "--out", "out", "--budget")
    told = command(*given, "2s")
    assert told.status == 2 and "--budget 2s: evaluating zero_shot and nearest on 10 test rows takes" in told.line
    told = command(*given, told.line.split("give --budget ")[1].split()[0])
    assert told.status == 0 and {arm["status"] for arm in told.document["arms"]} == {"ok"}, told.err
    assert [work for work, *_ in done].count("measure") == 1, "what was measured is kept"


def test_rows_of_the_test_among_the_training_rows(model_folder: Path, rows: Path) -> None:
    test = tiny_comparison.write_rows(Path("test.jsonl"), [*ROWS[:3], *tiny_comparison.closed_rows(9, "today")])
    line = refused(rows, "--test", test, "--model", model_folder)
    assert "3 of 12 test rows (25.0%) are training rows too" in line and "--allow-leakage" in line


def test_prompts_that_hold_their_label(model_folder: Path, rows: Path) -> None:
    words = [
        word for name in tiny_comparison.NUMBERS for word in (name, f"{name} again", f"{name} more", f"{name} less")
    ]
    told = [{"text": f"{word} [{row['label']}]", "label": row["label"]} for word, row in zip(words, ROWS)]
    held = tiny_comparison.write_rows(Path("held.jsonl"), told)
    given = (held, "--model", model_folder, "--methods", "nearest,linear")
    line = refused(*given)
    assert "45 of 45 different prompts (100.0%) tell their label, such as held.jsonl:1: it stands at the end" in line
    assert line.endswith(
        f"{shlex.join(['riyaz', 'compare', *map(str, given)])} --out results/deep/out --allow-answer-in-prompt"
    )
    line = command("adapt", "linear", held, "--model", model_folder, "--out", "out").line
    assert "(100.0%) tell their label" in line and "--allow-answer-in-prompt" in line and not Path("out").exists()
    shown = command("data", held, "--json")
    report, out = shown.document["report"], "out"
    assert report["answer_in_prompt"] == {
        "rows": 45, "looked_at": 45, "share": 1.0, "telling": 45, "telling_share": 1.0, "sign": "it stands at the end",
        "first": "held.jsonl:1",
    }  # fmt: skip
    assert report["notes"][-1].startswith("45 of 45 different prompts (100.0%) tell their label")
    assert "45 of 45 different prompts (100.0%) hold their label\n" in command("data", held).out
    assert "--allow-answer-in-prompt" in command("data", held).out.splitlines()[-1]
    done = command("compare", *given, "--allow-answer-in-prompt", "--out", out, "--budget", "2m", "--json")
    assert done.status == 0 and done.document["data"]["answer_in_prompt"] == report["answer_in_prompt"], done.err
    assert any("tell their label" in note for note in done.document["data"]["notes"])
    for name in ("report.html", "report.md"):
        text = Path(out, name).read_text()
        assert (
            "45 tell it (100.0%): it stands at the end" in text
            and "In 100% of the prompts a sign tells the label" in text
        )
    assert "answer_in_prompt" not in json.loads(Path(out, "settings.json").read_text())["settings"], (
        "it changes no figure"
    )


def test_an_unknown_method_to_adapt(model_folder: Path, rows: Path) -> None:
    told = command("adapt", "prompt", rows, "--model", model_folder, "--out", "out")
    assert told.status == 2 and told.line.startswith("error: METHOD: unknown method 'prompt'; choose from nearest")
    assert files(Path()) == {"rows.jsonl"}


# the model


def no_model(folder: Path) -> str:
    return "no-such-model"


def pickle(folder: Path) -> str:
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")
    return str(folder)


def checkpoint(folder: Path) -> str:
    (folder / "model.safetensors").rename(folder / "model.pt")
    return str(folder / "model.pt")


def truncated_safetensors(folder: Path) -> str:
    content = (folder / "model.safetensors").read_bytes()
    (folder / "model.safetensors").write_bytes(content[: len(content) * 2 // 3])
    return str(folder)


def lying_safetensors(folder: Path) -> str:
    content = (folder / "model.safetensors").read_bytes()
    (folder / "model.safetensors").write_bytes((2**62).to_bytes(8, "little") + content[8:])
    return str(folder)


def truncated_gguf(folder: Path) -> str:
    path = tiny_llama.write_gguf(folder / "tiny.gguf")
    path.write_bytes(path.read_bytes()[:-1000])
    return str(path)


def lying_gguf(folder: Path) -> str:
    path = tiny_llama.write_gguf(folder / "tiny.gguf")
    content = bytearray(path.read_bytes())
    content[8:16] = (2**60).to_bytes(8, "little")  # the number of tensors
    path.write_bytes(bytes(content))
    return str(path)


def endless_template(folder: Path) -> str:
    (folder / "chat_template.jinja").write_text(LOOP + tiny_llama.CHAT_TEMPLATE)
    return str(folder)


def curious_template(folder: Path) -> str:
    (folder / "chat_template.jinja").write_text(
        "{{ ''.__class__.__mro__[1].__subclasses__() }}" + tiny_llama.CHAT_TEMPLATE
    )
    return str(folder)


@pytest.mark.parametrize(
    ("spoil", "expected"),
    [
        (no_model, "no-such-model"),
        (pickle, "riyaz reads safetensors and GGUF only, not 'pytorch_model.bin'; convert it"),
        (checkpoint, "model.pt: riyaz reads safetensors and GGUF only; convert it"),
        (truncated_safetensors, "model.safetensors: "),
        (lying_safetensors, "model.safetensors: "),
        (truncated_gguf, "tiny.gguf: "),
        (lying_gguf, "tiny.gguf: "),
        (endless_template, "chat template: does not finish in time"),
        (curious_template, "chat template, conversation 1: does something the sandbox forbids"),
    ],
)
def test_models_that_cannot_be_used(
    rows: Path, asked: tuple, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch,
    spoil: Callable[[Path], str], expected: str
) -> None:  # fmt: skip
    monkeypatch.setattr(template, "SECONDS_PER_BATCH", 0.5)
    model = spoil(tiny_llama.write_hf_folder(tmp_path_factory.mktemp("spoiled") / "model"))
    line = refused(rows, "--model", model, *asked[2:-1], "--methods", "nearest,zero_shot")
    assert expected in line, line


def test_an_adapter_is_no_model(quick: Finished, rows: Path) -> None:
    assert "this is an adapter, not a model" in refused(rows, "--model", quick.artifact("lora"))


@pytest.mark.parametrize("verb", ["evaluate", "run"])
def test_an_adapter_for_another_base(
    quick: Finished, rows: Path, verb: str, tmp_path_factory: pytest.TempPathFactory
) -> None:
    other = tiny_llama.write_hf_folder(tmp_path_factory.mktemp("models") / "other", seed=9)
    folder = shutil.copytree(quick.artifact("lora"), tmp_path_factory.mktemp("moved") / "lora")
    document = json.loads((folder / "riyaz.json").read_text())
    document["base"]["path"] = str(other)
    (folder / "riyaz.json").write_text(json.dumps(document))
    more = ("--test", rows) if verb == "evaluate" else (rows, "--out", "answers.jsonl")
    told = command(verb, folder, *more)
    assert told.status == 2 and "was made for tiny (" in told.line and "not for other (" in told.line
    assert files(Path()) == {"rows.jsonl"}


def test_an_artifact_that_was_changed(quick: Finished, rows: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    folder = shutil.copytree(quick.artifact("lora"), tmp_path_factory.mktemp("changed") / "lora")
    with (folder / "adapter_model.safetensors").open("r+b") as file:
        file.seek(-1, os.SEEK_END)
        file.write(b"\x7f")
    told = command("evaluate", folder, "--test", rows)
    assert told.status == 2 and "adapter_model.safetensors: the checksum does not match the file" in told.line


# the documents


@pytest.fixture
def about_pages() -> Path:
    """Questions, and the pages that answer them."""
    tiny_comparison.write_pages(Path("pages"))
    tiny_comparison.write_rows(Path("questions/test.jsonl"), tiny_comparison.page_rows("today"))
    return tiny_comparison.write_rows(Path("questions/train.jsonl"), tiny_comparison.page_rows("please", "now")).parent


@pytest.mark.parametrize("method", ["rag", "rag_lora"])
def test_retrieval_without_documents(about_pages: Path, model_folder: Path, method: str) -> None:
    line = refused(about_pages, "--model", model_folder, "--methods", f"zero_shot,{method}")
    assert line == f"error: --methods: {method} needs documents to retrieve from; name them with --documents PATH"


def scanned(folder: Path) -> None:
    (folder / "scan.pdf").write_bytes(pdf(["", "", ""]))


@pytest.mark.parametrize(
    ("fill", "expected"),
    [
        (lambda folder: None, "documents: no documents here; put files there (.txt"),
        (lambda folder: (folder / "photo.png").write_bytes(b"x"), "1 file of other kinds left out: .png (1)"),
        (lambda folder: (folder / "a.txt").write_text(" \n"), "1 empty document left out: a.txt"),
        (scanned, "scan.pdf: left out, none of its 3 pages holds text: scanned?"),
        (lambda folder: folder.rmdir(), "documents: no such file or folder; check the path"),
    ],
)
def test_documents_that_hold_nothing(
    about_pages: Path, model_folder: Path, fill: Callable[[Path], object], expected: str
) -> None:
    Path("documents").mkdir()
    fill(Path("documents"))
    assert expected in refused(about_pages, "--model", model_folder, "--documents", "documents")


def with_pages(about_pages: Path, asked: tuple) -> Told:
    return command("compare", about_pages, *asked, "--methods", "nearest,rag", "--documents", "pages", "--out", "out")


def test_a_scanned_pdf_is_named_and_the_rest_is_searched(about_pages: Path, asked: tuple) -> None:
    scanned(Path("pages"))
    told = with_pages(about_pages, asked)
    assert told.status == 0 and "scan.pdf: left out, none of its 3 pages holds text: scanned?" in told.err
    assert "documents are searched by words alone; `riyaz pull minilm` adds search by meaning" in told.err
    rag = told.document["arms"][1]
    assert rag["status"] == "ok" and rag["retrieval"]["recall"]["3"] == 1.0


def test_documents_that_changed_are_another_comparison(about_pages: Path, asked: tuple) -> None:
    assert with_pages(about_pages, asked).status == 0
    before = files(Path())
    with Path("pages/cards.md").open("a") as page:
        page.write("\nA card is blue.\n")
    told = with_pages(about_pages, asked)
    assert told.status == 2 and told.line == (
        "error: out: this folder holds another comparison (other documents); choose another --out or remove the folder"
    )
    assert files(Path()) == before


def test_documents_that_change_while_they_are_indexed(
    about_pages: Path, asked: tuple, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = documents.identity

    def changing(path: Path, listen: Listen) -> dict[str, Any]:
        found = whole(path, listen)
        (path / "new.txt").write_text("A card is blue.")
        return found

    monkeypatch.setattr(documents, "identity", changing)
    told = with_pages(about_pages, asked)
    assert told.status == 2 and "the documents have changed since the comparison began" in told.line
    assert not Path("out").exists()


def test_a_kill_in_the_middle_of_indexing(about_pages: Path, asked: tuple) -> None:
    child = os.fork()
    if child == 0:  # this process itself is killed, as the machine would kill it
        whole = collection._write

        def killed(database: Any, *content: Any) -> None:
            database.execute("PRAGMA cache_spill = 1")
            database.execute("PRAGMA cache_size = 1")  # so that half of it stands in the file
            whole(database, *content)
            os.kill(os.getpid(), signal.SIGKILL)

        collection._write = killed
        with_pages(about_pages, asked)
        os._exit(1)
    status = os.waitpid(child, 0)[1]
    assert os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGKILL
    half = {path.name for path in Path("out").iterdir() if "collection" in path.name}
    assert half == {".collection.sqlite.part", ".collection.sqlite.part-journal"}
    told = with_pages(about_pages, asked)
    assert told.status == 0 and told.document["arms"][1]["status"] == "ok", told.err
    assert collection.verify(Path("out/collection.sqlite")) == []
    assert {path.name for path in Path("out").iterdir() if "collection" in path.name} == {"collection.sqlite"}


# the machine


def compared(rows: Path, asked: tuple, *more: object) -> Told:
    return command("compare", rows, *asked, "--methods", "nearest,zero_shot", "--out", "out", *more)


def full_disk(*arguments: Any) -> None:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def test_a_disk_that_is_full_from_the_start(rows: Path, asked: tuple, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as full:
        full.setattr(os, "replace", full_disk)
        told = compared(rows, asked[:-1])
    assert told.status == 2 and "settings.json: the disk is full" in told.line
    assert files(Path()) == {"rows.jsonl"} and not Path("out").exists()


def test_a_disk_that_fills_up_fails_the_arm(rows: Path, asked: tuple, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as full:
        full.setattr(artifacts, "sync_folder", full_disk)
        told = compared(rows, asked)
    assert {(arm["status"], "the disk is full" in arm["reason"]) for arm in told.document["arms"]} == {("failed", True)}
    assert told.document["pick"] is None
    left = {path.name for path in Path("out/arms/zero_shot/fold-1").iterdir()}
    assert left <= {"log.txt"}, "no half of an artifact"
    again = compared(rows, asked)
    assert {arm["status"] for arm in again.document["arms"]} == {"ok"}


@pytest.mark.parametrize(
    ("name", "value", "expected"),
    [
        ("disk_free", lambda path: 2**20, "error: out: the comparison needs about 5 MB of disk and 1 MB are free"),
        ("memory", lambda root=None: hardware.Memory(2**30, 2**20), "error: training needs about"),
    ],
)
def test_a_machine_that_is_too_small_is_told_before_anything_long(
    rows: Path, asked: tuple, monkeypatch: pytest.MonkeyPatch, name: str, value: Callable, expected: str
) -> None:
    with monkeypatch.context() as small:
        small.setattr(hardware, name, value)
        told = compared(rows, asked[:-1])
    assert told.status == 2 and told.line.startswith(expected)
    assert Path("out/measured.json").exists() and not Path("out/plan.json").exists(), "what was measured is kept"


def test_a_folder_where_nobody_may_write(rows: Path, model_folder: Path) -> None:
    told = command("compare", rows, "--model", model_folder, "--out", rows / "out")
    assert told.status == 2 and "rows.jsonl/out: cannot write here (Not a directory); choose another --out" in told.line
    assert files(Path()) == {"rows.jsonl"}


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("doctor",), ""),
        (("ui", "--no-browser"), ""),
        (("data", "rows.jsonl"), "rows.jsonl: no such file; check the path (see docs/data.md#files); "),
        (("verify", "out"), "out: no such file or folder"),
    ],
)
def test_a_working_folder_that_was_deleted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, words: tuple[str, ...], said: str
) -> None:
    gone = tmp_path / "gone"
    gone.mkdir()
    monkeypatch.chdir(gone)
    gone.rmdir()
    told = command(*words)
    assert told.status == 2 and told.line.startswith(f"error: {said}"), told
    assert told.line.endswith("no longer mounted; cd to one that is there and run the command again"), told


def test_a_wrong_option_in_a_deleted_folder_is_only_that(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    gone = tmp_path / "gone"
    gone.mkdir()
    monkeypatch.chdir(gone)
    gone.rmdir()
    assert command("doctor", "--jsn").line.endswith("see riyaz doctor --help")
