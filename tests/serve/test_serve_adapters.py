"""A whole comparison behind one server: every arm under its name, mixed in one batch, loaded and unloaded."""

import errno
import shutil
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import tiny_llama
from conftest import Finished
from live_server import Running, assert_error, running
from waiting import HANG, until

from riyaz import adapters
from riyaz.errors import RiyazError
from riyaz.families import describe
from riyaz.predictor import ClosedPredictor, open_artifact
from riyaz.results import Comparison
from riyaz.serve import opening
from riyaz.serve.opening import Opener
from riyaz.sources import open_source, store

QUESTIONS = ("where is my order today", "my card payment was declined today", "I want the money back", "zzz")


def asked(served: Running, model: str, question: str, **options: object) -> dict:
    body = {"model": model, "messages": [{"role": "user", "content": question}], **options}
    response = served.post("/v1/chat/completions", body)
    assert response.status_code == 200, response.text
    found: dict = response.json()
    return found


def texts(served: Running, model: str) -> list[str]:
    return [asked(served, model, question)["choices"][0]["message"]["content"] for question in QUESTIONS]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, model_folder: Path, quick: Finished) -> Path:
    """A folder of adapters: two LoRAs of PEFT, one for another base, an artifact, and a link that leads out of it."""
    made = tmp_path_factory.mktemp("adapters")
    family = describe(open_source(model_folder))
    for seed in (1, 2):
        generator = np.random.default_rng(seed)
        pairs = {
            path: adapters.Pair(generator.normal(0, 0.3, (4, shape[1])).astype(np.float32),
                                generator.normal(0, 0.3, (shape[0], 4)).astype(np.float32), 1.0)
            for path, shape in ((name.removesuffix(".weight"), shape) for name, shape in family_shapes(family).items())
        }  # fmt: skip
        (made / f"lora{seed}").mkdir()
        adapters.peft.write(adapters.Adapter(pairs=pairs), made / f"lora{seed}", family, base=str(model_folder))
    other = tiny_llama.write_hf_folder(tmp_path_factory.mktemp("other") / "other", hidden=32)
    (made / "wide").mkdir()
    narrow = adapters.Pair(np.ones((2, 32), np.float32), np.ones((32, 2), np.float32), 1.0)
    wide = {"model.layers.0.self_attn.q_proj": narrow}
    adapters.peft.write(adapters.Adapter(pairs=wide), made / "wide", describe(open_source(other)), base=str(other))
    shutil.copytree(quick.artifact("lora"), made / "labels")
    (made / "away").symlink_to(quick.artifact("lora"))
    (made / "empty").mkdir()
    return made


def family_shapes(family) -> dict[str, tuple[int, ...]]:
    shapes = tiny_llama.plan(tiny_llama.Tiny())
    return {name: shape for name, shape in shapes.items() if "q_proj" in name or "down_proj" in name}


@pytest.fixture(scope="module")
def served(quick: Finished, one_core: None, folder: Path) -> Iterator[Running]:
    opener = Opener("fp32", most=2)
    assert opener.serve_comparison(quick.out) == []
    with running(opener, adapters=folder) as found:
        yield found


def test_every_arm_answers_as_in_the_library(served: Running, quick: Finished) -> None:
    names = {model.id for model in served.openai.models.list().data}
    assert names >= {"out", *(f"out/{method}" for method in ("nearest", "zero_shot", "few_shot", "lora", "full"))}
    conversations = [[{"role": "user", "content": question}] for question in QUESTIONS]
    for method in ("nearest", "zero_shot", "few_shot", "prompt_tuning", "lora", "full"):
        wanted = open_artifact(quick.artifact(method), precision="fp32").answers(conversations)
        assert texts(served, f"out/{method}") == [answer.text for answer in wanted], method
    pick = Comparison.read(quick.out / "compare.json").pick
    assert texts(served, "out") == texts(served, f"out/{pick}")


def test_a_model_trained_whole_is_no_base_that_answers_other_questions(served: Running) -> None:
    asked_of = {"type": "predicate", "instructions": "Is it about cats?", "name": "cats"}
    for model, kind in ("out/full", "refusal"), ("out/lora", "predicate"):
        body = {"model": model, "input": "a", "questions": [asked_of]}
        (answer,) = served.post("/v1/decisions", body).json()["answers"]
        assert answer["type"] == kind and answer.get("answered_by", "base") == "base", model


