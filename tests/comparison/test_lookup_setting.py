"""--lookup and RIYAZ_LOOKUP of a comparison: settled once at home, and the same for every worker, at places too."""

import os
from pathlib import Path

import pytest
import tiny_comparison
from fit_context import TASK
from refusals import assert_refused

from riyaz.comparison import worker
from riyaz.comparison.folder import ComparisonFolder
from riyaz.comparison.settings import settings_of
from riyaz.config import CompareConfig, DataConfig, Lookup
from riyaz.data.formats import DataFolder, load
from riyaz.engine.opening import LOOKUP
from riyaz.json_files import write_json
from riyaz.sources import open_source


def settled(model_folder: Path, folder: Path, lookup: Lookup | None) -> str:
    """The setting of a comparison that is begun here, after a worker at another place has read it."""
    rows = tiny_comparison.write_rows(folder / "rows.jsonl", tiny_comparison.closed_rows(9, "please"))
    bases = {"tiny": open_source(model_folder)}
    config = CompareConfig(lookup=lookup)
    settings = settings_of(DataFolder(load(rows)), TASK, bases, DataConfig(), config, ("zero_shot",), None)
    write_json(folder / "settings.json", settings)
    assert ComparisonFolder(folder).settings().settings.lookup == settings["settings"]["lookup"]
    return str(settings["settings"]["lookup"])


@pytest.mark.parametrize(
    ("given", "variable", "mode"),
    [(None, "off", "off"), ("auto", "off", "auto"), ("on", "off", "on"), (None, "", "auto"), ("off", "perhaps", "off")],
)
def test_an_option_comes_before_the_variable_of_home_and_home_before_a_place(
    given: Lookup | None, variable: str, mode: str, model_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(LOOKUP, variable)
    assert settled(model_folder, tmp_path, given) == mode
    for elsewhere in ("on", "off", "auto"):
        monkeypatch.setenv(LOOKUP, elsewhere)
        worker._folder(str(tmp_path))
        assert os.environ[LOOKUP] == mode


def test_a_variable_that_names_no_way_is_refused_at_home(
    model_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(LOOKUP, "perhaps")
    with assert_refused("RIYAZ_LOOKUP: unknown lookup 'perhaps'", "choose one of on, off, auto"):
        settled(model_folder, tmp_path, None)
