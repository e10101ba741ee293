"""An export that is opened again with another template, other ids or other end tokens than its source is not kept."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import tiny_llama
from refusals import assert_refused
from test_export import left

from riyaz import export, models

pytestmark = pytest.mark.usefixtures("own_store")


def other_template(folder: Path) -> None:
    for file in folder.glob("chat_template.jinja"):
        file.unlink()
    settings = json.loads((folder / "tokenizer_config.json").read_text())
    settings["chat_template"] = "{% for m in messages %}{{ m['role'] }}: {{ m['content'] }}\n{% endfor %}"
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))


def other_ids(folder: Path) -> None:
    definition = json.loads((folder / "tokenizer.json").read_text())
    definition["model"]["merges"] = []
    (folder / "tokenizer.json").write_text(json.dumps(definition))


def other_end(folder: Path) -> None:
    (folder / "generation_config.json").write_text('{"eos_token_id": [2, 3]}')


LOST: dict[str, tuple[Callable[[Path], None], str]] = {
    "template": (other_template, "the chat template"),
    "ids": (other_ids, "…"),
    "end": (other_end, "the end tokens"),
}


@pytest.mark.parametrize("what", LOST)
def test_a_template_that_is_lost_on_the_way_is_seen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, what: str) -> None:
    base = tiny_llama.write_hf_folder(tmp_path / "base")
    spoil, said = LOST[what]
    whole = models.save_hf

    def spoilt(model: Any, tokenizer: Any, folder: Path, *rest: Any) -> None:
        whole(model, tokenizer, folder, *rest)
        spoil(folder)

    monkeypatch.setattr(models, "save_hf", spoilt)
    with assert_refused("opened again, the tokenizer has other ids for", said, "nothing was kept"):
        export.export(str(base), "hf", tmp_path / "out")
    assert not (tmp_path / "out").exists() and left(tmp_path) == ["base"]
