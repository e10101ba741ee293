"""The texts beside the rows: what is refused before anything is measured, and that a folder keeps to its texts."""

from pathlib import Path
from typing import Any

import pytest
import tiny_comparison
import tiny_llama
from refusals import assert_refused
from tiny_comparison import Told, command, free_rows, write_rows

from riyaz import rehearsal
from riyaz.comparison.general_texts import checked_texts
from riyaz.config import CompareConfig
from riyaz.data.general_text import general_text, prose_text
from riyaz.rehearsal import user_text
from riyaz.sources import Source, open_source

WORDS = tiny_llama.CORPUS.split()


def other_text(tokens: int) -> str:
    """Words of the tests' text in another order."""
    return " ".join(WORDS[place * place * 7 % len(WORDS)] + str(place) for place in range(tokens))


def written(path: Path, text: str) -> Path:
    path.write_text(text, encoding="utf-8")
    return path


@pytest.fixture(scope="module")
def source(model_folder: Path) -> Source:
    return open_source(str(model_folder))


def check(source: Source, text: Path | None, general: Path | None = None, **more: Any) -> dict[str, str]:
    return checked_texts(CompareConfig(general=general, replay_from=text, **more), [source])


@pytest.mark.parametrize(("text", "words"), [
    ("", "holds no text"), ("a few words", "tokens are too few to rehearse"),
    ("\0" * 9000, "holds a byte that is 0"), ("\n \t" * 9000, "holds no text"),
])  # fmt: skip
def test_a_text_that_cannot_be_rehearsed_is_refused(text: str, words: str, tmp_path: Path, source: Source) -> None:
    with assert_refused("mine.txt", words, "the word self"):
        check(source, written(tmp_path / "mine.txt", text))


def test_a_text_on_which_forgetting_is_measured_is_not_rehearsed(tmp_path: Path, source: Source) -> None:
    general = written(tmp_path / "general.txt", other_text(3000))
    wrapped = other_text(3000).replace(" ", "\n")
    own = " ".join(str(place * 7919) for place in range(20_000))
    for text, words in ((other_text(3000), "general.txt, on which forgetting is measured"),
                        (own + wrapped[: len(wrapped) // 4], "general.txt, on which forgetting is measured"),
                        (other_text(1200), "general.txt, on which forgetting is measured"),
                        (own + prose_text(), "the prose that riyaz brings along")):  # fmt: skip
        with assert_refused("mine.txt", words, "give another text"):
            check(source, written(tmp_path / "mine.txt", text), general)
    topics = written(tmp_path / "mine.txt", general_text(None)[100_000:400_000])
    with assert_refused("mine.txt", "Python's help topics", "--general"):
        check(source, topics)
    assert set(check(source, topics, general)) == {"general_text", "replayed_text"}
    assert set(check(source, written(tmp_path / "mine.txt", own), general)) == {"general_text", "replayed_text"}
    assert check(source, None) == check(source, Path("self")) == {}
    assert check(source, Path("none.txt"), replay=0.0) == {}


def test_of_a_large_file_pieces_are_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lines = [f"line {place} of größe €\n" for place in range(9000)]
    path = written(tmp_path / "large.txt", "\ufeff" + "".join(lines))
    assert user_text(path) == "".join(lines)
    monkeypatch.setattr(rehearsal, "LARGEST", 20_000)
    text = user_text(path)
    assert 19_000 < len(text.encode()) < 20_200 and text.startswith("line 0 of größe €\n")
    assert text.endswith(lines[-1]) and len({line for line in lines if line in text}) > 500
    assert lines[4500 - 20] in text or any(line in text for line in lines[4400:4600]), "from everywhere"
    (tmp_path / "large").write_bytes(b"\xff\xfe" * 40_000)
    with assert_refused("large", "cannot be read as text"):
        user_text(tmp_path / "large")


def adapted(home: Path, *arguments: object) -> Told:
    with tiny_comparison.small_machine(home) as patch:
        tiny_comparison.workers_inside(patch)
        return command("adapt", "lora", *arguments)


@pytest.mark.parametrize("changed", ["general", "replay-from"])
def test_a_folder_is_not_continued_with_another_text(
    changed: str, tmp_path: Path, home: Path, model_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = write_rows(tmp_path / "rows.jsonl", free_rows(30))
    test = [row | {"instruction": f"{row['instruction']} today"} for row in free_rows(8)]
    texts = {name: tmp_path / f"{name}.txt" for name in ("general", "replay-from")}
    written(texts["general"], tiny_llama.CORPUS)
    written(texts["replay-from"], other_text(3000))
    ask = (rows, "--test", write_rows(tmp_path / "test.jsonl", test), "--model", model_folder, "--budget", "3h",
           "--general", texts["general"], "--replay-from", texts["replay-from"], "--out", tmp_path / "out")  # fmt: skip
    with monkeypatch.context() as patch:
        patch.setattr("riyaz.methods.lora.fit_weights", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        assert adapted(home, *ask).status == 130
    before = texts[changed].read_text()
    texts[changed].write_text(before + " and more")
    told = adapted(home, *ask)
    assert told.status != 0 and f"other {'general' if changed == 'general' else 'replayed'} text" in told.line
    texts[changed].write_text(before)
    told = adapted(home, *ask)
    assert told.status == 0, told.err
