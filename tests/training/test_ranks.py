"""Several processes that train one model: the losses of one process, the same bits in all, in a repeat and resumed."""

import ast
import json
import os
from pathlib import Path
from types import SimpleNamespace
from typing import ClassVar

import pytest
import torch
from forked_ranks import fork_ranks
from rank_worker import LOCAL, ROWS, VALID, Result, alone, fresh, result_file
from small_llama import small_model
from started_ranks import ended

import riyaz
from riyaz.comparison import processes
from riyaz.data.packing import batch
from riyaz.errors import RiyazError
from riyaz.events import quiet
from riyaz.joining import joined
from riyaz.layers.fast import meeting
from riyaz.layers.fast.group import Group, dist
from riyaz.layers.fast.masters import Masters
from riyaz.ranks import Lost, Ranks, dealt, environment, launched
from riyaz.train import TrainPlan, answer_loss, answer_nats, learning_rate, micro_batches

# relative, beside one process: gradients are added up in another order, and in bfloat16 round otherwise
# weights in bfloat16 drift apart by the order of sums; most with AMX, whose attention rounds gradients of scores too
LOSS, LOSS_BF16 = 1e-6, 1e-2
TOGETHER = ("float32", "again", "stopped", "resumed", "bfloat16", "dropout", "one row", "shortened", "unlike plan",
            "unlike rows")  # fmt: skip
APART = ("local", "local stopped", "local resumed", "local bfloat16")
# what each process does
TRAIN = """
import sys
from pathlib import Path
from rank_worker import join
join(Path(sys.argv[1]), *sys.argv[2:])
"""


def run(count: int, folder: Path, *names: str) -> list[dict[str, Result]]:
    """The results of every rank."""
    results = ended(fork_ranks(count, TRAIN, [folder, *names]))
    assert not any(result.status for result in results), results
    return [json.loads(result_file(folder, count, rank).read_text()) for rank in range(count)]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("ranks")


@pytest.fixture(scope="module")
def one(folder: Path) -> dict[str, Result]:
    return alone(folder, "float32", "one row", "shortened", "bfloat16", "dropout", "first part")


@pytest.fixture(scope="module")
def two(folder: Path, one: dict[str, Result]) -> list[dict[str, Result]]:
    return run(2, folder, *TOGETHER, *APART, "second part")


@pytest.fixture(scope="module")
def four(folder: Path, two: list[dict[str, Result]]) -> list[dict[str, Result]]:
    return run(4, folder, *TOGETHER, *APART, "third part")


@pytest.fixture(scope="module", params=["two", "four"])
def several(request: pytest.FixtureRequest) -> list[dict[str, Result]]:
    results: list[dict[str, Result]] = request.getfixturevalue(request.param)
    return results


def test_losses_are_those_of_one_process(one: dict[str, Result], several: list[dict[str, Result]]) -> None:
    for name in ("float32", "one row", "shortened", "dropout"):
        ours, theirs = several[0][name], one[name]
        for part in ("losses", "norms", "valid"):
            assert ours[part] == pytest.approx(theirs[part], rel=LOSS if part != "norms" else 1e-5), (name, part)
    assert several[0]["bfloat16"]["losses"] == pytest.approx(one["bfloat16"]["losses"], rel=LOSS_BF16)


def test_between_steps_the_store_is_asked_for_new_changes_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """It may share a core with what computes, which then waits for it in every step."""
    monkeypatch.setattr(dist, "broadcast", lambda tensor, rank: None)
    group, plan, heard = Group.__new__(Group), TrainPlan(100, 1e-3), list[object]()
    group.changes, group.may_pause = None, True
    group.meeting = SimpleNamespace(first=lambda value: heard.append(value) or value, difference=lambda values: "")  # type: ignore
    waited = list[int]()
    monkeypatch.setattr(group, "wait_for_all", lambda: waited.append(len(heard)))
    shorter = TrainPlan(100, 1e-3, changes=((10, 50),))
    assert [group.paced(each).changes for each in (plan, plan, shorter, shorter)] == [(), (), ((10, 50),), ((10, 50),)]
    assert heard == [(), ((10, 50),)]
    group.expect_alike({})  # as before a validation, after which files may be written
    group.paced(shorter)
    assert len(heard) == 3 and waited == [0, 2], "no step begins while another process validates"