def test_a_copied_answer_has_no_log_probabilities(served: Running) -> None:
    body = {"model": "out/nearest", "messages": [{"role": "user", "content": "a"}]}
    found = assert_error(served.post("/v1/chat/completions", {**body, "logprobs": True}), 400)
    assert found["param"] == "logprobs" and "no language model answers" in found["message"]
    assert (
        assert_error(served.post("/v1/completions", {"model": "out/nearest", "prompt": "a"}), 400)["param"] == "model"
    )
    assert assert_error(served.post("/tokenize", {"model": "out/nearest", "prompt": "a"}), 400)["param"] == "model"
    assert asked(served, "out/nearest", "a", n=2)["choices"][1]["message"]["content"]
    assert assert_error(served.post("/v1/chat/completions/input_tokens", body), 400)["param"] == "model"


def test_every_chosen_answer_is_counted(served: Running) -> None:
    one, three = (asked(served, "out/lora", QUESTIONS[0], n=n)["usage"] for n in (1, 3))
    assert three["completion_tokens"] == 3 * one["completion_tokens"] > 0
    assert three["prompt_tokens"] == one["prompt_tokens"]


def test_a_chosen_answer_comes_at_once_and_has_no_speed(served: Running) -> None:
    timings = asked(served, "out/lora", QUESTIONS[0])["timings"]
    assert timings["predicted_n"] > 0 and timings["prompt_ms"] > 0
    assert timings["predicted_ms"] == timings["predicted_per_second"] == 0


@pytest.mark.parametrize("stream", [False, True])
def test_a_chosen_label_has_the_log_probabilities_of_its_tokens(served: Running, quick: Finished, stream: bool) -> None:
    messages = [{"role": "user", "content": QUESTIONS[0]}]
    body = {"model": "out/lora", "messages": messages, "logprobs": True, "top_logprobs": 2, "stream": stream}
    made = served.openai.chat.completions.create(**body)  # type: ignore[call-overload]
    choices = [choice for chunk in made for choice in chunk.choices] if stream else made.choices
    content = [token for choice in choices if choice.logprobs for token in choice.logprobs.content]
    predictor = open_artifact(quick.artifact("lora"), precision="fp32")
    assert isinstance(predictor, ClosedPredictor)
    (prepared,) = predictor.prepare([messages])
    text = predictor.answer(messages)
    (ids,) = predictor.tokenizer.answer_ids([text])
    (wanted,) = predictor.lm.logprobs([prepared.request], [ids])
    assert "".join(token.token for token in content) == text
    assert np.abs(wanted[:-1] - [token.logprob for token in content]).max() < 1e-4


def test_a_label_has_the_confidence_and_the_runner_up_of_the_library(served: Running, quick: Finished) -> None:
    messages = [{"role": "user", "content": QUESTIONS[0]}]
    for method in ("zero_shot", "nearest"):
        (wanted,) = open_artifact(quick.artifact(method), precision="fp32").answers([messages])
        assert wanted.confidence is not None and wanted.runner_up is not None
        body = {"model": f"out/{method}", "messages": messages}
        whole = served.post("/v1/chat/completions", body).json()["choices"][0]["message"]
        chunks = list(served.openai.chat.completions.create(**body, stream=True))  # type: ignore[call-overload]
        response = served.post("/v1/responses", {"model": f"out/{method}", "input": messages}).json()["output"][0]
        for members in (whole, chunks[-1].choices[0].delta.model_extra, response):
            assert (members["confidence"], members["runner_up"]) == (wanted.confidence, wanted.runner_up)
    plain = served.post("/v1/chat/completions", {"model": "tiny", "messages": messages, "max_tokens": 2}).json()
    assert "confidence" not in plain["choices"][0]["message"]


