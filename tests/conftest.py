"""What several test files share: a tiny model, and one whole comparison, run with and without processes."""

import os
import signal
import sys
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

os.environ["OPENBLAS_NUM_THREADS"] = "1"  # before numpy is imported
sys.path.extend(str(folder) for folder in Path(__file__).parent.iterdir() if folder.is_dir())

import grids
import hypothesis
import pytest
import tiny_comparison
import tiny_llama
from kept_run import pytest_configure  # noqa: F401 - a hook: keeps how every test ended, where KEEP_RUN names a file
from waiting import HANG
from watched_command import hooked, noted

from riyaz import child
from riyaz.artifact import COLLECTION
from riyaz.metrics import code, sql
from riyaz.retrieval.collection import add
from riyaz.retrieval.documents import read_documents
from riyaz.text import template

hypothesis.settings.register_profile("sample", max_examples=grids.examples(100), deadline=None)
hypothesis.settings.load_profile("sample")
signal.signal(signal.SIGINT, signal.default_int_handler)  # which a shell has its background jobs ignore

# Where processes share the tests (`pytest -n 2`), each file is run by one of them, and so is each group of files here:
# those that start processes and watch them, those that read one comparison, which is then made once, those that build
# the C++ engine. Groups take longest and are begun first.
GROUPS = (
    ("docs", "interrupted", "compare_processes", "torch_processes", "html_browser", "benchmark", "replicas"),
    (
        *("extra_runs", "combinations", "damaged_json", "rag", "rag_limits", "retrieved", "page_data"),
        *("serve_adapters", "abstaining", "agreement", "bases", "by_hand", "card", "cli_chat", "compare"),
        *("compare_failures", "evaluate", "limits", "limits_compare", "limits_report", "lm_eval", "page_runs", "paths"),
        *("quality", "quantize", "ray_nodes", "serve_command", "spellings", "tie_break", "torch_free", "wheels"),
        *("wrong_input",),
    ),
    ("pages_run",),
    ("export_families", "export_formats", "export"),
    ("native_build", "native_cross", "supply_chain"),
)


def place(nodeid: str) -> int:
    """The place of a test's group, the number of groups if it has none."""
    name = Path(nodeid.partition("::")[0]).stem.removeprefix("test_")
    return next((place for place, group in enumerate(GROUPS) if name in group), len(GROUPS))


# What runs or reads a whole comparison, or several processes that train, is slow; one file of them is left to
# `make test-fast`.
WHOLE = {"quick", "finished", "retrieved", "inside", "compared", "judged", "labelled", "several"}
FAST = {"test_compare_failures"}


@pytest.hookimpl(tryfirst=True)  # before those that are not asked for are left out
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Groups first; tests of whole comparisons are slow; of large grids a sample is run."""
    if left_out := grids.left_out(items):
        config.hook.pytest_deselected(items=[item for item in items if item in left_out])
        items[:] = [item for item in items if item not in left_out]
    items.sort(key=lambda item: place(item.nodeid))
    for item in items:
        if WHOLE.intersection(getattr(item, "fixturenames", ())) and item.path.stem not in FAST:
            item.add_marker(pytest.mark.slow)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """Hands out groups and files whole, in their order. (Groups by mark do nothing in xdist 3.8 with pytest 9.2.)"""
    from xdist.scheduler import LoadScopeScheduling

    def scope(nodeid: str) -> str:
        found = place(nodeid)
        return str(found) if found < len(GROUPS) else nodeid.partition("::")[0]

    config.option.loadscopereorder = False
    scheduler = LoadScopeScheduling(config, log)
    scheduler._split_scope = scope
    return scheduler


@pytest.fixture(scope="session", autouse=True)
def one_torch_thread() -> None:
    """Sums come out in one order, and test processes do not fight for cores: torch keeps to one thread, also where
    opening a model asks for all of them."""
    if torch := sys.modules.get("torch"):  # a run of tests without torch does not pay for its import
        torch.set_num_threads(1)
        torch.set_num_threads = lambda count: None


@pytest.fixture(scope="session", autouse=True)
def nothing_is_late() -> None:
    """What strangers and models made is ended by its limits of computing. A machine that is busy, or stands still for a
    minute, would reach those of the time that passes too."""
    child.SECONDS_TO_START = template.WALL_SECONDS_PER_SECOND = code.WALL_SECONDS = sql.WALL_SECONDS = HANG


@pytest.fixture(scope="module")
def one_core(home: Path) -> Iterator[pytest.MonkeyPatch]:
    """One core, one thread, short recipes and a store of the tests' own."""
    with tiny_comparison.small_machine(home) as patch:
        yield patch


@pytest.fixture(scope="module")
def in_float32(one_core: pytest.MonkeyPatch) -> None:
    """The same, in float32 whatever this machine is quick at."""
    tiny_comparison.serve_in_float32(one_core)


@pytest.fixture
def inside(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, ...]]:
    """Workers run in this process; the list tells which."""
    return tiny_comparison.workers_inside(monkeypatch)


