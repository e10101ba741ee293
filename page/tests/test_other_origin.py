"""A web page of another origin asks the server: what a real browser allows with and without `--allow-origin`."""

import http.server
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from live_server import KEY, running

from riyaz.serve.opening import Opener

ASK = """async ([url, key, stream]) => {
  const body = JSON.stringify({model: "tiny", prompt: "card", max_tokens: 3, temperature: 0, stream});
  const headers = {"content-type": "application/json", ...(key ? {authorization: `Bearer ${key}`} : {})};
  try {
    const answer = await fetch(`${url}/v1/completions`, {method: "POST", headers, body});
    return [answer.status, await answer.text()];
  } catch (error) { return [0, String(error)]; }
}"""


class Blank(http.server.BaseHTTPRequestHandler):
    """An empty page."""

    def do_GET(self) -> None:
        self.send_response(200)
        self.send_header("content-type", "text/html")
        self.end_headers()
        self.wfile.write(b"<!doctype html><title>elsewhere</title>")

    def log_message(self, *_: object) -> None:
        """Nothing is printed."""


@pytest.fixture(scope="module")
def elsewhere() -> Iterator[str]:
    """The address of the page that asks."""
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Blank) as made:
        threading.Thread(target=made.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{made.server_port}"
        made.shutdown()


@pytest.mark.parametrize("named", [True, False], ids=["named", "not named"])
@pytest.mark.parametrize("keys", [True, False], ids=["keys", "no keys"])
def test_a_page_elsewhere(folder: Path, browser: Any, elsewhere: str, tmp_path: Path, named: bool, keys: bool) -> None:
    opener, file = Opener("fp32"), tmp_path / "keys.txt"
    opener.serve(str(folder / "tiny"))
    file.write_text(KEY)
    options = {"allow_origin": (elsewhere,) if named else (), "api_key_file": file if keys else None}
    with running(opener, **options) as served:
        page = browser.new_page()
        page.goto(elsewhere)
        for key in KEY, "":
            for stream in False, True:
                status, text = page.evaluate(ASK, [served.url, key, stream])
                if not named:
                    assert (status, text) == (0, "TypeError: Failed to fetch")
                elif keys and not key:
                    assert status == 401 and "no valid API key" in text
                else:
                    assert status == 200 and ("data: [DONE]" in text) == stream
        page.close()