def test_what_changes_nothing_is_named(served: Running) -> None:
    body = {"model": "out/lora", "messages": [{"role": "user", "content": "a"}], "temperature": 1, "max_tokens": 1}
    answer = served.post("/v1/chat/completions", body)
    assert answer.headers["x-riyaz-ignored"] == "temperature,max_tokens"
    more = {**body, "max_tokens": None, "max_completion_tokens": 9, "new": 1}
    more["messages"] = [{"role": "user", "content": [{"type": "text", "text": "a", "cache": 1}], "name": "me"}]
    told = served.post("/v1/chat/completions", more).headers["x-riyaz-ignored"]
    assert told == "new,messages.name,messages.content.cache,temperature,max_completion_tokens"
    response = served.post("/v1/responses", {"model": "out/lora", "input": "a", "temperature": 1, "new": 1})
    assert response.headers["x-riyaz-ignored"] == "new,temperature"
    begun = [*body["messages"], {"role": "assistant", "content": "re"}]  # type: ignore[misc]
    for name in ("out/lora", "out/nearest"):
        found = assert_error(served.post("/v1/chat/completions", {"model": name, "messages": begun}), 400)
        assert found["param"] == "messages" and "cannot be begun" in found["message"]


def test_an_adapter_that_is_removed_while_a_question_is_read_is_404(served: Running) -> None:
    body = {"model": "brief", "messages": [{"role": "user", "content": "a"}], "max_tokens": 1}
    assert served.post("/v1/adapters", {"name": "brief", "path": "lora1"}).status_code == 201
    assert served.post("/v1/chat/completions", body).status_code == 200
    reads = threading.Event()
    with ThreadPoolExecutor(1) as pool:
        served.state.preparing.submit(reads.wait, HANG)
        answer = pool.submit(served.post, "/v1/chat/completions", body)
        until(lambda: served.state.preparing._work_queue.qsize() == 1, "the request waits to be prepared")
        assert served.http.delete("/v1/adapters/brief").status_code == 200
        reads.set()
        assert assert_error(answer.result(), 404)["code"] == "model_not_found"
    assert not served.state.users, "nothing keeps in memory what was removed"


def test_an_adapter_that_is_removed_while_it_answers_holds_up_no_other(served: Running) -> None:
    assert served.post("/v1/adapters", {"name": "slow", "path": "lora1"}).status_code == 201
    answers = next(one for one in served.state.shelf if one.name == "slow")
    with ThreadPoolExecutor(1) as pool:
        with served.state.place(1, answers):
            gone = pool.submit(served.http.delete, "/v1/adapters/slow")
            until(lambda: all(one.name != "slow" for one in served.state.shelf), "it is removed")
            again = served.post("/v1/adapters", {"name": "slow", "path": "lora2"})
            assert "loaded already" in assert_error(again, 409)["message"]
            assert served.post("/v1/adapters", {"name": "other", "path": "lora2"}).status_code == 201
            assert not gone.done()
        assert gone.result().status_code == 200
    assert served.http.delete("/v1/adapters/other").status_code == 200


def test_adapters_are_loaded_mixed_and_unloaded(served: Running) -> None:
    base = next(model.id for model in served.openai.models.list().data if model.id.startswith("tiny"))
    plain = [asked(served, base, question, max_tokens=8) for question in QUESTIONS]
    for name in ("lora1", "lora2"):
        entry = served.post("/v1/adapters", {"name": f"mine/{name}", "path": name})
        assert entry.status_code == 201 and entry.json()["parent"] == base
    names = [base, "mine/lora1", "mine/lora2", "out/lora", "out/prompt_tuning", "out/few_shot"] * 2

    def answer(name: str) -> str:
        text: str = asked(served, name, QUESTIONS[1], max_tokens=12)["choices"][0]["message"]["content"]
        return text

    alone = [answer(name) for name in names]
    with ThreadPoolExecutor(len(names)) as pool:
        assert list(pool.map(answer, names)) == alone
    assert len(set(alone[:3])) == 3, "each adapter changes the answer"
    listed = served.http.get("/v1/adapters").json()["data"]
    assert [entry["id"] for entry in listed] == ["mine/lora1", "mine/lora2"]
    assert served.http.delete("/v1/adapters/mine/lora1").json()["deleted"] is True
    gone = {"model": "mine/lora1", "messages": [{"role": "user", "content": "a"}]}
    assert_error(served.post("/v1/chat/completions", gone), 404)
    assert served.http.delete("/v1/adapters/mine/lora2").status_code == 200
    assert [asked(served, base, question, max_tokens=8)["choices"] for question in QUESTIONS] == [
        made["choices"] for made in plain
    ]


