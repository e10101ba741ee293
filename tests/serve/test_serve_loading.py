"""A server answers while its models are opened, and ends with one line where they cannot be."""

import threading
from pathlib import Path

import pytest
from live_server import assert_error, running
from waiting import HANG, until

from riyaz.config import ServeConfig
from riyaz.errors import RiyazError
from riyaz.serve import server
from riyaz.serve.opening import Opener
from riyaz.serve.state import State

HELLO = {"model": "tiny", "messages": [{"role": "user", "content": "hello"}], "max_tokens": 2}


def test_health_and_ready_answer_while_the_model_is_loading(model_folder: Path) -> None:
    opener, go_on = Opener("fp32"), threading.Event()

    def load() -> None:
        assert go_on.wait(HANG)
        opener.serve(str(model_folder))

    with running(opener, load) as served:
        assert served.http.get("/health").json() == {"status": "ok"}
        answer = served.http.get("/ready")
        assert "loading" in assert_error(answer, 503)["message"] and answer.headers["retry-after"] == "2"
        for path in ("/v1/models", "/v1/models/tiny", "/v1/adapters", "/tokenizer_info"):
            assert assert_error(served.http.get(path), 503)["type"] == "unavailable_error"
        for stream in (False, True):
            assert_error(served.post("/v1/chat/completions", {**HELLO, "stream": stream}), 503)
        assert_error(served.http.get("/health", headers={"host": "evil.example"}), 403)
        assert "riyaz:requests_running 0" in served.http.get("/metrics").text
        assert served.http.get("/openapi.json").status_code == served.http.get("/version").status_code == 200
        go_on.set()
        until(lambda: served.http.get("/ready").status_code == 200, "the model is open")
        assert served.post("/v1/chat/completions", HELLO).status_code == 200


@pytest.mark.parametrize("stops", [False, True])
def test_what_cannot_be_opened_ends_the_server(stops: bool) -> None:
    config = ServeConfig(port=0, drain=0)
    opener, listening = Opener("fp32"), server.bound(config)
    state = State(config, opener.shelf, opener, loaded=False)
    made, told = server.made(state), []

    def load() -> None:
        if not stops:
            raise RiyazError("there is no such model")
        made.should_exit = True  # as a signal does, while the model is loading

    try:
        if stops:
            server.run(made, state, listening, lambda: told.append(1), load)
        else:
            with pytest.raises(RiyazError, match="there is no such model"):
                server.run(made, state, listening, lambda: told.append(1), load)
    finally:
        listening.close()
    assert told == []
