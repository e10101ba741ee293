"""A comparison over several bases: its arms, folders and names, what they share, and what is refused."""

import json
import shutil
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import planned
import pytest
import tiny_comparison
import tiny_llama
from conftest import Finished
from tiny_comparison import Told, command, strict

import riyaz
from riyaz import evaluate, json_files
from riyaz.artifact import Artifact
from riyaz.card import card
from riyaz.comparison import bases, job, processes
from riyaz.comparison import plan as planning
from riyaz.comparison.folder import ComparisonFolder
from riyaz.comparison.pick import choose
from riyaz.comparison.plan_inputs import plan_inputs
from riyaz.comparison.speeds import Speeds
from riyaz.config import CompareConfig, DataConfig, read_toml
from riyaz.errors import RiyazError
from riyaz.report.comparison.short_names import short_names
from riyaz.results import ArmResult, Comparison
from riyaz.serve.opening import Opener

pytestmark = pytest.mark.usefixtures("one_core")
METHODS = ("nearest", "zero_shot", "lora")
NAMES = ["nearest", "zero_shot@one", "zero_shot@two", "lora@one", "lora@two"]
BUDGET = 3 * 3600


@dataclass
class Several:
    """A comparison of METHODS on two bases, the work that its processes did, and the base of each evaluation."""

    models: tuple[Path, Path]
    arguments: tuple[object, ...]
    out: Path
    told: Told
    done: list[tuple[str, ...]]
    seconds: list[float] = field(default_factory=list)  # that each measuring may take
    nats: dict[str, float] = field(default_factory=dict)  # arm -> loss of the base that it was compared with

    @property
    def arms(self) -> dict[str, dict[str, Any]]:
        return {"@".join(filter(None, (arm["method"], arm.get("base")))): arm for arm in self.told.document["arms"]}


@pytest.fixture(scope="module")
def several(tmp_path_factory: pytest.TempPathFactory, home: Path) -> Iterator[Several]:
    folder = tmp_path_factory.mktemp("several")
    models = (
        tiny_llama.write_hf_folder(folder / "models/one", seed=1),
        tiny_llama.write_hf_folder(folder / "models/two", seed=2, hidden=96, intermediate=192),
    )
    tiny_comparison.write_rows(folder / "data/train.jsonl", tiny_comparison.closed_rows(45, "please"))
    tiny_comparison.write_rows(folder / "data/test.jsonl", tiny_comparison.closed_rows(18, "today"))
    (folder / "general.txt").write_text(tiny_llama.CORPUS)
    arguments = ("compare", folder / "data", "--methods", ",".join(METHODS), "--budget", f"{BUDGET}s", "--data-curve",
                 "--margin", 1, "--general", folder / "general.txt", "--model", f"{models[0]},{models[1]}",
                 "--out", folder / "out", "--json")  # fmt: skip
    with tiny_comparison.small_machine(home) as patch:
        made = Several(models, arguments, folder / "out", Told(1, "", ""), tiny_comparison.workers_inside(patch))
        inside, judged = processes.run_worker, evaluate.evaluate_artifact

        def seen(arguments: list[str], *rest: Any, **more: Any) -> str:
            made.seconds += [float(arguments[2])] if arguments[0] == "measure" else []
            return inside(arguments, *rest, **more)

        def evaluated(artifact: Path, *rest: Any, base: Any, **more: Any) -> Any:
            made.nats |= {artifact.parents[1].name: base.general_nats} if base else {}
            return judged(artifact, *rest, base=base, **more)

        patch.setattr(processes, "run_worker", seen)
        patch.setattr(evaluate, "evaluate_artifact", evaluated)
        made.told = command(*arguments)
        assert made.told.status == 0, made.told.err
        yield made


def test_every_method_runs_on_every_base_and_one_without_a_language_model_once(several: Several) -> None:
    assert list(several.arms) == NAMES
    assert all(arm["status"] == "ok" and arm["n_test"] == 18 for arm in several.arms.values())
    assert "base" not in several.arms["nearest"]
    document = several.told.document
    assert document["model"]["name"] == "one" and [model["name"] for model in document["models"]] == ["one", "two"]
    assert document["models"][0] == document["model"] != document["models"][1]
    assert {name for pair in document["pairs"] for name in pair["arms"]} == set(NAMES) and len(document["pairs"]) == 10
    assert document["pick"] in NAMES and document["runner_up"] in NAMES and document["curve_method"] in NAMES[3:]
    assert len(document["data_curve"]) == 3
    assert several.told.err.count("on validation rows and general text") == 2, "each base is measured once"
    assert sum(several.seconds) <= 0.1 * BUDGET * 1.001