def test_a_loss_is_added_up_when_all_have_theirs() -> None:
    class Two(Ranks):
        done: ClassVar[list[str]] = []

        def wait_for_all(self) -> None:
            self.done.append("all are there")

        def total(self, number: float) -> float:
            self.done.append("added up")
            return number

    assert answer_loss(small_model(), VALID, ranks=Two()) == answer_loss(small_model(), VALID)
    assert Two.done == ["all are there", "added up"]


def test_blocks_are_gathered_when_all_are_there(monkeypatch: pytest.MonkeyPatch) -> None:
    """The first process may be writing a checkpoint, and another one validate, for longer than gloo waits."""
    group, done = Group.__new__(Group), list[str]()
    monkeypatch.setattr(group, "wait_for_all", lambda: done.append("all are there"))
    monkeypatch.setattr(group, "_exchange", lambda *parts: done.append("exchanged"))
    group.rank, group.count = 1, 2
    for gather in (group.whole, group.gathered):
        done.clear()
        gather(torch.zeros(3), 6)
        assert done == ["all are there", "exchanged"]
    done.clear()
    assert group.whole(None, 6) is None and not done


def test_every_process_ends_with_the_same_bits(several: list[dict[str, Result]]) -> None:
    for name in ("float32", "bfloat16", "dropout", "one row", "resumed", "shortened"):
        assert len({json.dumps(result[name]["weights"]) for result in several}) == 1, name
        assert (
            len({json.dumps([result[name][part] for part in ("losses", "valid", "best")]) for result in several}) == 1
        )


def test_a_repeat_and_a_resumed_run_have_the_same_bits(several: list[dict[str, Result]]) -> None:
    first = several[0]
    assert first["again"]["weights"] == first["float32"]["weights"] == first["resumed"]["weights"]
    assert first["again"]["losses"] == first["float32"]["losses"]
    assert first["stopped"]["losses"] == first["float32"]["losses"][:11]
    assert first["resumed"]["losses"] == first["float32"]["losses"][8:] and not first["resumed"]["notes"]


def test_the_first_process_has_the_clock(several: list[dict[str, Result]]) -> None:
    assert [result["shortened"]["steps"] for result in several] == [9] * len(several)


@pytest.mark.slow
def test_another_number_of_processes_goes_on(
    one: dict[str, Result], two: list[dict[str, Result]], four: list[dict[str, Result]], folder: Path
) -> None:
    """1 → 2 → 4 → 1; each says that the run began otherwise."""
    last = alone(folder, "last part")["last part"]
    parts = [one["first part"], two[0]["second part"], four[0]["third part"], last]
    losses = [part["losses"] for part in parts]
    assert [len(each) for each in losses] == [5, 5, 5, 4]  # each goes on from the last checkpoint
    straight = one["float32"]["losses"]
    for begun, part in zip((0, 4, 8, 12), losses):
        assert part == pytest.approx(straight[begun : begun + len(part)], rel=LOSS)
    assert last["valid"] == pytest.approx(one["float32"]["valid"][-1:], rel=LOSS)
    assert not parts[0]["notes"] and "continues from step 4 with" in parts[1]["notes"][0]
    assert "in 2 processes" in parts[1]["notes"][0] and "in 4 processes" in last["notes"][0]


def test_unlike_processes_are_refused_with_both_values(several: list[dict[str, Result]]) -> None:
    plan, rows, threads = (several[0][name]["error"] for name in ("unlike plan", "unlike rows", "unlike threads"))
    for said in (plan, rows):
        assert said.startswith("the plan with its rows is ") and " in process 1 and " in said and " process 0; " in said
    assert threads == "--threads is 1 in process 1 and 2 in process 0; start all processes alike"
    assert all(result[name]["error"] == "told elsewhere"
               for result in several[1:] for name in ("unlike plan", "unlike rows", "unlike threads"))  # fmt: skip


