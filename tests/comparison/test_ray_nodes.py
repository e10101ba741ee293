"""Nodes of a Ray cluster as places, without Ray: which addresses are refused, what travels and what does not, what a
node refuses, and that what it makes has the bits of this machine."""

import errno
import json
import os
import shutil
import socket
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import tiny_comparison
import tiny_llama
from conftest import Finished
from test_dispatch import pieces
from test_places import expect_one_places_bits
from tiny_comparison import command
from waiting import HANG

from riyaz.comparison import at_node, ray_nodes, ray_place
from riyaz.comparison.at_node import NodeOrder, work
from riyaz.comparison.at_place import Order, own_version
from riyaz.comparison.dispatch import Rules, makespan
from riyaz.comparison.folder import ComparisonFolder, ModelFile
from riyaz.comparison.parcel import packed, unpack
from riyaz.comparison.parcel_contents import fit_files, measure_files, reason_at_home
from riyaz.comparison.places import Here
from riyaz.comparison.ray_nodes import RayNode, expect_answer, host_of, is_loopback, open_nodes
from riyaz.comparison.ray_place import Node, NodeLost
from riyaz.errors import RiyazError
from riyaz.events import Ended, Event, Listen, Note, from_json
from riyaz.events import to_json as event_line
from riyaz.files import DISK_FULL
from riyaz.json_files import to_json
from riyaz.results import Comparison
from riyaz.sources import open_source

# A node as a process that leads to it sees it: `python node.py HOME` obeys in its own process, with a store in HOME.
NODE = """
import os, sys
from riyaz.comparison import at_node, ray_place
def started(address, node, threads, order, parcel):
    os.environ["RIYAZ_HOME"] = sys.argv[1]
    return at_node.work(order, parcel)
ray_place.started = started
sys.exit(ray_place.main(["127.0.0.1:1", "node", "open"]))
"""
ADDRESS = "127.0.0.1:6379"
Notes = list[str]


def listener(notes: Notes) -> Listen:
    def listen(event: Event) -> None:
        notes.extend([event.text] if isinstance(event, Note) else [])

    return listen


@pytest.fixture
def folder(tmp_path: Path) -> ComparisonFolder:
    return ComparisonFolder(tmp_path / "out")


# addresses


@pytest.mark.parametrize(
    "address", ["auto", "ray://10.0.0.1:10001", "10.0.0.1", ":6379", "10.0.0.1:x", "a:0", "a:65536"]
)
def test_an_address_is_a_host_and_a_port(address: str) -> None:
    with pytest.raises(RiyazError, match="is not the address of a cluster"):
        host_of(address)


def test_only_this_machine_reaches_its_loopback() -> None:
    hosts = [host_of(f"{host}:6379") for host in ("127.0.0.1", "127.8.9.1", "[::1]", "localhost")]
    assert all(map(is_loopback, hosts))
    assert not any(map(is_loopback, ("10.0.0.1", "0.0.0.0", "localhost.example", "::")))


def test_an_address_that_others_reach_needs_a_token(monkeypatch: pytest.MonkeyPatch, folder: ComparisonFolder) -> None:
    for mode in (None, "disabled", ""):
        monkeypatch.delenv("RAY_AUTH_MODE", raising=False)
        if mode is not None:
            monkeypatch.setenv("RAY_AUTH_MODE", mode)
        with pytest.raises(RiyazError) as refused:
            open_nodes("10.0.0.1:6379", folder, {}, None, (), {}, print)
        line = str(refused.value)
        assert line.startswith("--ray 10.0.0.1:6379: other machines reach this cluster, and RAY_AUTH_MODE is ")
        assert "RAY_AUTH_MODE=token" in line


