"""A comparison on the nodes of a real Ray cluster on loopback, one of which is killed; skipped where Ray is not
installed."""

import importlib.util
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import tiny_comparison
from running_command import Running
from test_places import expect_one_places_bits
from tiny_comparison import command
from waiting import HANG

from riyaz.results import Comparison

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("one_core")]

# `python cluster.py ADDRESS…`: a head without CPUs, which is this machine, and a node with one CPU at every address.
# It prints the cluster's address, then kills the node at every address that it reads. Ray takes 127.0.0.1 for this
# machine's own address, but no other loopback address.
CLUSTER = """
import sys
from ray.cluster_utils import Cluster
small = {"object_store_memory": 80 * 2**20, "include_dashboard": False}
cluster = Cluster(initialize_head=True, head_node_args={**small, "num_cpus": 0, "node_ip_address": "127.0.0.2"})
nodes = {address: cluster.add_node(num_cpus=1, node_ip_address=address, **small) for address in sys.argv[1:]}
print(cluster.address, flush=True)
for line in sys.stdin:
    cluster.remove_node(nodes[line.strip()], allow_graceful=False)
cluster.shutdown()
"""
NODES = ("127.0.0.3", "127.0.0.4")
TOKEN = "a-token-of-this-test-alone-0123456789"


class RunningCluster:
    """A cluster in a process of its own."""

    def __init__(self, folder: Path, home: Path) -> None:
        (folder / "cluster.py").write_text(CLUSTER)
        environment = os.environ | {"RIYAZ_HOME": str(home), "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
        self.process = subprocess.Popen(
            [sys.executable, str(folder / "cluster.py"), *NODES], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
            stderr=(folder / "cluster.log").open("w"), text=True, env=environment, cwd=folder,
        )  # fmt: skip
        assert self.process.stdout is not None
        self.address = self.process.stdout.readline().strip()
        assert self.address.startswith("127.0.0.2:"), (folder / "cluster.log").read_text()[-2000:]

    def kill(self, address: str) -> None:
        """Kill the node at an address, as if its machine were gone."""
        assert self.process.stdin is not None
        self.process.stdin.write(address + "\n")
        self.process.stdin.flush()

    def end(self) -> None:
        assert self.process.stdin is not None
        self.process.stdin.close()
        try:
            self.process.wait(HANG)
        except subprocess.TimeoutExpired:
            self.process.kill()


@pytest.fixture
def cluster(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[RunningCluster]:
    if importlib.util.find_spec("ray") is None:
        pytest.skip("needs ray (pip install -e '.[ray]')")
    for name, value in (("RAY_AUTH_MODE", "token"), ("RAY_AUTH_TOKEN", TOKEN), ("RAY_USAGE_STATS_ENABLED", "0"),
                        ("RAY_raylet_start_wait_time_s", f"{HANG:.0f}"), ("HOME", str(tmp_path)),
                        ("PYTHONPATH", os.pathsep.join(filter(None, sys.path)))):  # fmt: skip
        monkeypatch.setenv(name, value)
    running = RunningCluster(tmp_path, tmp_path / "home-of-nodes")
    try:
        yield running
    finally:
        running.end()


def test_nodes_make_what_one_place_makes_though_one_is_killed(
    cluster: RunningCluster, asked: tuple, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tiny_comparison.write_rows(tmp_path / "data/train.jsonl", tiny_comparison.closed_rows(45, "please"))
    tiny_comparison.write_rows(tmp_path / "data/test.jsonl", tiny_comparison.closed_rows(9, "today"))
    asking = ("compare", tmp_path / "data", *asked[:-1], "--methods", "nearest,lora", "--seeds", 2,
              "--steps", 64, "--learning-rate", "1e-3")  # fmt: skip
    out, address = tmp_path / "out", cluster.address
    running = Running((*asking, "--ray", address, "--out", out))
    running.until("lora: fit at ray ")
    lost = running.lines[-1].rpartition(" ")[2]
    running.until("lora: train")
    cluster.kill(lost)
    assert running.end() == 0, running.lines
    comparison = Comparison.read(out / "compare.json")
    assert [arm.status for arm in comparison.arms] == ["ok", "ok"], running.lines
    turns = comparison.schedule or []
    fits = [turn for turn in turns if turn.arm == "lora" and turn.work == "fit" and turn.part == "kept"]
    assert [turn.outcome for turn in fits] == ["lost", "done"], running.lines
    assert fits[0].place == f"ray {lost}" != fits[1].place, running.lines
    assert {turn.place for turn in turns if turn.work == "evaluate"} == {"here"}, "times come from one machine"
    assert any(f"ray {lost} was lost while it fitted lora (" in line for line in running.lines), running.lines
    expect_one_places_bits(out, asking, tmp_path / "whole", monkeypatch)

    monkeypatch.setenv("RAY_AUTH_TOKEN", TOKEN + "-another")
    told = command(*asking, "--ray", address, "--out", tmp_path / "refused")
    assert told.status != 0 and told.line.startswith(f"error: --ray {address}: the cluster cannot be joined: "), (
        told.err
    )