def test_an_artifact_is_loaded_too_and_vllms_names_work(served: Running, folder: Path) -> None:
    body = {"lora_name": "again", "lora_path": str(folder / "labels")}
    assert served.post("/v1/load_lora_adapter", body).text.startswith("Success")
    assert texts(served, "again") == texts(served, "out/lora")
    assert assert_error(served.post("/v1/load_lora_adapter", body), 409)["param"] == "lora_name"
    assert served.post("/v1/unload_lora_adapter", {"lora_name": "again"}).text.startswith("Success")
    assert_error(served.post("/v1/unload_lora_adapter", {"lora_name": "again"}), 404)


@pytest.mark.parametrize(
    ("body", "status"),
    [
        ({"name": "wide"}, 400), ({"name": "absent"}, 400), ({"name": "empty"}, 400), ({"name": "away"}, 400),
        ({"name": "x", "path": "../adapters/lora1"}, 400), ({"name": "x", "path": "/etc"}, 400),
        ({"name": "../x"}, 400),
        ({"name": "x", "path": "lora1/../lora1"}, 400), ({"name": "x\n", "path": "lora1"}, 400), ({"name": ""}, 400),
        ({"name": "a" * 97}, 400), ({"name": "x", "path": "lora1\0"}, 400), ({"name": "/x", "path": "lora1"}, 400),
        ({"name": "out/lora", "path": "lora1"}, 409), ({"name": "x", "path": "lora1%2e"}, 400), ({}, 400),
        ({"name": "x", "path": "lora1．"}, 400), ({"name": "C:\\x", "path": "lora1"}, 400),
    ],
)  # fmt: skip
def test_what_does_not_fit_is_refused_and_the_server_lives_on(served: Running, body: dict, status: int) -> None:
    before = {model.id for model in served.openai.models.list().data}
    assert_error(served.post("/v1/adapters", body), status)
    assert {model.id for model in served.openai.models.list().data} == before
    assert asked(served, "out/zero_shot", "a")["choices"]


def lora(folder: Path, base: Path, rank: int, path: str = "model.layers.0.self_attn.q_proj") -> None:
    """A LoRA of this rank on one matrix of the tiny model."""
    family = describe(open_source(base))
    rows, columns = family_shapes(family)[f"{path}.weight"]
    pair = adapters.Pair(np.full((rank, columns), 0.01, np.float32), np.full((rows, rank), 0.01, np.float32), 1.0)
    folder.mkdir()
    adapters.peft.write(adapters.Adapter(pairs={path: pair}), folder, family, base=str(base))


