"""One file with documents, chunks and vectors: what a kill, a lock, a full disk or a changed byte does to it."""

import os
import shutil
import signal
import sqlite3
import subprocess
import sys
import textwrap
from pathlib import Path

import numpy as np
import pytest
from tiny_embedder import BagEmbedder

from riyaz.errors import RiyazError
from riyaz.retrieval import database
from riyaz.retrieval.collection import Added, Collection, add, verify
from riyaz.retrieval.documents import Document

HELPERS = Path(__file__).parents[1] / "helpers"


def doc(name: str, text: str, title: str = "", pages: tuple[int, ...] = ()) -> Document:
    return Document(name, title, text, f"{name}.txt", pages)


DOCUMENTS = [doc("b", "The dog barks.", "Dogs"), doc("a", "Ein Größenmaß 日本 🙂", pages=(0, 0))]


@pytest.fixture
def path(tmp_path):
    add(tmp_path / "kept", DOCUMENTS, BagEmbedder())
    return tmp_path / "kept"


def change(path: Path, *statements: str) -> None:
    """Change a collection behind its back."""
    database = sqlite3.connect(path)
    for statement in statements:
        database.execute(statement)
    database.commit()
    database.close()


def message(function, *arguments, **known) -> str:
    with pytest.raises(RiyazError) as caught:
        function(*arguments, **known)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_what_goes_in_comes_out(path):
    found = Collection.open(path)
    assert list(found.documents) == sorted(DOCUMENTS, key=lambda d: d.doc_id)
    assert [(c.doc_id, c.text, c.start) for c in found.chunks()] == [
        ("a", "Ein Größenmaß 日本 🙂", 0),
        ("b", "The dog barks.", 0),
    ]
    bag = BagEmbedder()
    assert found.embedder == ("bag", bag.sha256)
    wanted = bag.embed(["Ein Größenmaß 日本 🙂", "The dog barks."])
    vectors = found.vectors()
    assert vectors is not None and vectors.dtype == np.float32 and np.array_equal(vectors, wanted)
    assert verify(path) == [] and os.listdir(path.parent) == ["kept"]


def test_adding_again_embeds_only_what_changed(path):
    bag = BagEmbedder()
    assert add(path, DOCUMENTS, bag) == Added(0, 2, 0, 0) and bag.embedded == []
    changed = [doc("b", "The cat."), doc("c", "New.")]
    assert add(path, changed, bag) == Added(1, 0, 1, 2) and bag.embedded == ["The cat.", "New."]
    found = Collection.open(path)
    assert [d.text for d in found.documents] == [DOCUMENTS[1].text, "The cat.", "New."]
    assert len(found.chunks()) == len(found.vectors()) == 3 and verify(path) == []


def test_the_order_of_adding_does_not_matter(path):
    other = path.with_name("other")
    for document in (*DOCUMENTS, doc("b", "first"), DOCUMENTS[0]):
        add(other, [document], BagEmbedder())
    assert Collection.open(other).chunks() == Collection.open(path).chunks()
    assert np.array_equal(Collection.open(other).vectors(), Collection.open(path).vectors())


def test_words_alone_have_no_vectors(tmp_path):
    add(tmp_path / "c", DOCUMENTS, None)
    found = Collection.open(tmp_path / "c")
    assert found.vectors() is None and found.embedder is None and len(found.chunks()) == 2
    assert verify(tmp_path / "c") == []


@pytest.mark.parametrize("embedder", [None, BagEmbedder("other")])
def test_another_embedder_is_refused_and_a_rebuild_takes_it(path, embedder):
    assert "was made with bag" in message(add, path, [doc("c", "x")], embedder)
    assert len(Collection.open(path).documents) == 2
    assert add(path, [doc("c", "x")], embedder, rebuild=True) == Added(1, 0, 0, 1)
    assert [d.doc_id for d in Collection.open(path).documents] == ["c"] and os.listdir(path.parent) == ["kept"]


def test_a_failed_rebuild_keeps_the_old(path):
    class Broken(BagEmbedder):
        def embed(self, texts, progress=None):
            raise RiyazError("no memory")

    message(add, path, [doc("c", "x")], Broken(), rebuild=True)
    assert len(Collection.open(path).documents) == 2 and os.listdir(path.parent) == ["kept"]


def test_a_device_and_a_pipe_are_no_collection(tmp_path, monkeypatch):
    monkeypatch.setattr(os, "replace", lambda *_: pytest.fail("the device would be replaced"))
    os.mkfifo(tmp_path / "pipe")
    for path in (Path("/dev/null"), tmp_path / "pipe"):  # to open the pipe would wait for ever
        for rebuild in (True, False):
            assert "is not a file that can hold a collection" in message(add, path, DOCUMENTS, None, rebuild=rebuild)
        assert "is not a file that can hold a collection" in message(Collection.open, path)


