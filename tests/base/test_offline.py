"""No command but `pull` uses the network unasked: an audit hook in every process, workers included, notes each try."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import tiny_comparison
from fake_endpoint import Handler, fake_endpoint

HOOK = """
import os, sys
def seen(event, arguments):
    if event in ("socket.connect", "socket.getaddrinfo", "socket.gethostbyname", "socket.bind", "socket.sendto"):
        family = getattr(arguments[0], "family", None)
        if family is None or family.name != "AF_UNIX":
            with open(os.environ["SEEN"], "a") as file:
                file.write(f"{event} {arguments[1:]} {sys.argv}\\n")
sys.addaudithook(seen)
"""
RIYAZ = "import sys; from riyaz.cli.main import main; sys.exit(main())"


@pytest.fixture
def watched(tmp_path: Path, home: Path) -> dict[str, str]:
    """An environment whose Python processes write every use of the network into SEEN."""
    (tmp_path / "hook").mkdir()
    (tmp_path / "hook/sitecustomize.py").write_text(HOOK)
    paths = [str(tmp_path / "hook"), *filter(None, sys.path)]
    offline = {"PIP_INDEX_URL": "http://127.0.0.1:9", "PIP_RETRIES": "0", "PIP_CONFIG_FILE": os.devnull}
    return os.environ | offline | {
        "PYTHONPATH": os.pathsep.join(paths), "SEEN": str(tmp_path / "seen"), "RIYAZ_HOME": str(home),
        "OMP_NUM_THREADS": "1",
    }  # fmt: skip


def riyaz(environment: dict[str, str], *arguments: object) -> subprocess.CompletedProcess[str]:
    """One command in a process of its own."""
    command = [sys.executable, "-c", RIYAZ, *map(str, arguments)]
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300)


def seen(environment: dict[str, str]) -> str:
    """What was written down."""
    path = Path(environment["SEEN"])
    return path.read_text() if path.exists() else ""


@pytest.mark.slow
def test_comparing_and_using_an_artifact_needs_no_network(
    tmp_path: Path, model_folder: Path, watched: dict[str, str]
) -> None:
    rows = tiny_comparison.write_rows(tmp_path / "data/train.jsonl", tiny_comparison.closed_rows(45, "please"))
    tiny_comparison.write_rows(tmp_path / "data/test.jsonl", tiny_comparison.closed_rows(18, "today"))
    pages, out, general = tiny_comparison.write_pages(tmp_path / "pages"), tmp_path / "out", tmp_path / "general.txt"
    general.write_text("the card payment is pending and the order did not arrive today\n" * 300)
    ask = ("--methods", "nearest,zero_shot", "--model", model_folder, "--budget", "10m", "--general", general)
    artifact = out / "arms/zero_shot/kept/artifact"
    for arguments in (
        ("data", tmp_path / "data", "--model", model_folder),
        ("compare", tmp_path / "data", *ask, "--out", out),
        ("run", artifact, rows, "--out", tmp_path / "answers.jsonl"),
        ("predict", "the card", "--model", model_folder),
        ("export", model_folder, "--format", "gguf", "--out", tmp_path / "exported"),
        ("rag", "add", tmp_path / "collection.sqlite", pages, "--lexical"),
        ("models",),
        ("info",),
    ):
        done = riyaz(watched, *arguments)
        assert done.returncode == 0, (arguments, done.stderr[-500:])
        assert not seen(watched), arguments


@pytest.mark.slow
def test_a_teachers_address_is_the_only_one(tmp_path: Path, model_folder: Path, watched: dict[str, str]) -> None:
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
            done = riyaz(watched | proxies, *command, model_folder, "--teacher-model", "m", "--budget", "10m", "--out",
                         tmp_path / command[0])  # fmt: skip
            assert done.returncode == 2 and "418" in done.stderr, (command, done.stderr[-500:])
            uses = seen(watched).splitlines()
            assert len(uses) >= len(answered) > 8
            port = fake.address.rpartition(":")[2].partition("/")[0]
            places = f"socket.connect (('127.0.0.1', {port}),) ", f"socket.getaddrinfo ({port}, "
            assert all(use.startswith(places) for use in uses) and any(use.startswith(places[0]) for use in uses), uses
            assert all("worker" in use for use in uses), "the process of the teacher alone"


def test_a_pull_is_written_down(watched: dict[str, str], tmp_path: Path) -> None:
    done = riyaz(watched | {"RIYAZ_HOME": str(tmp_path / "home")}, "pull", "smollm2-135m")
    assert done.returncode == 2 and "socket." in seen(watched), "the hook sees nothing"
