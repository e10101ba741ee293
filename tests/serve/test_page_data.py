"""Data, documents, limits and further models on the page."""

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import tiny_comparison
import tiny_llama
from conftest import Finished
from live_server import Running, assert_error, running

from riyaz.serve.opening import Opener
from riyaz.serve.page import documents
from riyaz.serve.page.place import Page

ASKED = "how long is a card payment pending"


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory, model_folder: Path, collection: Path, quick: Finished) -> Path:
    """A folder with two models, a comparison, rows, documents and their collection."""
    folder = tmp_path_factory.mktemp("data")
    shutil.copytree(model_folder, folder / "tiny")
    tiny_llama.write_hf_folder(folder / "other", seed=2)
    shutil.copytree(quick.out, folder / "workshop")
    shutil.copy(collection, folder / "pages.sqlite")
    (folder / "broken.sqlite").write_bytes(b"no database")
    tiny_comparison.write_pages(folder / "pages")
    rows = tiny_comparison.write_rows(folder / "rows.jsonl", tiny_comparison.closed_rows(60, "please"))
    rows.write_text(rows.read_text() + rows.read_text().splitlines()[0] + "\n")  # a repeated row
    return folder


@pytest.fixture(scope="module")
def served(place: Path) -> Iterator[Running]:
    opener, page = Opener("fp32", most=2), Page.of(place)
    opener.serve(str(place / "tiny"))
    with running(opener, page=page) as found:
        found.http.headers["x-riyaz-token"] = page.token
        yield found


def test_data_is_read_as_the_command_reads_it(served: Running) -> None:
    params = {"path": "rows.jsonl", "model": "tiny", "offset": "10"}
    found = served.http.get("/page/data", params=params).json()
    assert found["command"] == "riyaz data ./rows.jsonl --rows 50 --skip-problems --offset 10 --model ./tiny"
    data = found["data"]
    assert data["rows"] == 61 and data["task"]["kind"] == "closed" and data["report"]["duplicates"] >= 1
    assert len(data["examples"]) == len(data["rendered"]) == 50
    for example, shown in zip(data["examples"], data["rendered"]):
        assert example["where"] == shown["where"] and example["answers"][0] in shown["answer"]
    histogram = data["histogram"]["prompt"]
    assert len(histogram["edges"]) == len(histogram["counts"]) + 1 and sum(histogram["counts"]) == 61
    assert histogram["edges"][-1] > data["tokens"]["prompt"]["longest"]


@pytest.mark.parametrize(
    ("params", "status", "says"),
    [
        ({"path": "absent.csv"}, 404, "there is no 'absent.csv'"), ({"path": "../x"}, 404, "there is no '../x'"),
        ({"path": "pages.sqlite"}, 400, "pages.sqlite"), ({"path": "rows.jsonl", "model": "../x"}, 404, "../x"),
        ({"path": "rows.jsonl", "prompt_column": "absent"}, 400, "absent"),
        ({"path": "rows.jsonl", "prompt_column": "a\0b"}, 400, "holds a NUL character"),
    ],
)  # fmt: skip
def test_data_that_cannot_be_read_is_one_line(served: Running, params: dict[str, str], status: int, says: str) -> None:
    told = assert_error(served.http.get("/page/data", params=params), status)["message"]
    assert says in told and "Traceback" not in told


def test_an_upload_that_is_no_data_is_said_and_kept(served: Running, place: Path) -> None:
    made = served.http.post("/page/files", params={"name": "photo.csv"}, content=b"\x89PNG\r\n\x1a\n\0\0\0").json()
    told = assert_error(served.http.get("/page/data", params={"path": made["path"]}), 400)["message"]
    assert "photo.csv" in told and (place / made["path"]).is_file()


