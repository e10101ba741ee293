"""A pretraining run that is killed and resumed in real processes; `make torture` kills it at random moments."""

from pathlib import Path

import pytest
import torture
from tiny_pretraining import words

pytestmark = pytest.mark.slow


def test_sixty_steps_straight_are_twenty_a_kill_and_forty(tmp_path: Path) -> None:
    text = tmp_path / "text.txt"
    text.write_text(words(1, 1800))
    seconds = torture.whole(text, tmp_path / "straight")
    torture.killed_at_step(text, tmp_path / "killed", 21)
    torture.killed_after(text, tmp_path / "killed", 0.7 * seconds)
    torture.whole(text, tmp_path / "killed")
    torture.assert_same_run(tmp_path / "straight", tmp_path / "killed")


def test_the_comparison_sees_a_step_that_is_another(tmp_path: Path) -> None:
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "model.safetensors").write_text(name)
    with pytest.raises(AssertionError, match=r"model\.safetensors differs"):
        torture.assert_same_run(tmp_path / "one", tmp_path / "two")