def test_a_cluster_that_listens_elsewhere_needs_a_token_whatever_its_address(
    monkeypatch: pytest.MonkeyPatch, folder: ComparisonFolder
) -> None:
    monkeypatch.delenv("RAY_AUTH_MODE", raising=False)
    monkeypatch.setattr(ray_nodes, "expect_answer", lambda address: None)
    for own, other in (("10.0.0.1", "10.0.0.1"), ("127.0.0.2", "10.0.0.2")):
        nodes = [Node("0a", own, 0, True), Node("0b", other, 8, False)]
        monkeypatch.setattr(ray_nodes, "nodes_of", lambda address, nodes=nodes: nodes)
        with pytest.raises(RiyazError, match="other machines reach this cluster, and RAY_AUTH_MODE is not set"):
            open_nodes(ADDRESS, folder, {}, None, (), {}, print)
    monkeypatch.setenv("RAY_AUTH_MODE", "token")
    (place,) = open_nodes(ADDRESS, folder, {}, None, (), {}, print)
    assert isinstance(place, RayNode) and place._words[-2:] == ["0b", "guarded"], "the node must ask for it too"


def test_nothing_that_answers_is_one_line() -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        address = f"127.0.0.1:{free.getsockname()[1]}"
    with pytest.raises(RiyazError) as refused:
        expect_answer(address)
    assert str(refused.value).startswith(f"--ray {address}: nothing answers: Connection refused; start a cluster")


def test_places_and_a_cluster_are_not_both_named(tmp_path: Path) -> None:
    told = command("compare", tmp_path, "--places", "here", "--ray", ADDRESS)
    assert told.status != 0 and told.line == "error: --places and --ray: both say where to train; give one of them"