def test_collections_are_listed_and_searched_with_the_passage_in_its_place(served: Running) -> None:
    found = {each["path"]: each for each in served.http.get("/page/collections").json()["collections"]}
    assert found.keys() == {"pages.sqlite", "broken.sqlite"} and "broken.sqlite" in found["broken.sqlite"]["problem"]
    assert {each["id"] for each in found["pages.sqlite"]["documents"]} == tiny_comparison.PAGES.keys()
    asked = {"collection": "pages.sqlite", "query": ASKED, "k": 2}
    hit = served.post("/page/search", asked).json()["passages"][0]
    assert hit["doc_id"] == "cards.md" and "two days" in hit["text"]
    params = {"collection": "pages.sqlite", "id": "cards.md", "start": hit["start"], "end": hit["end"]}
    shown = served.http.get("/page/document", params=params).json()
    assert shown["passage"] == hit["text"]
    whole = shown["before"] + shown["passage"] + shown["after"]
    assert len(whole) == shown["characters"] and whole[hit["start"] : hit["end"]] == hit["text"]


@pytest.mark.parametrize(
    ("body", "status"),
    [
        ({"collection": "pages.sqlite"}, 400), ({"collection": "absent", "query": "x"}, 404),
        ({"collection": "../pages.sqlite", "query": "x"}, 404), ({"collection": "broken.sqlite", "query": "x"}, 400),
        ({"collection": "rows.jsonl", "query": "x"}, 400), ({"collection": "pages.sqlite", "query": ""}, 400),
        ({"collection": "pages.sqlite", "query": "x", "k": 0}, 400),
    ],
)  # fmt: skip
def test_a_search_that_cannot_be_made_is_one_line(served: Running, body: dict[str, Any], status: int) -> None:
    assert_error(served.post("/page/search", body), status)


def test_a_cited_passage_stands_in_the_documents_of_the_model_that_cites_it(place: Path, retrieved: Finished) -> None:
    shutil.copytree(retrieved.out, place / "asked")
    opener, page = Opener("fp32"), Page.of(place)
    opener.serve(str(place / "tiny"))
    with running(opener, page=page) as served:
        served.http.headers["x-riyaz-token"] = page.token
        name = served.post("/page/adapters", {"path": "asked/arms/rag"}).json()["id"]
        body = {"model": name, "messages": [{"role": "user", "content": ASKED}]}
        cited = served.post("/v1/chat/completions", body).json()["choices"][0]["message"]["citations"][0]
        asked = {"id": cited["doc_id"], "start": cited["start"], "end": cited["end"]}
        found = served.http.get("/page/document", params={"model": name, **asked}).json()
        assert found["title"] == cited["title"] and len(found["passage"]) == cited["end"] - cited["start"] > 0
        assert_error(served.http.get("/page/document", params={"model": "absent", **asked}), 404)
        assert_error(served.http.get("/page/document", params={"model": "tiny", **asked}), 400)
        shutil.rmtree(place / "asked")
        assert_error(served.http.get("/page/document", params={"model": name, **asked}), 400)


def test_a_document_that_is_not_there(served: Running) -> None:
    for params in ({"id": "absent"}, {}, {"id": "cards.md", "collection": "broken.sqlite"}):
        answer = served.http.get("/page/document", params={"collection": "pages.sqlite", **params})
        assert answer.status_code in (400, 404) and answer.json()["error"]["message"]


def test_documents_are_added_by_the_command_and_found_at_once(served: Running, place: Path) -> None:
    body = {"collection": "new.sqlite", "documents": "pages", "lexical": True}
    made = served.post("/page/collections", body).json()
    assert made["command"] == "riyaz rag add ./new.sqlite ./pages --lexical" and made["added"]["added"] == 3
    asked = {"collection": "new.sqlite", "query": ASKED}
    assert served.post("/page/search", asked).json()["passages"][0]["doc_id"] == "cards.md"
    before = len(documents._open)
    (place / "pages/desk.txt").write_text("A zebra works at the desk.")
    served.post("/page/collections", body)
    asked["query"] = "zebra"
    assert served.post("/page/search", asked).json()["passages"][0]["doc_id"] == "desk.txt", "opened anew"
    assert before < len(documents._open) <= documents.MAX_OPEN
    for wrong in ("../x.sqlite", "x.txt", "/tmp/x.sqlite", "--x.sqlite"):
        assert_error(served.post("/page/collections", {**body, "collection": wrong}), 400)
    assert_error(served.post("/page/collections", {**body, "documents": "absent"}), 404)
    (place / "new.sqlite").unlink()