@dataclass(frozen=True)
class Finished:
    """A comparison of all five methods on a closed set that was run to its end, and how it was asked for."""

    arguments: tuple[object, ...]  # of `riyaz compare`, without --out
    out: Path
    told: tiny_comparison.Told
    document: dict[str, Any]
    torch: tuple[str, ...] = ()  # the arguments of each process that had torch at its end
    network: tuple[str, ...] = ()  # a line for each use of the network

    def arm(self, method: str) -> dict[str, Any]:
        return next(arm for arm in self.document["arms"] if arm["method"] == method)

    def artifact(self, method: str) -> Path:
        return self.out / "arms" / method / "kept" / "artifact"


@pytest.fixture(scope="session")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The store of the tests."""
    return tmp_path_factory.mktemp("home")


@pytest.fixture
def own_store(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """An empty store for one test."""
    monkeypatch.setenv("RIYAZ_HOME", str(tmp_path / "home"))
    return tmp_path / "home"


@pytest.fixture
def folder_index(own_store: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """An empty store, a folder in place of pip's index, and a folder to work in."""
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path / "index"))
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    (tmp_path / "index").mkdir()
    monkeypatch.chdir(tmp_path)
    return own_store


@pytest.fixture(scope="session")
def model_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny model."""
    return tiny_llama.write_hf_folder(tmp_path_factory.mktemp("models") / "tiny", seed=1)


@pytest.fixture(scope="module")
def text(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Text to train a model on."""
    from tiny_pretraining import texts  # it imports torch

    return texts(tmp_path_factory.mktemp("text"))


@pytest.fixture(scope="session")
def collection(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The pages of tests/helpers/tiny_comparison.py as a collection; nobody writes into it."""
    folder = tmp_path_factory.mktemp("collection")
    add(folder / COLLECTION, read_documents(tiny_comparison.write_pages(folder / "pages"))[0], None)
    return folder / COLLECTION


@pytest.fixture(scope="session")
def asked(tmp_path_factory: pytest.TempPathFactory, model_folder: Path) -> tuple[object, ...]:
    """The end of a quick comparison's command line: time enough, and little text to measure forgetting on."""
    general = tmp_path_factory.mktemp("general") / "general.txt"
    general.write_text(tiny_llama.CORPUS)
    return ("--model", model_folder, "--budget", "3h", "--general", general, "--json")


def compared(folder: Path, home: Path, model_folder: Path, inside: bool) -> Finished:
    """All five methods on a closed set with a test file."""
    tiny_comparison.write_rows(folder / "data/train.jsonl", tiny_comparison.closed_rows(45, "please"))
    tiny_comparison.write_rows(folder / "data/test.jsonl", tiny_comparison.closed_rows(18, "today"))
    arguments = ("compare", folder / "data", "--model", model_folder, "--budget", "3h", "--seed", 3)
    with tiny_comparison.small_machine(home) as patch:
        if inside:
            tiny_comparison.workers_inside(patch, whole=True)
        told = tiny_comparison.command(*arguments, "--out", folder / "out", "--json")
    assert told.status == 0, told.err
    return Finished(arguments, folder / "out", told, told.document)


@pytest.fixture(scope="session")
def quick(tmp_path_factory: pytest.TempPathFactory, home: Path, model_folder: Path) -> Finished:
    """The comparison that most tests read, with workers inside this process; nobody writes into it."""
    return compared(tmp_path_factory.mktemp("quick"), home, model_folder, inside=True)


@pytest.fixture(scope="session")
def finished(tmp_path_factory: pytest.TempPathFactory, home: Path, model_folder: Path) -> Finished:
    """The same comparison with its arms in processes of their own, which are watched."""
    folder, notes = tmp_path_factory.mktemp("finished"), tmp_path_factory.mktemp("notes")
    with pytest.MonkeyPatch.context() as patch:
        for name, value in hooked(notes).items():
            patch.setenv(name, value)
        done = compared(folder, home, model_folder, inside=False)
    return replace(done, **{name: tuple(lines) for name, lines in noted(notes).items()})


RETRIEVED = ("nearest", "zero_shot", "rag", "lora", "rag_lora")


@pytest.fixture(scope="session")
def retrieved(tmp_path_factory: pytest.TempPathFactory, home: Path, model_folder: Path) -> Finished:
    """A comparison with three documents, a curve over rows and more seeds, workers inside; nobody writes into it."""
    folder = tmp_path_factory.mktemp("retrieved")
    tiny_comparison.write_rows(folder / "data/train.jsonl", tiny_comparison.page_rows("please", "now"))
    tiny_comparison.write_rows(folder / "data/test.jsonl", tiny_comparison.page_rows("today"))
    tiny_comparison.write_pages(folder / "pages")
    (folder / "general.txt").write_text(tiny_llama.CORPUS)
    arguments = ("compare", folder / "data", "--documents", folder / "pages", "--methods", ",".join(RETRIEVED),
                 "--model", model_folder, "--budget", "3h", "--general", folder / "general.txt", "--margin", 1,
                 "--data-curve", "--seed", 4)  # fmt: skip
    with tiny_comparison.small_machine(home) as patch:
        tiny_comparison.workers_inside(patch, whole=True)
        told = tiny_comparison.command(*arguments, "--out", folder / "out", "--json")
    assert told.status == 0, told.err
    return Finished(arguments, folder / "out", told, told.document)