def test_an_arm_has_a_folder_of_its_name_and_an_artifact_on_its_own_base(several: Several) -> None:
    assert sorted(path.name for path in (several.out / "arms").iterdir()) == sorted(NAMES)
    settings, models = ComparisonFolder(several.out).settings(), {}
    for name in NAMES:
        made = Artifact.read(several.out / "arms" / name / "kept/artifact")
        assert made.method == name.partition("@")[0]
        models[name] = made.base and Path(made.base.path).name
    assert models == {"nearest": None} | {name: name.partition("@")[2] for name in NAMES[1:]}
    assert settings.model == settings.models[0] and [model.name for model in settings.models] == ["one", "two"]


def test_an_arm_is_compared_with_its_own_base(several: Several) -> None:
    own = {
        base: strict((several.out / "bases" / base / "base.json").read_text())["general_nats"]
        for base in ("one", "two")
    }
    assert own["one"] != own["two"]
    assert several.nats == {name: own[name.partition("@")[2] or "one"] for name in NAMES}
    assert all(abs(several.arms[name]["forgetting_nats"]) < 1e-6 for name in ("zero_shot@one", "zero_shot@two"))


def test_the_same_command_repeats_nothing_and_goes_on_after_a_kill(several: Several, tmp_path: Path) -> None:
    done = len(several.done)
    assert command(*several.arguments).document == several.told.document and len(several.done) == done
    (several.out / "compare.json").unlink()
    (several.out / "arms/lora@two/kept/result.json").unlink()
    again = command(*several.arguments)
    assert again.status == 0, again.err
    assert ("evaluate", "lora@two", "kept") in several.done[done:]
    assert not any(work[0] in ("measure", "fit") for work in several.done[done:])
    same = ("score", "method", "base", "chosen", "curve")
    for before, after in zip(several.told.document["arms"], again.document["arms"], strict=True):
        assert [before.get(key) for key in same] == [after.get(key) for key in same]


def test_reports_name_method_and_base(several: Several) -> None:
    document = Comparison.read(several.out / "compare.json")
    markdown, page = (several.out / f"report.{kind}" for kind in ("md", "html"))
    assert "| method | base |" in " ".join(markdown.read_text().split()) and "model two" in markdown.read_text()
    assert all(text in page.read_text() for text in ("models: one, two", "lora@two", "on two", "MB while answering"))
    told = command("report", several.out)
    assert told.status == 0, told.err
    shown = riyaz.Comparison.read(several.out)
    assert [line.split()[:2] for line in repr(shown).splitlines()[:1]] == [["method", "base"]]
    assert "two" in shown._repr_html_() and shown.arm("lora@two").base == "two"
    with pytest.raises(RiyazError, match="no arm 'lora' here"):
        shown.arm("lora")
    assert len(shown.answer_rows("lora@two")) == 18 and shown.open("zero_shot@two") is not None
    assert document.bases == ["one", "two"]
    assert "Base model: two" in card(str(several.out / "lora@two"))
    trained = document.arm("lora@two")
    assert trained is not None and f"{trained.score:.3f}" in card(str(several.out / "lora@two"))


def test_a_server_names_every_arm(several: Several) -> None:
    opener = Opener("fp32")
    assert opener.serve(str(several.out)) == []
    assert {f"out/{name}" for name in NAMES} | {"out"} <= {served.name for served in opener.shelf}
    assert opener.shelf.find("out/lora@two").base.source.path == several.models[1]
    assert opener.shelf.find("out/lora@one").base.source.path == several.models[0]


def test_with_one_base_files_are_as_they_were(quick: Finished) -> None:
    document = strict((quick.out / "compare.json").read_text())
    assert not {"models", "bases"} & set(document) and not any("base" in arm for arm in document["arms"])
    settings, plan = (strict((quick.out / name).read_text()) for name in ("settings.json", "plan.json"))
    assert "models" not in settings and not any("base" in arm for arm in plan["arms"])
    assert "base_seconds_of" not in strict((quick.out / "measured.json").read_text())
    assert not (quick.out / "bases").exists() and (quick.out / "arms/lora/kept").is_dir()
    assert "| method | accuracy |" in " ".join((quick.out / "report.md").read_text().split())
    assert not any("@" in arm.name or arm.base for arm in Comparison.read(quick.out / "compare.json").arms)