def test_limits_of_a_folder_and_of_arms(served: Running, place: Path) -> None:
    assert "riyaz limits measures them" in assert_error(served.http.get("/page/limits?path=workshop"), 404)["message"]
    document = {"target": "x", "sha256": None, "suites": [{"name": "bias"}]}
    for path in ("workshop/arms/lora/kept/artifact", "tiny"):
        (place / path / "limits.json").write_text(json.dumps(document))
    arms = served.http.get("/page/limits?path=workshop").json()["limits"]
    assert arms.keys() == {"lora"} and arms["lora"]["suites"][0]["name"] == "bias"
    assert served.http.get("/page/limits?path=tiny").json()["limits"].keys() == {"tiny"}
    (place / "tiny/limits.json").write_text('{"suites": 1}')
    assert "limits.json" in assert_error(served.http.get("/page/limits?path=tiny"), 400)["message"]
    (place / "tiny/limits.json").unlink()
    (place / "workshop/arms/lora/kept/artifact/limits.json").unlink()


def test_chat_with_an_arm_of_a_run_and_with_a_further_model(served: Running, quick: Finished, place: Path) -> None:
    made = served.post("/page/adapters", {"path": "workshop/arms/lora"})
    assert made.status_code == 201, made.text
    assert made.json()["id"] == "workshop/lora" and made.json()["method"] == "lora" and made.json()["base"] == "tiny"
    ask = {"model": "workshop/lora", "messages": [{"role": "user", "content": "where is my order please"}]}
    assert served.post("/v1/chat/completions", ask).json()["choices"][0]["message"]["content"] in tiny_comparison.CLOSED
    assert served.post("/page/adapters", {"path": "workshop/arms/lora"}).json()["id"] == "workshop/lora", "once"
    pick = served.post("/page/adapters", {"path": "workshop", "name": "best"}).json()
    assert pick["id"] in ("best", "workshop/lora") and pick["method"] == quick.document["pick"]
    other = served.post("/page/adapters", {"path": "other"}).json()
    assert (other["id"], other["base"], other["kind"]) == ("other", None, "generated")
    text = {"text": "the card"}
    first, second = (served.post("/page/next", {"model": name, **text}).json() for name in ("tiny", "other"))
    assert first["entropy"] != second["entropy"]
    assert served.http.delete("/v1/adapters/workshop/lora").status_code == 200


@pytest.mark.parametrize(
    ("body", "status", "says"),
    [
        ({}, 400, "path"), ({"path": "absent"}, 404, "absent"), ({"path": ".."}, 404, ".."),
        ({"path": "pages"}, 400, "no model, artifact or adapter"), ({"path": "rows.jsonl"}, 400, "rows.jsonl"),
        ({"path": "workshop/arms/full", "name": "a b"}, 400, "cannot be a model's name"),
        ({"path": "workshop/arms/full", "name": "tiny"}, 409, "already"),
        ({"path": "workshop/arms/full"}, 400, "--models"),  # a whole model, the third
    ],
)  # fmt: skip
def test_what_cannot_be_chatted_with_is_one_line(served: Running, body: dict[str, Any], status: int, says: str) -> None:
    served.post("/page/adapters", {"path": "other"})
    before = [model["id"] for model in served.http.get("/page/info").json()["models"]]
    assert says in assert_error(served.post("/page/adapters", body), status)["message"]
    assert [model["id"] for model in served.http.get("/page/info").json()["models"]] == before