KILLED = """
    import os, signal, sys
    from pathlib import Path
    sys.path.insert(0, {helpers!r})
    from tiny_embedder import BagEmbedder
    from riyaz.retrieval import collection
    from riyaz.retrieval.documents import Document

    class Killer(BagEmbedder):
        def embed(self, texts, progress=None):
            if {when!r} == "embed":
                os.kill(os.getpid(), signal.SIGKILL)
            return super().embed(texts)

    def write(database, *arguments, real=collection._write):
        database.execute("PRAGMA cache_size = 1")  # so that pages reach the file before the commit
        real(database, *arguments)
        if {when!r} == "write":
            os.kill(os.getpid(), signal.SIGKILL)

    def replace(*paths):
        os.kill(os.getpid(), signal.SIGKILL)

    collection._write = write
    if {when!r} == "replace":
        os.replace = replace
    many = [Document(f"n{{i}}", "", "text " * 2000, "n") for i in range(50)]
    collection.add(Path(sys.argv[1]), [Document("b", "", "replaced", "x"), *many], Killer(), rebuild={rebuild})
"""


@pytest.mark.parametrize(("when", "rebuild"), [("embed", False), ("write", False), ("write", True)])
def test_a_kill_in_the_middle_of_add_leaves_what_was_there(path, when, rebuild):
    code = textwrap.dedent(KILLED).format(helpers=str(HELPERS), when=when, rebuild=rebuild)
    before = path.read_bytes()
    done = subprocess.run([sys.executable, "-c", code, str(path)], capture_output=True)
    assert done.returncode == -signal.SIGKILL, done.stderr
    if when == "write" and not rebuild:
        assert path.read_bytes() != before, "nothing had been written yet: the test proves nothing"
    assert verify(path) == []
    assert [d.text for d in Collection.open(path).documents] == [DOCUMENTS[1].text, DOCUMENTS[0].text]
    assert add(path, [doc("c", "x")], BagEmbedder()).added == 1


def test_a_kill_in_the_first_add_leaves_a_file_that_can_be_added_to(tmp_path):
    path = tmp_path / "new"
    code = textwrap.dedent(KILLED).format(helpers=str(HELPERS), when="write", rebuild=False)
    assert subprocess.run([sys.executable, "-c", code, str(path)]).returncode == -signal.SIGKILL
    assert "holds no documents" in message(Collection.open, path)
    assert add(path, DOCUMENTS, BagEmbedder()).added == 2 and verify(path) == []


def killed(path: Path, when: str, rebuild: bool) -> None:
    code = textwrap.dedent(KILLED).format(helpers=str(HELPERS), when=when, rebuild=rebuild)
    assert subprocess.run([sys.executable, "-c", code, str(path)]).returncode == -signal.SIGKILL


def test_a_rebuild_that_is_killed_leaves_the_old_even_after_a_killed_add(path):
    killed(path, "write", rebuild=False)
    assert path.with_name("kept-journal").exists(), "the old one is whole only with its journal"
    killed(path, "replace", rebuild=True)
    assert verify(path) == []
    assert [d.text for d in Collection.open(path).documents] == [DOCUMENTS[1].text, DOCUMENTS[0].text]
    assert len(os.listdir(path.parent)) > 1, "the killed one could not clear up"
    assert add(path, [doc("c", "x")], BagEmbedder(), rebuild=True) == Added(1, 0, 0, 1)
    assert verify(path) == [] and os.listdir(path.parent) == ["kept"]


def test_a_rebuild_after_a_killed_first_add(tmp_path):
    path = tmp_path / "new"
    killed(path, "write", rebuild=False)
    assert add(path, DOCUMENTS, BagEmbedder(), rebuild=True).added == 2
    assert verify(path) == [] and os.listdir(tmp_path) == ["new"]


def test_a_rebuild_takes_the_log_of_the_old_with_it(path, tmp_path):
    writer = sqlite3.connect(path)
    writer.execute("PRAGMA journal_mode = WAL")
    writer.execute("UPDATE documents SET title = 'from the log'")
    writer.commit()
    (tmp_path / "copy").mkdir()
    for name in ("kept", "kept-wal"):  # as after a crash
        shutil.copy(tmp_path / name, tmp_path / "copy" / name)
    writer.close()
    path = tmp_path / "copy" / "kept"
    add(path, [doc("c", "x")], BagEmbedder(), rebuild=True)
    assert [d.doc_id for d in Collection.open(path).documents] == ["c"] and verify(path) == []
    assert os.listdir(path.parent) == ["kept"]


