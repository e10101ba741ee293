"""No command but `pull` uses the network unasked: an audit hook in every process, workers included, notes each try.

Commands that compare, answer and retrieve are watched in tests/engine/test_torch_free.py.
"""

from pathlib import Path

import pytest
import tiny_comparison
from fake_endpoint import Handler, fake_endpoint
from watched_command import watched, watched_in_turn


@pytest.mark.slow
def test_looking_exporting_and_listing_need_no_network(tmp_path: Path, model_folder: Path) -> None:
    tiny_comparison.write_rows(tmp_path / "data/train.jsonl", tiny_comparison.closed_rows(45, "please"))
    tiny_comparison.write_rows(tmp_path / "data/test.jsonl", tiny_comparison.closed_rows(18, "today"))
    done = watched_in_turn(
        tmp_path,
        ("data", tmp_path / "data", "--model", model_folder),
        ("export", model_folder, "--format", "gguf", "--out", tmp_path / "exported"),
        ("models",),
        ("info",),
        RIYAZ_HOME=str(tmp_path / "home"),
    )
    assert done.status == 0, done.err[-500:]
    assert not done.network and (tmp_path / "exported").exists()


@pytest.mark.slow
def test_a_teachers_address_is_the_only_one(tmp_path: Path, model_folder: Path, home: Path) -> None:
    rows = tiny_comparison.write_rows(tmp_path / "rows.jsonl", tiny_comparison.closed_rows(45, "please"))
    answered: list[str] = []

    def reply(handler: Handler) -> None:  # so that nothing is trained
        answered.append(handler.path)
        handler.answer("refund") if len(answered) < 9 else handler.document({"error": "enough"}, 418)

    proxies = dict.fromkeys(("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"), "http://127.0.0.1:9")
    with fake_endpoint(reply) as fake:
        for command in (
            ("compare", rows, "--methods", "distil", "--teacher", fake.address, "--model"),
            ("distil", fake.address, "--rows", rows, "--into"),
        ):
            before = len(answered)
            done = watched(tmp_path, *command, model_folder, "--teacher-model", "m", "--budget", "10m", "--out",
                           tmp_path / command[0], RIYAZ_HOME=str(home), OMP_NUM_THREADS="1", **proxies)  # fmt: skip
            assert done.status == 2 and "418" in done.err, (command, done.err[-500:])
            uses = done.network
            assert len(uses) >= len(answered) - before > 0 and len(answered) > 8
            port = fake.address.rpartition(":")[2].partition("/")[0]
            places = f"socket.connect (('127.0.0.1', {port}),) ", f"socket.getaddrinfo ({port}, "
            assert all(use.startswith(places) for use in uses) and any(use.startswith(places[0]) for use in uses), uses
            assert all("worker" in use for use in uses), "the process of the teacher alone"


def test_a_pull_is_written_down(tmp_path: Path) -> None:
    done = watched(tmp_path, "pull", "smollm2-135m", RIYAZ_HOME=str(tmp_path / "home"))
    assert done.status == 2 and any("socket." in use for use in done.network), "the hook sees nothing"