def test_local_steps_have_the_same_bits_everywhere_and_resumed(several: list[dict[str, Result]]) -> None:
    first = several[0]
    for name in ("local", "local resumed", "local bfloat16"):
        assert len({json.dumps(result[name]["weights"]) for result in several}) == 1, name
        assert len({json.dumps(result[name]["valid"]) for result in several}) == 1
    assert first["local"]["weights"] == first["local resumed"]["weights"] != first["float32"]["weights"]
    assert first["local"]["losses"][8:] == first["local resumed"]["losses"]
    assert first["local bfloat16"]["valid"] == pytest.approx(first["local"]["valid"], rel=0.02)


def test_local_steps_are_those_of_the_paper(several: list[dict[str, Result]]) -> None:
    weights = apart(len(several), 4)
    assert several[0]["local"]["last"] == pytest.approx(weights, rel=1e-4)


def apart(count: int, local_steps: int) -> list[float]:
    """The last norm's weights after LOCAL, with workers one after the other and the outer step written plainly (DiLoCo,
    algorithm 1); at a checkpoint the workers' moments become their mean."""
    models = [fresh() for _ in range(count)]
    workers = [Masters(model, torch.float32) for model in models]
    common = workers[0].blocks.working.clone()
    momentum = torch.zeros_like(common)
    for step in range(LOCAL.steps):
        picked = [ROWS[place] for place in batch(len(ROWS), LOCAL.batch_size, LOCAL.seed, step)]
        for share, model, masters in zip(dealt([row.tokens for row in picked], count), models, workers):
            rows = [picked[place] for place in share]
            for micro in micro_batches(rows, LOCAL.micro_tokens):
                (answer_nats(model, micro, masters.sums) / sum(row.weight for row in rows)).backward()
            factor = min(1.0, LOCAL.clip / (masters.norm() + 1e-6))
            masters.step(step + 1, learning_rate(LOCAL, step), LOCAL.betas, LOCAL.weight_decay, factor)
        if (step + 1) % local_steps == 0:
            moved = common - torch.stack([masters.blocks.working for masters in workers]).mean(0)
            momentum = 0.6 * momentum + moved
            common = common - 0.8 * (moved + 0.6 * momentum)
            for masters in workers:
                masters.blocks.working.copy_(common)
        if (step + 1) % LOCAL.checkpoint_every == 0 and step + 1 < LOCAL.steps:
            for kind in (2, 3):
                mean = torch.stack([masters.blocks[kind] for masters in workers]).mean(0)
                for masters in workers:
                    masters.blocks[kind].copy_(mean)
    numbers: list[float] = models[0].model.norm.weight.tolist()
    return numbers


def test_rows_are_dealt_longest_first() -> None:
    assert dealt([5, 9, 1, 4, 4], 2) == [[1, 4], [0, 2, 3]]
    assert dealt([3, 3, 3, 3], 2) == [[0, 2], [1, 3]]
    assert dealt([7], 3) == [[0], [], []] and dealt([], 2) == [[], []]


def test_what_torchrun_says() -> None:
    assert launched({}) == launched({"WORLD_SIZE": "1", "RANK": "0"}) == (0, 1)
    assert launched({"WORLD_SIZE": "4", "RANK": "3"}) == (3, 4)
    for values, where in (
        ({"WORLD_SIZE": "many"}, "WORLD_SIZE"), ({"WORLD_SIZE": "2"}, "RANK"), ({"WORLD_SIZE": "0"}, "WORLD_SIZE"),
        ({"WORLD_SIZE": "2", "RANK": "2"}, "RANK"), ({"WORLD_SIZE": "2", "RANK": "-1"}, "RANK"),
    ):  # fmt: skip
        with pytest.raises(RiyazError, match="is not a number from") as error:
            launched(values)
        assert error.value.where == where