def test_a_rebuild_waits_for_a_writer_and_a_writer_for_a_rebuild(path, monkeypatch):
    monkeypatch.setattr(database, "BUSY_SECONDS", 0.1)
    holder = sqlite3.connect(path, isolation_level=None)
    holder.execute("BEGIN IMMEDIATE")
    assert "another process is writing it" in message(add, path, [doc("c", "x")], BagEmbedder(), rebuild=True)
    holder.close()

    class Second(BagEmbedder):
        def embed(self, texts, progress=None):
            for rebuild in (False, True):
                code = "import sys, pathlib; from riyaz.retrieval import collection, database\n"
                code += "database.BUSY_SECONDS = 0.1; from riyaz.retrieval.documents import Document\n"
                code += "document = Document('z', '', 'z', 'z')\n"
                code += f"collection.add(pathlib.Path(sys.argv[1]), [document], None, rebuild={rebuild})"
                done = subprocess.run([sys.executable, "-c", code, str(path)], capture_output=True, text=True)
                assert "another process is writing it" in done.stderr
            assert [d.doc_id for d in Collection.open(path).documents] == ["a", "b"], "readers need not wait"
            return super().embed(texts, progress)

    assert add(path, [doc("c", "x")], Second(), rebuild=True).added == 1
    assert [d.doc_id for d in Collection.open(path).documents] == ["c"] and os.listdir(path.parent) == ["kept"]


def test_what_was_replaced_while_a_writer_waited_is_not_written(path, tmp_path, monkeypatch):
    add(tmp_path / "other", [doc("c", "x")], BagEmbedder())
    real = database._connection

    def replaced(*arguments):
        made = real(*arguments)
        os.replace(tmp_path / "other", path)
        return made

    with monkeypatch.context() as patch:
        patch.setattr(database, "_connection", replaced)
        assert "another process has replaced it meanwhile" in message(add, path, [doc("d", "y")], BagEmbedder())
    assert [d.doc_id for d in Collection.open(path).documents] == ["c"]


def test_a_rebuild_through_a_link_replaces_what_it_leads_to(path):
    link = path.with_name("link")
    link.symlink_to(path)
    add(link, [doc("c", "x")], BagEmbedder(), rebuild=True)
    assert link.is_symlink() and [d.doc_id for d in Collection.open(path).documents] == ["c"]


def test_no_embedded_text_is_longer_than_the_embedder_reads(tmp_path):
    class Narrow(BagEmbedder):
        window = 20

        def embed(self, texts, progress=None):
            assert max(len(self.token_offsets(text)) for text in texts) <= self.window
            return super().embed(texts, progress)

    assert add(tmp_path / "c", [doc("a", "# Head\n\n" + "word " * 500, "A title " * 50)], Narrow()).chunks > 25


@pytest.mark.parametrize(
    ("statement", "problem"),
    [
        ("UPDATE documents SET text = text || ' more' WHERE doc_id = 'b'", "document 'b' is not as it was written"),
        ("UPDATE documents SET pages = '[999]' WHERE doc_id = 'b'", "document 'b' is not as it was written"),
        ("UPDATE documents SET pages = '[[' WHERE doc_id = 'b'", "document 'b' is not as it was written"),
        ("UPDATE documents SET title = x'00' WHERE doc_id = 'b'", "document 'b' is not as it was written"),
        ("UPDATE chunks SET stop = 5 WHERE doc_id = 'b'", "of document 'b' is not as it was written"),
        ("UPDATE chunks SET stop = 5000 WHERE doc_id = 'b'", "of document 'b' is not as it was written"),
        ("UPDATE chunks SET start = -3 WHERE doc_id = 'b'", "of document 'b' is not as it was written"),
        ("UPDATE chunks SET start = 'x' WHERE doc_id = 'b'", "of document 'b' is not as it was written"),
        ("UPDATE chunks SET doc_id = 'zz' WHERE doc_id = 'b'", "of document 'zz' is not as it was written"),
        ("UPDATE vectors SET vector = x'00' WHERE chunk = 1", "the vector of chunk 1 is not as it was written"),
        ("UPDATE vectors SET vector = zeroblob(256) WHERE chunk = 1", "the vector of chunk 1 is not as"),
        ("UPDATE vectors SET vector = 'text' WHERE chunk = 1", "the vector of chunk 1 is not as it was written"),
        ("DELETE FROM vectors WHERE chunk = 1", "chunk 1 has no vector"),
        ("DELETE FROM chunks WHERE id = 1", "1 chunks where 2 were written"),
        ("INSERT INTO vectors VALUES (9, zeroblob(256), '')", "some vectors belong to no chunk"),
        ("UPDATE meta SET value = '63' WHERE key = 'dim'", "is not as it was written"),
        ("UPDATE meta SET value = '99999999999999999999' WHERE key = 'dim'", "is not as it was written"),
        ("DELETE FROM meta WHERE key = 'dim'", "has a vector"),
        ("UPDATE meta SET value = '2' WHERE key = 'version'", "made by a newer riyaz (format 2, this one reads 1)"),
        ("DROP TABLE vectors", "its tables differ"),
        ("CREATE VIEW v AS SELECT 1", "its tables differ"),
        ("PRAGMA application_id = 0", "is not a Riyaz collection"),
    ],
)  # fmt: skip
def test_verify_names_what_was_changed(path, statement, problem):
    change(path, statement)
    found = verify(path)
    assert any(problem in line for line in found), found
    assert all("--rebuild" in line or "riyaz rag add" in line or "update riyaz" in line for line in found)


