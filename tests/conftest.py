"""What several test files share: a tiny model, and one whole comparison with real processes."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import comparing
import pytest
import tiny


@dataclass(frozen=True)
class Finished:
    """A comparison of all five methods on a closed set that was run to its end, and how it was asked for."""

    arguments: tuple[object, ...]  # of `riyaz compare`, without --out
    out: Path
    told: comparing.Told
    document: dict[str, Any]

    def arm(self, method: str) -> dict[str, Any]:
        """The row of one arm."""
        return next(arm for arm in self.document["arms"] if arm["method"] == method)

    def artifact(self, method: str) -> Path:
        """The artifact of one arm."""
        return self.out / "arms" / method / "kept" / "artifact"


@pytest.fixture(scope="session")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The store of the tests."""
    return tmp_path_factory.mktemp("home")


@pytest.fixture(scope="session")
def model_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny model."""
    return tiny.write_hf_folder(tmp_path_factory.mktemp("models") / "tiny", seed=1)


@pytest.fixture(scope="session")
def asked(tmp_path_factory: pytest.TempPathFactory, model_folder: Path) -> tuple[object, ...]:
    """The end of a quick comparison's command line: time enough, and little text to measure forgetting on."""
    general = tmp_path_factory.mktemp("general") / "general.txt"
    general.write_text(tiny.CORPUS)
    return ("--model", model_folder, "--budget", "3h", "--general", general, "--json")


@pytest.fixture(scope="session")
def finished(tmp_path_factory: pytest.TempPathFactory, home: Path, model_folder: Path) -> Iterator[Finished]:
    """The one comparison whose arms ran in processes of their own; nobody writes into it."""
    folder = tmp_path_factory.mktemp("finished")
    comparing.write_rows(folder / "data/train.jsonl", comparing.closed_rows(45, "please"))
    comparing.write_rows(folder / "data/test.jsonl", comparing.closed_rows(18, "today"))
    arguments = ("compare", folder / "data", "--model", model_folder, "--budget", "3h", "--seed", 3)
    with comparing.small_machine(home):
        told = comparing.command(*arguments, "--out", folder / "out", "--json")
    assert told.status == 0, told.err
    yield Finished(arguments, folder / "out", told, told.document)