def test_children_do_not_join(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT", "TORCHELASTIC_RUN_ID"):
        monkeypatch.setenv(name, "1")
    monkeypatch.setenv("RIYAZ_ISA", "avx2")
    left = environment()
    assert not {"RANK", "WORLD_SIZE", "MASTER_ADDR"} & set(left) and left["RIYAZ_ISA"] == "avx2"
    assert not [name for name in left if name.startswith(("TORCHELASTIC", "LOCAL_", "MASTER_"))]
    assert set(left) < set(os.environ)


def test_an_arm_of_a_comparison_does_not_join(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen = []

    class Child:
        def __init__(self, command: list[str], env: dict[str, str], **more: object) -> None:
            seen.append(env)
            raise KeyboardInterrupt

    monkeypatch.setenv("RANK", "1")
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setattr(processes.subprocess, "Popen", Child)
    with pytest.raises(KeyboardInterrupt):
        processes.run_worker(["x"], tmp_path / "log", quiet, threads=1)
    assert not {"RANK", "WORLD_SIZE"} & set(seen[0]) and seen[0]["OMP_NUM_THREADS"] == "1"


def test_what_a_process_said_before_it_left_is_heard(monkeypatch: pytest.MonkeyPatch) -> None:
    """It says its last word and leaves between two questions for it."""

    class Store:
        questions = 0

        def check(self, keys: list[str]) -> bool:
            self.questions += keys == ["said-1"]
            return keys == ["pulse-0"] or self.questions > 1

        def get(self, key: str) -> bytes:
            return b"{}" if key == "said-1" else meeting.GONE.encode()

    monkeypatch.setattr(meeting, "LOOK", 0.0)
    heard = object.__new__(meeting.Meeting)
    heard.rank, heard.said, heard.store = 1, 0, Store()
    heard.pulses = heard.store
    assert heard.first(None) == {}


def test_a_store_that_is_gone_just_after_the_rendezvous_is_a_process_that_is_gone(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def refuse() -> None:
        raise dist.DistNetworkError("connection refused")

    monkeypatch.setattr(meeting, "_rendezvous", lambda rank, count: dist.HashStore())
    monkeypatch.setattr(meeting, "_client", refuse)
    with pytest.raises(RiyazError, match="process 0 of this run is gone; the same command with --resume goes on"):
        meeting.Meeting(1, 2)


def test_a_group_that_is_never_whole_says_how_its_own_command_goes_on(monkeypatch: pytest.MonkeyPatch) -> None:
    """`adapt` has no --resume."""

    def lose(rank: int, count: int) -> None:
        raise Lost

    for name, value in {"RANK": "1", "WORLD_SIZE": "2"}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr("riyaz.layers.fast.group.Group", lose)
    with pytest.raises(RiyazError, match="process 1 of 2: a process of this run is gone; run it again"):
        joined("run it again").__enter__()


def test_a_process_alone_has_no_group() -> None:
    """Their modules are imported where a group is made only, so never at the top of another file."""
    package, fast = Path(riyaz.__file__).parent, ("layers.fast.group", "layers.fast.meeting")
    tops = {path.relative_to(package): _imported_at_the_top(path) for path in package.rglob("*.py")}
    importing = [str(path) for path, names in tops.items() if any(name.endswith(fast) for name in names)]
    assert len(tops) > 300 and importing == ["layers/fast/group.py"]
    assert "riyaz.ranks" in tops[Path("train.py")]


def _imported_at_the_top(path: Path) -> set[str]:
    """The modules that a file imports as soon as it is imported itself, with what it takes from them."""
    names, found = list[ast.stmt](ast.parse(path.read_text(encoding="utf-8")).body), set[str]()
    while names:
        node = names.pop()
        if isinstance(node, ast.Import):
            found |= {each.name for each in node.names}
        elif isinstance(node, ast.ImportFrom):
            found |= {str(node.module)} | {f"{node.module}.{each.name}" for each in node.names}
        elif not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and not _for_types(node):
            names += [child for child in ast.iter_child_nodes(node) if isinstance(child, ast.stmt)]
    return found


def _for_types(node: ast.stmt) -> bool:
    return isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"