def test_open_refuses_a_vector_of_another_size_without_hashing(path):
    change(path, "UPDATE vectors SET vector = x'0000' WHERE chunk = 1")
    assert "broken: the vector of chunk 1" in message(Collection.open, path)
    assert "--rebuild" in message(Collection.open, path)


def test_any_changed_byte_is_one_line_or_harmless(path):
    whole = path.read_bytes()
    for place in range(0, len(whole), 211):
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 0x5A]) + whole[place + 1 :])
        try:
            problems = verify(path)
        except RiyazError as error:
            problems = [str(error)]
        assert all("\n" not in line for line in problems)
        if not problems:
            assert len(Collection.open(path).chunks()) == 2


@pytest.mark.parametrize("cut", [0.3, 0.9])
def test_a_cut_file_is_broken_and_a_rebuild_mends_it(path, cut):
    path.write_bytes(path.read_bytes()[: int(path.stat().st_size * cut)])
    assert "--rebuild" in verify(path)[0]
    message(Collection.open, path)
    add(path, DOCUMENTS, BagEmbedder(), rebuild=True)
    assert verify(path) == [] and len(Collection.open(path).chunks()) == 2


def test_what_is_not_a_collection_is_refused_and_never_replaced(tmp_path):
    (tmp_path / "notes.txt").write_text("my notes, which are longer than a header of one hundred bytes " * 9)
    change(tmp_path / "other.sqlite", "CREATE TABLE meta (key TEXT, value TEXT)")
    (tmp_path / "short").write_text("x")
    for name in ("notes.txt", "other.sqlite", "short"):
        file = tmp_path / name
        content = file.read_bytes()
        assert "is not a Riyaz collection" in message(Collection.open, file)
        assert "is not a Riyaz collection" in message(add, file, DOCUMENTS, None)
        assert "is not replaced" in message(add, file, DOCUMENTS, None, rebuild=True)
        assert file.read_bytes() == content
    assert verify(tmp_path / "other.sqlite") == [
        "is not a Riyaz collection; name a file that riyaz rag add has written"
    ]
    assert "is a folder" in message(add, tmp_path, DOCUMENTS, None)
    assert "no such file" in message(Collection.open, tmp_path / "absent")
    assert "no such file" in message(verify, tmp_path / "absent")


def test_a_locked_collection_is_one_line(path, monkeypatch):
    monkeypatch.setattr(database, "BUSY_SECONDS", 0.1)
    holder = sqlite3.connect(path, isolation_level=None)
    holder.execute("BEGIN IMMEDIATE")
    assert "another process is writing it" in message(add, path, [doc("c", "x")], BagEmbedder())
    assert len(Collection.open(path).documents) == 2, "readers need not wait"
    holder.close()


def test_a_place_that_cannot_be_written_is_one_line(path):
    assert "kept: cannot be written: File exists" in message(add, path / "c", DOCUMENTS, None)


@pytest.mark.parametrize("first", [True, False])
def test_a_full_disk_changes_nothing(path, first):
    target = path.with_name("new") if first else path
    code = (
        "import resource, sys; from pathlib import Path\n"
        f"sys.path.insert(0, {str(HELPERS)!r})\n"
        "from tiny_embedder import BagEmbedder\n"
        "from riyaz.cli.main import explain\n"
        "from riyaz.retrieval.collection import add\n"
        "from riyaz.retrieval.documents import Document\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (60_000, 60_000))\n"
        "try: add(Path(sys.argv[1]), [Document('n', '', 'text ' * 40_000, 'n')], BagEmbedder())\n"
        "except Exception as error: print(*explain(error))\n"
    )
    done = subprocess.run([sys.executable, "-c", code, str(target)], capture_output=True, text=True)
    assert "the disk is full" in done.stdout and done.stdout.strip().endswith("2"), done
    assert verify(path) == [] and not path.with_name("new").exists()


def test_a_copy_of_the_one_file_is_the_collection(path, tmp_path):
    shutil.copy(path, tmp_path / "copy")
    assert Collection.open(tmp_path / "copy").chunks() == Collection.open(path).chunks()
    (tmp_path / "copy").chmod(0o400)
    assert verify(tmp_path / "copy") == []