def test_a_large_adapter_is_the_command_lines_alone(
    served: Running, folder: Path, model_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lora(folder / "deep", model_folder, opening.MAX_RANK + 1)
    what = assert_error(served.post("/v1/adapters", {"name": "deep"}), 400)["message"]
    assert "q_proj is 513; clients may load adapters of at most 512" in what and "when it starts" in what
    opener = Opener("fp32")
    opener.serve(str(folder / "deep"))
    monkeypatch.setattr(opening, "LARGEST", 1000)
    what = assert_error(served.post("/v1/adapters", {"name": "deep"}), 400)["message"]
    assert what.startswith("the adapter has ") and "clients may load" in what


def test_an_adapter_is_packed_while_others_are_answered(
    served: Running, folder: Path, model_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    runner = served.state.opener.bases[0].lm.runner
    lora(folder / "slow", model_folder, 8)
    prepared, packing, answered = runner.prepared, threading.Event(), threading.Event()

    def slowly(name: str, adapter: adapters.Adapter) -> object:
        packing.set()
        assert answered.wait(HANG), "others wait until it is packed"
        return prepared(name, adapter)

    monkeypatch.setattr(runner, "prepared", slowly)
    with ThreadPoolExecutor(1) as pool:
        loading = pool.submit(served.post, "/v1/adapters", {"name": "slow"})
        assert packing.wait(HANG)
        assert asked(served, "out/zero_shot", "a", max_tokens=1)["choices"]
        answered.set()
        assert loading.result().status_code == 201
    assert asked(served, "slow", "a", max_tokens=2)["choices"]
    assert served.http.delete("/v1/adapters/slow").status_code == 200


@pytest.mark.parametrize("name", ["adapter_config.json", "adapter_model.safetensors", "more.txt"])
def test_a_link_in_an_adapters_folder_tells_nothing_of_its_file(
    served: Running, folder: Path, model_folder: Path, tmp_path: Path, name: str
) -> None:
    (tmp_path / "secret").write_text("SECRET OF THE SERVER")
    shutil.copytree(folder / "lora1", folder / f"linked-{name}")
    (folder / f"linked-{name}" / name).unlink(missing_ok=True)
    (folder / f"linked-{name}" / name).symlink_to(tmp_path / "secret")
    what = assert_error(served.post("/v1/adapters", {"name": f"linked-{name}"}), 400)["message"]
    assert "is a link out of" in what and "SECRET" not in what and str(folder) not in what
    with pytest.raises(RiyazError, match="is a link out of"):
        adapters.read(folder / f"linked-{name}", describe(open_source(model_folder)))


def test_errors_name_no_path_of_the_server(served: Running, folder: Path) -> None:
    (folder / "broken").mkdir()
    (folder / "broken/adapter_config.json").write_text("{")
    what = assert_error(served.post("/v1/adapters", {"name": "broken"}), 400)["message"]
    assert "broken/adapter_config.json" in what and str(folder) not in what and str(folder.resolve()) not in what


def test_what_the_command_line_serves_stays(served: Running) -> None:
    assert_error(served.http.delete("/v1/adapters/out/lora"), 403)
    assert_error(served.http.delete("/v1/adapters/..%2fout"), 404)
    assert asked(served, "out/lora", "a")["choices"]


def test_a_full_disk_stops_no_adapter(served: Running, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*arguments: object, **options: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(store, "home", lambda: Path("/dev/null/nowhere"))
    monkeypatch.setattr(store, "write_json", full)
    assert served.post("/v1/adapters", {"name": "labels"}).status_code == 201, "nothing has to be written"
    assert served.http.delete("/v1/adapters/labels").status_code == 200


def test_a_base_whose_files_are_gone_is_one_line(tmp_path: Path, folder: Path) -> None:
    model = tiny_llama.write_hf_folder(tmp_path / "tiny", seed=1)
    opener = Opener("fp32")
    opener.serve(str(model))
    with running(opener, adapters=folder) as served:
        shutil.rmtree(model)
        for name in ("lora1", "labels"):
            answer = served.post("/v1/adapters", {"name": name})
            assert_error(answer, answer.status_code)
            assert answer.status_code in (400, 503)
        hello = {"model": "tiny", "messages": [{"role": "user", "content": "a"}], "max_tokens": 1}
        assert served.post("/v1/chat/completions", hello).status_code == 200


def test_without_a_folder_nothing_is_loaded(model_folder: Path) -> None:
    opener = Opener("fp32")
    opener.serve(str(model_folder))
    with running(opener) as served:
        assert_error(served.post("/v1/adapters", {"name": "lora1"}), 403)


def test_one_model_is_all_that_may_be_open(quick: Finished, one_core: None) -> None:
    opener = Opener("fp32", most=1)
    notes = opener.serve_comparison(quick.out)
    left_out = {note.split(" ")[0] for note in notes}
    served = {each.name for each in opener.shelf}
    assert left_out and all("larger --models" in note for note in notes) and not left_out & served and "out" in served


def test_passages_are_cited(retrieved: Finished, one_core: None) -> None:
    opener = Opener("fp32", most=2)
    opener.serve_comparison(retrieved.out)
    question = "who sends an order today?"
    with running(opener) as served:
        made = asked(served, "out/rag", question)["choices"][0]["message"]
        predictor = open_artifact(retrieved.artifact("rag"), precision="fp32")
        (wanted,) = predictor.answers([[{"role": "user", "content": question}]])
        assert made["content"] == wanted.text and tuple(made["citations"]) == wanted.citations
        assert {"doc_id", "title", "start", "end"} <= made["citations"][0].keys()
        create = served.openai.chat.completions.create
        chunks = list(create(model="out/rag", messages=[{"role": "user", "content": question}], stream=True))
        assert chunks[-1].choices[0].delta.model_extra["citations"] == made["citations"]  # type: ignore[index]