def test_a_cluster_needs_ray(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(RiyazError, match=r"--ray: a cluster needs the package ray; .*'\.\[ray\]'"):
        ray_place.connected(ADDRESS)


def test_a_node_or_a_cluster_that_is_gone_is_lost(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(address: str) -> None:
        raise RiyazError("the cluster cannot be joined", "--ray")

    monkeypatch.setattr(ray_place, "connected", lambda address: None)
    monkeypatch.setattr(ray_place, "cluster_nodes", lambda ray: [Node("0b", "127.0.0.3", 1, False)])
    with pytest.raises(NodeLost, match="the node is no longer in the cluster"):
        ray_place.started(ADDRESS, "0a", None, b"", b"")
    monkeypatch.setattr(ray_place, "connected", refuse)
    with pytest.raises(NodeLost, match="--ray: the cluster cannot be joined"):
        ray_place.started(ADDRESS, "0b", None, b"", b"")


@pytest.mark.parametrize(("beat", "heard"), [(0.0, 3), (HANG, 0)])
def test_home_hears_while_an_artifact_arrives(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], beat: float, heard: int
) -> None:
    """A large one takes minutes on a slow network, and a place that says nothing for two is lost."""
    monkeypatch.setattr(ray_place, "BEAT", beat)
    monkeypatch.setattr(ray_place, "node_order", lambda order, guarded: {})
    monkeypatch.setattr(ray_place, "_contents", lambda order: {})

    def start(order: bytes, parcel: bytes) -> Iterator[bytes]:
        yield event_line(Ended("done")).encode()
        yield from packed({"about.json": b"{}", "log.txt": b"log"})

    home = Order(version=own_version(), working="", folder="", mark="", nonce="", models={},
                 about=str(tmp_path / "about.json"))  # fmt: skip
    assert ray_place.carry_out(home, False, start) == "" and (tmp_path / "log.txt").exists()
    assert capsys.readouterr().out == "\n" * heard


# nodes as places


def opened(nodes: list[Node], folder: ComparisonFolder, patch: pytest.MonkeyPatch, notes: Notes) -> list:
    patch.setattr(ray_nodes, "expect_answer", lambda address: None)
    patch.setattr(ray_nodes, "nodes_of", lambda address: nodes)
    arms = ("nearest", "rag", "lora", "ensemble", "rag_lora")
    return open_nodes(ADDRESS, folder, {}, None, arms, {"data": {}}, listener(notes))


def test_every_node_with_a_cpu_is_a_place_and_documents_stay_here(
    folder: ComparisonFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    own, notes = "127.0.0.1", Notes()
    nodes = [Node("0a", own, 2, True), Node("0b", own, 2, False), Node("0c", own, 1, False), Node("0d", own, 0, False)]
    here, first, second = opened(nodes, folder, monkeypatch, notes)
    assert [place.name for place in (here, first, second)] == ["here", "ray 127.0.0.1", "ray 127.0.0.1 (2)"]
    assert isinstance(here, Here) and first.key != second.key
    assert notes == ["rag and rag_lora are fitted on this machine, as documents stay here",
                     "ensemble is fitted on this machine, as the artifacts that are joined are here"]  # fmt: skip
    assert first.at_home == {"rag", "rag_lora", "ensemble"}


def test_a_cluster_of_this_machine_alone_is_refused(folder: ComparisonFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    for nodes in ([Node("0a", "127.0.0.1", 2, True)], [Node("0a", "127.0.0.1", 2, True), Node("0b", "::1", 0, False)]):
        with pytest.raises(
            RiyazError, match=r"--ray 127\.0\.0\.1:6379: the cluster has no node but this machine; join"
        ):
            opened(nodes, folder, monkeypatch, Notes())


def test_what_may_not_travel_is_fitted_here_alone() -> None:
    fit, evaluation, *_ = pieces("rag")
    for fitting in (["ray a"], ["here", "ray a"]):
        rules = Rules(fitting, at_home={"rag"})
        assert rules.take("here", fit) and not rules.take("ray a", fit)
        assert makespan([fit, evaluation], rules) == fit.seconds + evaluation.seconds
    assert Rules(["ray a"]).take("ray a", fit) and not Rules(["ray a"]).take("here", fit)


def test_why_an_arm_stays_here() -> None:
    plain = {"data": {"train": "0" * 64}}
    assert [bool(reason_at_home(arm, plain)) for arm in ("lora@tiny", "nearest", "rag@tiny", "ensemble")] == [
        False, False, True, True,
    ]  # fmt: skip
    assert "databases" in reason_at_home("lora", {"data": {"databases": "0" * 64}})
    assert "artifact" in reason_at_home("lora", {**plain, "artifact": {"target": "x"}})


# what travels


def written(path: Path, content: str = "x") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content)
    return path


def test_what_travels_is_what_the_arm_reads(quick: Finished, tmp_path: Path) -> None:
    folder, secret = ComparisonFolder(tmp_path / "copy"), "stays-here"
    shutil.copytree(quick.out, folder.path)
    document = json.loads((folder.path / "settings.json").read_text())
    document |= {"documents": {"path": secret, "documents": 1, "sha256": secret}, "teacher": {"address": secret}}
    document["settings"] |= {"general": secret, "unlabelled": secret, "replay_from": "self"}
    (folder.path / "settings.json").write_text(json.dumps(document))
    for name in ("collection.sqlite", "split/fold-1/train.jsonl", "teacher/lesson.jsonl"):
        written(folder.path / name, secret)
    made_in = written(folder.path / "places/unfinished/0a/part.json").parent
    files = fit_files(folder, "lora", "kept", made_in)
    assert set(files) == {
        "settings.json", "plan.json", "split/kept/train.jsonl", "split/kept/valid.jsonl", "arms/lora/kept/part.json",
    }  # fmt: skip
    assert set(fit_files(folder, "lora", "seed-1", made_in)) >= {"split/kept/train.jsonl", "arms/lora/seed-1/part.json"}
    assert "split/fold-1/train.jsonl" in fit_files(folder, "lora", "fold-1", made_in)
    written(made_in / "bases/tiny/measured.json")
    measured = measure_files(folder, made_in)
    assert set(measured) == {"settings.json", "split/kept/train.jsonl", "split/kept/valid.jsonl",
                             "teacher/lesson.jsonl", "made/bases/tiny/measured.json"}  # fmt: skip
    for sent in (files, {name: measured[name] for name in measured if "teacher" not in name}):
        assert secret.encode() not in b"".join(packed(sent))
        assert not any("test" in name for name in sent), "no test row leaves this machine"


def test_a_text_that_is_rehearsed_travels(quick: Finished, tmp_path: Path) -> None:
    folder, text = ComparisonFolder(tmp_path / "copy"), written(tmp_path / "own.txt", "a text to keep")
    shutil.copytree(quick.out, folder.path, ignore=shutil.ignore_patterns("arms"))
    document = json.loads((folder.path / "settings.json").read_text())
    document["settings"] |= {"replay": 0.1, "replay_from": str(text)}
    (folder.path / "settings.json").write_text(json.dumps(document))
    files = fit_files(folder, "lora", "kept", tmp_path / "none")
    unpack(packed(files), tmp_path / "there")
    assert (tmp_path / "there" / at_node.REPLAY).read_text() == "a text to keep"
    assert str(text) not in (tmp_path / "there/settings.json").read_text()


# at the node


@pytest.fixture
def order(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> NodeOrder:
    monkeypatch.setenv("RIYAZ_HOME", str(tmp_path / "home"))
    return NodeOrder(version=own_version(), models=(), embedder=None, guarded=False, settings={})


def answer(order: NodeOrder, **changes: object) -> tuple[Ended, list[bytes]]:
    """How a node's work ended, and what came after."""
    sent = work(to_json({**order.__dict__, **changes}).encode(), b"")
    for line in sent:
        event = from_json(line.decode())
        if isinstance(event, Ended):
            return event, list(sent)
    raise AssertionError("it ended without a word")


def refusal(order: NodeOrder, **changes: object) -> str:
    ended, rest = answer(order, **changes)
    assert ended.status == "failed" and not rest
    return ended.reason


def test_a_node_says_what_it_is(order: NodeOrder, tmp_path: Path) -> None:
    ended, parcel = answer(order)
    assert ended.status == "done" and unpack(parcel, tmp_path / "place") == ["about.json"]
    about = json.loads((tmp_path / "place/about.json").read_text())
    assert about["versions"]["riyaz"] == own_version() and about["trainer"]


def test_what_a_node_refuses_is_one_line(order: NodeOrder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert refusal(order, version="9.9") == f"riyaz is {own_version()} there and 9.9 here; install the same version"
    monkeypatch.setenv("RAY_AUTH_MODE", "disabled")
    assert refusal(order, guarded=True).startswith("Ray asks for no token there (RAY_AUTH_MODE is disabled); start")
    monkeypatch.setenv("RAY_AUTH_MODE", "token")
    assert answer(order, guarded=True)[0].status == "done"
    line = refusal(order, embedder={"name": "minilm", "sha256": "f" * 64, "method": "encoder"})
    assert line == "minilm, which encoder uses, is here and not there; run `riyaz pull minilm` there"
    model = {"name": "tiny", "path": str(tmp_path / "none"), "sha256": "e" * 64}
    line = refusal(order, models=(model,))
    assert line.startswith(f"no model there has the SHA-256 {'e' * 12}… of tiny; run `riyaz pull` there, or put")


def test_a_full_disk_of_a_node_is_said_as_every_place_says_it(
    order: NodeOrder, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(order: NodeOrder, parcel: bytes) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "/store/x")

    monkeypatch.setattr(at_node, "_obey", full)
    assert refusal(order) == f"/store/x: {DISK_FULL}", "by which its arm is given to another place"


def test_a_model_is_known_by_its_hash_alone(order: NodeOrder, tmp_path: Path) -> None:
    one, two = (tiny_llama.write_hf_folder(tmp_path / name, seed=seed) for seed, name in ((1, "one"), (2, "two")))
    wanted = ModelFile("one", str(tmp_path / "home-of-another-machine"), open_source(str(one)).sha256())
    with pytest.raises(RiyazError):
        at_node.stored_model(wanted)
    with pytest.raises(RiyazError, match="no model there has the SHA-256"):
        at_node.stored_model(ModelFile("one", str(two), wanted.sha256))  # another one at home's path
    stored = tmp_path / "home/models/mine"
    shutil.copytree(one, stored / "model")
    entry = {"file": "model", "format": "hf", "origin": "x", "licence": "x", "sha256": wanted.sha256, "nbytes": 1}
    (stored / "entry.json").write_text(json.dumps(entry))
    assert at_node.stored_model(wanted) == str(stored / "model")
    assert at_node.stored_model(ModelFile("one", str(one), wanted.sha256)) == str(one)


@pytest.mark.parametrize(
    ("arguments", "reason", "names"),
    [
        (("fit", "lora", "kept"), "", ["artifact/riyaz.json", "log.txt", "search.json", "fit.json"]),
        (("search", "lora", "kept", "0.001"), "", ["artifact/riyaz.json", "fit.json", "log.txt", "opening-0.001.json"]),
        (("fit", "lora", "kept"), "out of memory; see {log}", ["log.txt"]),
    ],
)
def test_what_says_that_the_rest_is_there_comes_last(
    order: NodeOrder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: tuple, reason: str, names: list[str]
) -> None:
    ran: list[list[str]] = []

    def run_worker(words: list[str], log: Path, listen: Listen, threads: int | None, limit: float | None) -> str:
        ran.append(words)
        for name in ("fit.json", "artifact/riyaz.json", "log.txt", names[-1], *names):
            written(log.parent / name)
        listen(Note("working"))
        assert json.loads((Path(words[1]) / "settings.json").read_text())["model"]["stored"] == "there"
        return reason.format(log=log)

    monkeypatch.setattr(at_node.processes, "run_worker", run_worker)
    monkeypatch.setattr(at_node, "stored_model", lambda model: "there")
    model = {"name": "tiny", "path": "/home/me/tiny", "sha256": "e" * 64}
    settings = json.dumps({"model": model, "settings": {}}).encode()
    sent = order.__dict__ | {"arguments": arguments, "models": (model,), "log": "/home/me/out/log.txt"}
    answered = work(to_json(sent).encode(), b"".join(packed({"settings.json": settings})))
    lines = [next(answered), next(answered)]
    assert [type(from_json(line.decode())) for line in lines] == [Note, Ended]
    ended = from_json(lines[1].decode())
    assert isinstance(ended, Ended) and ended.reason == reason.format(log="/home/me/out/log.txt")
    assert unpack(answered, tmp_path / "home") == names
    assert ran[0][0] == arguments[0] and ran[0][2:] == list(arguments[1:])


def test_settings_of_home_replace_those_of_the_node(order: NodeOrder, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RIYAZ_FROZEN", "int8")
    monkeypatch.setenv("OMP_NUM_THREADS", "64")  # as Ray sets it
    answer(order, settings={"RIYAZ_ISA": os.environ.get("RIYAZ_ISA", "")})
    assert "RIYAZ_FROZEN" not in os.environ and "OMP_NUM_THREADS" not in os.environ
    monkeypatch.delenv("RIYAZ_ISA", raising=False)


@pytest.mark.slow
@pytest.mark.usefixtures("one_core")
def test_what_a_node_makes_has_the_bits_of_this_machine(
    asked: tuple, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tiny_comparison.write_rows(tmp_path / "data/train.jsonl", tiny_comparison.closed_rows(45, "please"))
    tiny_comparison.write_rows(tmp_path / "data/test.jsonl", tiny_comparison.closed_rows(9, "today"))
    asking = ("compare", tmp_path / "data", *asked[:-1], "--methods", "nearest,lora")
    (tmp_path / "node.py").write_text(NODE)
    place, out = f"{sys.executable} {tmp_path / 'node.py'} {tmp_path / 'there'}", tmp_path / "out"
    told = command(*asking, "--places", place, "--out", out)
    assert told.status == 0, told.err
    comparison = Comparison.read(out / "compare.json")
    assert [(arm.status, arm.place) for arm in comparison.arms] == [("ok", place)] * 2, told.err
    artifact = json.loads((out / "arms/lora/kept/artifact/riyaz.json").read_text())
    assert artifact["base"]["path"] == str(asked[1]), "the base as home has it"
    assert not list((tmp_path / "there").glob(".tmp-*")), "nothing is left at the node"
    expect_one_places_bits(out, asking, tmp_path / "whole", monkeypatch)
