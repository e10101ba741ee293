"""A pretraining run that is killed and resumed in real processes; `make torture` kills it at random moments."""

import signal
from pathlib import Path

import pytest
import torture
from forked_ranks import fork_ranks
from started_ranks import HELPERS, ended
from tiny_pretraining import words

pytestmark = pytest.mark.slow


# before the program: the process goes no further than a step, so that it cannot end before it is killed
HOLD = """
import signal
from riyaz.pretraining.watch import Watch
listen = Watch.listen
Watch.listen = lambda watch, event: signal.pause() if watch.run.step == {step} else listen(watch, event)
"""


def resumed(text: Path, out: Path, killed_at: int = 0) -> int:
    """The exit status of the command, which is killed as soon as its progress shows this step."""
    program = torture.PROGRAM.format(helpers=str(HELPERS))
    hold = HOLD.format(step=killed_at + 3) if killed_at else ""
    processes = fork_ranks(1, hold + program, torture.arguments(text, out, "llama"))
    if killed_at:
        assert any(f"train, {killed_at}/{torture.STEPS}" in line for line in processes[0].stderr)
        processes[0].kill()
    return ended(processes)[0].status


def test_sixty_steps_straight_are_sixty_with_two_kills(tmp_path: Path) -> None:
    text = tmp_path / "text.txt"
    text.write_text(words(1, 1800))
    torture.whole(text, tmp_path / "straight")
    for step in (21, 48):
        assert resumed(text, tmp_path / "killed", step) == -signal.SIGKILL
    assert resumed(text, tmp_path / "killed") == 0
    torture.assert_same_run(tmp_path / "straight", tmp_path / "killed")


def test_the_comparison_sees_a_step_that_is_another(tmp_path: Path) -> None:
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "model.safetensors").write_text(name)
    with pytest.raises(AssertionError, match=r"model\.safetensors differs"):
        torture.assert_same_run(tmp_path / "one", tmp_path / "two")