def test_bases_that_cannot_be_told_apart_are_refused(several: Several, tmp_path: Path) -> None:
    data, out = several.arguments[1], ("--out", tmp_path / "out")
    other = shutil.copytree(several.models[1], tmp_path / "one")
    assert (
        "are both called one; rename one of them"
        in command("compare", data, "--model", f"{several.models[0]},{other}", *out).line
    )
    upper = shutil.copytree(several.models[1], tmp_path / "One")
    told = command("compare", data, "--model", f"{several.models[0]},{upper}", *out)
    assert "are both called One, but for upper and lower case; rename one of them" in told.line
    copy = shutil.copytree(several.models[0], tmp_path / "copy")
    assert (
        "one and copy are the same model"
        in command("compare", data, "--model", f"{several.models[0]},{copy}", *out).line
    )
    told = command("adapt", "lora", data, "--model", f"{several.models[0]},{several.models[1]}", *out)
    assert "--model: riyaz adapt takes one base, and these are 2" in told.line
    assert "names no model" in command("compare", data, "--model", ",", *out).line
    assert not (tmp_path / "out").exists()


def test_other_bases_are_another_comparison(several: Several) -> None:
    told = command(
        *(str(several.models[0]) if "," in str(word) and "models" in str(word) else word for word in several.arguments)
    )
    assert "this folder holds another comparison (other models" in told.line


def test_models_are_a_list_in_a_file_and_one_path_may_hold_a_comma(tmp_path: Path) -> None:
    (tmp_path / "riyaz.toml").write_text('model = ["smollm2-135m", "./mine"]\n')
    assert read_toml(tmp_path / "riyaz.toml") == {"model": ("smollm2-135m", str(tmp_path / "mine"))}
    (tmp_path / "a,b").mkdir()
    assert CompareConfig(model=str(tmp_path / "a,b")).model == (str(tmp_path / "a,b"),)  # type: ignore[arg-type]
    assert CompareConfig(model="a, b").model == ("a", "b")  # type: ignore[arg-type]


def test_rows_too_long_for_one_base_are_left_out_for_all(several: Several, tmp_path: Path) -> None:
    small = tiny_llama.write_hf_folder(tmp_path / "small", seed=3, context=128)
    rows = tiny_comparison.closed_rows(45, "please")
    rows[7]["text"] += " please" * 120
    tiny_comparison.write_rows(tmp_path / "data/train.jsonl", rows)
    tiny_comparison.write_rows(tmp_path / "data/test.jsonl", tiny_comparison.closed_rows(18, "today"))

    def learned(*models: Path) -> int:
        config = CompareConfig(model=tuple(map(str, models)), methods=("zero_shot", "nearest"), out=tmp_path / "out")
        parts = job.open_job(tmp_path / "data", DataConfig(), config, None, lambda event: None).parts
        return len(parts.train) + len(parts.valid)

    assert (learned(several.models[0]), learned(several.models[0], small), learned(small)) == (45, 44, 44)


# the plan


def on_two(slower: float = 3.0) -> Speeds:
    """Speeds on bases of which the second takes so many times as long, and more memory."""
    first = planned.measured()
    arms = {
        name: replace(speed, step_seconds=slower * speed.step_seconds, rss_mb=5000.0)
        for name, speed in first.arms.items()
    }
    second = replace(first, base_seconds=slower * first.base_seconds, arms=arms)
    return bases.merged({"a": first, "b": second})


def test_one_plan_shares_the_budget_over_the_arms_of_all_bases() -> None:
    names = bases.arm_names(("nearest", "zero_shot", "lora", "full"), ["a", "b"])
    assert names == ["nearest", "zero_shot@a", "zero_shot@b", "lora@a", "lora@b", "full@a", "full@b"]
    config = CompareConfig(methods=("nearest", "zero_shot", "lora", "full"))
    inputs = plan_inputs(names, config, "closed", on_two(), planned.SIZES)
    short = {name: recipe and replace(planned.PLAIN, share=recipe.share) for name, recipe in inputs.methods.items()}
    inputs = replace(inputs, methods=short)
    plan = planning.make_plan(inputs, budget=700, spent=10)
    assert [arm.name for arm in plan.arms] == names and plan.estimate["seconds"] <= 700
    shares = {name: planned.seconds(plan, name) for name in names[3:]}
    assert all(plan.arm(name).cut for name in shares)
    by_share = [
        seconds / planned.table.METHODS[name.partition("@")[0]].recipe.share for name, seconds in shares.items()
    ]  # type: ignore[union-attr]
    assert max(by_share) < 1.1 * min(by_share), "what a base takes for a step changes the steps, not the time"
    assert plan.arm("lora@a").steps > 1.4 * plan.arm("lora@b").steps
    assert plan.estimate["peak_rss_mb"] == 5000
    evaluate = [plan.arm(name).seconds["evaluate"] for name in ("zero_shot@a", "zero_shot@b")]
    assert evaluate[1] - evaluate[0] == pytest.approx(6.0), "each is compared with its own base"


def test_a_short_budget_leaves_out_the_last_base_first() -> None:
    assert bases.in_leaving_order(["lora@a", "lora@b", "full@a", "full@b", "nearest"]) == [
        "full@b", "full@a", "lora@b", "lora@a", "nearest",
    ]  # fmt: skip


