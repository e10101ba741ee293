"""How torch's threads wait for each other."""

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from riyaz.layers.fast import threads
from riyaz.layers.fast.threads import Threads, seconds_queued


@pytest.fixture
def looked(monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[Threads, list[float], list[float]]]:
    """Threads of a team of two on two cores, the clock and the seconds that they stood in queues."""
    clock, queued = [1.0], [0.0]
    monkeypatch.setattr(threads.time, "perf_counter", lambda: clock[0])
    monkeypatch.setattr(threads, "seconds_queued", lambda: queued[0])
    monkeypatch.setattr(threads.hardware, "cores", lambda: 2)
    monkeypatch.setattr(threads.torch, "get_num_threads", lambda: 2)
    made = Threads()
    yield made, clock, queued
    made.spin()


def later(looked: tuple[Threads, list[float], list[float]], seconds: float, queued: float) -> bool:
    """Whether the threads sleep after a look so much later, of which they stood so long in queues."""
    made, clock, total = looked
    clock[0] += seconds
    total[0] += queued
    made.tune_waiting()
    return bool(made.idle)


def test_threads_sleep_beside_other_work_and_spin_again_after_some_quiet_looks(looked: tuple) -> None:
    looked[0].tune_waiting()
    assert not later(looked, 1, 0.0)
    assert not later(looked, 1, 0.09)
    assert later(looked, 1, 0.11)
    for _ in range(threads.QUIET_LOOKS - 1):
        assert later(looked, 1, 0.0)
    assert later(looked, 1, 0.05), "a look that is not quiet begins the count anew"
    for _ in range(threads.QUIET_LOOKS - 1):
        assert later(looked, 1, 0.0)
    assert not later(looked, 1, 0.0)


def test_a_second_look_soon_after_the_first_changes_nothing(looked: tuple) -> None:
    looked[0].tune_waiting()
    assert not later(looked, threads.EVERY / 2, 1.0)
    assert later(looked, threads.EVERY, 0.0), "the queue of the time between counts at the next look"


@pytest.mark.parametrize(("team", "cores", "count"), [(1, 8, 0), (2, 2, 1), (8, 8, 1), (4, 8, 2), (2, 8, 7)])
def test_sleeping_takes_more_threads_than_cores(
    team: int, cores: int, count: int, looked: tuple, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(threads.hardware, "cores", lambda: cores)
    monkeypatch.setattr(threads.torch, "get_num_threads", lambda: team)
    made: Threads = looked[0]
    made.sleep()
    assert len(made.idle) == count
    assert team == 1 or team + count * (team - 1) > cores >= team + (count - 1) * (team - 1)
    idle = [thread for thread, _ in made.idle]
    made.spin()
    assert not made.idle and not any(thread.is_alive() for thread in idle)


# Prints how often threads fell asleep in 200 operations of torch with a pause of 0.2 ms after each.
ASLEEP = """
import resource, time, riyaz, torch
from riyaz.layers.fast.threads import CHUNK, Threads
torch.set_num_threads(2)
x = torch.ones(4 * CHUNK)
threads = Threads()
threads.sleep()
before = resource.getrusage(resource.RUSAGE_SELF).ru_nvcsw
for _ in range(200):
    x.add_(1)
    until = time.perf_counter() + 2e-4
    while time.perf_counter() < until:
        pass
print(resource.getrusage(resource.RUSAGE_SELF).ru_nvcsw - before)
threads.spin()
"""


def test_torch_waits_asleep_while_the_idle_threads_exist() -> None:
    done = subprocess.run([sys.executable, "-c", ASLEEP], capture_output=True, text=True, check=True)
    assert int(done.stdout) >= 150


def test_seconds_in_queues_are_the_second_number_of_each_task(tmp_path: Path) -> None:
    for task, text in {"1": "5 1500000000 7\n", "2": "5 250000000 7\n", "3": ""}.items():
        (tmp_path / task).mkdir()
        (tmp_path / task / "schedstat").write_text(text)
    assert seconds_queued(tmp_path) == 1.75
    assert seconds_queued(tmp_path / "none") == 0