def test_arms_join_those_of_their_own_base() -> None:
    assert bases.parts_of("ensemble@b") == ("encoder", "lora@b") and bases.parts_of("ensemble") == ("encoder", "lora")
    assert (
        bases.rate_of("rag_lora@b") == "lora@b" and bases.rate_of("rag_lora") == "lora" and not bases.rate_of("lora@b")
    )


def test_the_plan_of_one_base_is_the_plan_it_was(tmp_path: Path) -> None:
    speeds = planned.measured()
    assert bases.merged({"": speeds}) is speeds and bases.arm_names(("lora", "nearest"), ["a"]) == ["lora", "nearest"]
    plan = planned.made(900)
    json_files.write_json(tmp_path / "plan.json", plan)
    assert "base" not in json.loads((tmp_path / "plan.json").read_text())["arms"][0]
    assert planning.ComparisonPlan.read(tmp_path / "plan.json") == plan


# the pick


def arm(method: str, base: str | None, ms: float = 10.0, **known: Any) -> ArmResult:
    return ArmResult(method, "ok", base, "accuracy", ms_per_answer=ms, forgetting_nats=0.0, **known)


def right(count: int) -> np.ndarray:
    return (np.arange(400) < count).astype(float)


def test_take_another_base_and_do_not_tune_is_said() -> None:
    arms = [arm("zero_shot", "small"), arm("lora", "small", trainable_params=9), arm("zero_shot", "large", 20)]
    arms.append(arm("lora", "large", 20, trainable_params=9))
    scores = {"zero_shot@small": right(100), "lora@small": right(240), "zero_shot@large": right(330)}
    scores["lora@large"] = right(200)
    picked = choose(arms, scores)
    assert (picked.pick, picked.runner_up, picked.decision) == ("zero_shot@large", "lora@small", "certified")
    assert "best of 4 arms" in picked.reason
    said = "Take large as it is, by zero_shot; training is not worth it here: the best trained arm, lora@small, scores"
    assert f"{said} 0.600." in picked.reason


def test_training_is_not_worth_it_only_where_it_was_tried_on_the_picked_base() -> None:
    arms = [arm("lora", "small", trainable_params=9), arm("zero_shot", "large", 20)]
    scores = {"lora@small": right(240), "zero_shot@large": right(330), "lora@large": right(332)}

    def said(*more: ArmResult, limit: float | None = None, tuned: int = 332) -> str:
        trained = {**scores, "lora@large": right(tuned)}
        return choose([*arms, *more], trained, limits={"max_ms": limit}).reason

    tuned = arm("lora", "large", 21, trainable_params=9)
    lost = "Take large as it is, by zero_shot; training is not worth it here: the best trained arm, lora@large, scores"
    assert f"{lost} 0.830." in said(tuned)
    failed = replace(tuned, status="failed", reason="out of memory")
    assert "Take large as it is, by zero_shot; no training on it finished." in said(failed)
    assert "Take large as it is, by zero_shot; no training on it is within the limits." in said(tuned, limit=20.5)
    assert "Take" not in said(tuned, tuned=390), "the pick is trained"


def test_a_base_in_a_picture_is_cut_to_what_tells_it_apart() -> None:
    def shown(*names: str, most: int = 28) -> list[str]:
        arms = [arm("prompt_tuning", name) for name in names]
        return [text.partition("@")[2] for text in short_names(arms, most).values()]

    assert shown("smollm2-135m", "smollm2-360m") == ["135m", "360m"]
    assert shown("smollm2-135m", "gemma3-270m", "qwen2.5-coder-0.5b") == ["smollm2", "gemma3", "qwen2.5"]
    assert shown("tiny", "tiny-chat") == ["tiny", "tiny-chat"]
    assert short_names([arm("lora", None), arm("lora", "a-1"), arm("lora", "a-2")]) == {
        "lora": "lora", "lora@a-1": "lora@1", "lora@a-2": "lora@2",
    }  # fmt: skip
    names = list(short_names([arm("prompt_tuning", "smollm2-135m"), arm("prompt_tuning", "smollm2-360m")], 16).values())
    assert len(set(names)) == 2 and max(map(len, names)) <= 16, "the method is cut, not the base"


def test_a_strangers_results_cannot_lead_elsewhere(several: Several, tmp_path: Path) -> None:
    document = several.told.document
    for arms, said in (
        ([document["arms"][1] | {"base": "../.."}], "is not the name of a base"),
        ([document["arms"][1]] * 2, "has two arms"),
    ):
        (tmp_path / "compare.json").write_text(json.dumps(document | {"arms": arms, "pick": None, "runner_up": None}))
        with pytest.raises(RiyazError, match=said):
            Comparison.read(tmp_path / "compare.json")
