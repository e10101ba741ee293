"""benchmarks/inference.py: sides in processes of their own, ratios to the fastest peer, the JSON of the last line."""

import json
import sys
from pathlib import Path
from types import ModuleType

import pytest
import tiny_llama
from load_script import load_script

from riyaz.sources import Source, open_source

FOLDER = Path(__file__).parents[2] / "benchmarks"

# Stands in for inference_sides.py: fixed speeds by side, every prompt kept in a file; no OpenVINO here.
FAKE = """
import json, sys
name, model, settings = sys.argv[1:]
if name == "openvino":
    print(json.dumps({"error": "ModuleNotFoundError: No module named 'openvino'"}))
    sys.exit()
print(json.dumps({"ready": "1.0"}), flush=True)
speed = {"riyaz": 90, "llama.cpp": 60 if "true" in settings else 40}.get(name)
for line in sys.stdin:
    asked = json.loads(line)
    if asked["do"] == "start":
        answer = {"seconds": 0.25, "tokenizer_s": 0.1, "rss": 3e6, "peak": 4e6, "torch": False}
    elif asked["do"] == "lookup":
        answer = {"lookup_ratio": 1.75, "lookup_acceptance": 0.5, "kinds": {}}
    elif asked["do"] == "limits":
        answer = {"read_gbs": 0.1, "int8_gops": None, "bf16_gops": 0.2}
    else:
        with open(__file__ + ".log", "a") as log:
            print(json.dumps([name, settings, asked]), file=log)
        answer = {"tokens": speed, "seconds": 1.25 if asked.get("lora") else 1.0}
    print(json.dumps(answer), flush=True)
"""


@pytest.fixture(scope="module")
def inference() -> ModuleType:
    return load_script("benchmarks/inference.py")


@pytest.fixture(scope="module")
def sides() -> ModuleType:
    return load_script("benchmarks/inference_sides.py")


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Source:
    return open_source(tiny_llama.write_gguf(tmp_path_factory.mktemp("inference") / "model.gguf"))


@pytest.fixture
def fake(inference: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    script = tmp_path / "fake.py"
    script.write_text(FAKE)
    monkeypatch.setattr(inference, "SCRIPT", script)
    return script


def test_a_ratio_is_to_the_fastest_peer_by_medians(inference: ModuleType) -> None:
    slow, fast = [10.0, 20.0, 900.0], [40.0, 39.0, 1.0]
    assert inference.ratio({"riyaz": [100.0, 1.0, 60.0], "slow": slow, "fast": fast}) == round(60 / 39, 3)
    assert inference.ratio({"riyaz": [60.0]}) is None


def test_sides_take_turns_at_being_first(inference: ModuleType) -> None:
    assert [inference.turns(["a", "b", "c"], i) for i in range(4)] == [list(x) for x in ("abc", "bca", "cab", "abc")]


def test_the_row_of_a_model(inference: ModuleType, source: Source) -> None:
    row = inference.summarise(
        {
            "decode": {"riyaz": [50.0], "llama.cpp": [20.0]},
            "lora": {"riyaz": [50.0, 55.0, 60.0], "riyaz + LoRA": [50.0, 52.0, 44.0]},
            "start, s": {"first token": [0.5, 0.25, 0.125], "tokenizer": [1.0], "whole command": [0.5]},
            "memory, MB": {"rss": [2 * source.nbytes / 2**20], "peak": [9.0]},
            "torch imported": {"riyaz": [0.0, 1.0]},
        },
        source,
    )
    cache = 2 * 2 * 2 * 2 * 16 * (512 + 64)  # keys and values, 16 bits, 2 layers, 2 heads of 16, every token
    assert row == {
        "decode": 2.5, "lora_slowdown": 0.1, "cold_start_s": 0.25, "first_token_s": 0.5, "torch_imported": True,
        "rss_over_file": round(2 * source.nbytes / (source.nbytes + cache), 3),
    }  # fmt: skip


def test_shares_of_the_machines_limits(inference: ModuleType, source: Source) -> None:
    samples = {"decode": {"riyaz": [100.0]}, "prefill": {"riyaz": [1000.0]}}
    none = {"decode_bandwidth_share": None, "prefill_peak_share": None, "limits": {}}
    assert inference.shares(samples, {"read_gbs": [], "int8_gops": []}, source) == none
    linears = 2 * (64 * 64 * 2 + 32 * 64 * 2 + 3 * 64 * 128)  # weights of two layers
    found = inference.shares(samples, {"read_gbs": [0.1, 0.2, 0.3], "int8_gops": [1.0], "bf16_gops": [9.0]}, source)
    assert found["limits"] == {"read_gbs": 0.2, "int8_gops": 1.0, "bf16_gops": 9.0}
    read = source.nbytes + (128 + 32) * 2 * 2 * 2 * 2 * 16
    assert found["decode_bandwidth_share"] == round(100 * read / 0.2e9, 3) > 0
    assert found["prefill_peak_share"] == round(2 * (linears + 64 * 512 / 512) * 1000 / 1e9, 3) > 0


def test_a_process_answers_refuses_or_ends(inference: ModuleType, tmp_path: Path) -> None:
    script = tmp_path / "side.py"
    script.write_text(FAKE)
    side = inference.Side([sys.executable, str(script), "llama.cpp", "model", "true"])
    assert side.version == "1.0" and side.ask("prefill", prompt=[1])["tokens"] == 60
    side.close()
    assert side.process.returncode == 0
    with pytest.raises(inference.Unavailable, match="No module named 'openvino'"):
        inference.Side([sys.executable, str(script), "openvino", "model", "{}"])
    script.write_text("import sys; print('{\"ready\": \"\"}', flush=True); input(); sys.exit('out of luck')")
    side = inference.Side([sys.executable, str(script)])
    with pytest.raises(inference.Unavailable, match="status 1: out of luck"):
        side.ask("decode")
    side.close()


def run(inference: ModuleType, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], *words: str):
    """The lines before the last one, and the JSON."""
    monkeypatch.setattr(sys, "argv", ["inference.py", *words])
    inference.main()
    *lines, last = capsys.readouterr().out.splitlines()
    return lines, json.loads(last)


@pytest.mark.slow
def test_the_first_token_of_a_whole_command(inference: ModuleType, source: Source, tmp_path: Path) -> None:
    assert inference.first_token(source, "fp32") > 0
    missing = Source("gone", tmp_path / "gone.gguf", "gguf", {}, {}, ())
    with pytest.raises(inference.Unavailable, match="status 2"):
        inference.first_token(missing, "fp32")


def test_the_whole_table(inference, fake, source, monkeypatch, capsys) -> None:
    monkeypatch.setattr(inference, "first_token", lambda *_: 0.5)
    model = source.name
    lines, result = run(inference, monkeypatch, capsys, "--peer", "--rounds", "2", "--model", str(source.path))
    assert set(result) == {
        model, "decode_bandwidth_share", "prefill_peak_share", "limits", "peers", "cpu", "isa",
    }  # fmt: skip
    row = result[model]
    assert list(row) == [
        "decode", "prefill", "batch8", "lora_slowdown", "cold_start_s", "first_token_s", "rss_over_file",
        "torch_imported", "lookup_ratio", "lookup_acceptance",
    ]  # fmt: skip
    assert row["lookup_ratio"] == 1.75 and row["lookup_acceptance"] == 0.5
    assert row["decode"] == row["prefill"] == row["batch8"] == 1.5 and row["lora_slowdown"] == 0.25
    assert row["cold_start_s"] == 0.25 and row["first_token_s"] == 0.5 and row["torch_imported"] is False
    assert result["decode_bandwidth_share"] and result["prefill_peak_share"]
    peers = result["peers"]
    assert peers["versions"] == {"riyaz": "1.0", "llama.cpp": "1.0"}
    speeds = {"riyaz": 90, "llama.cpp": 40, "llama.cpp flash": 60}
    assert peers["tokens_s"][model] == dict.fromkeys(("decode", "prefill", "batch8"), speeds)
    assert set(peers["missing"][model]) == {name for name in inference.PEERS if name.startswith("openvino")}
    assert any("openvino is not measured: ModuleNotFoundError" in line for line in lines)
    calls = [json.loads(line) for line in Path(f"{fake}.log").read_text().splitlines()]
    for side in {(name, settings) for name, settings, _ in calls}:
        asked = [call for name, settings, call in calls if (name, settings) == side and not call.get("lora")]
        heads = [call["prompt"] if "prompt" in call else call["prompts"][0] for call in asked]
        heads = [head for head in heads if len(head) >= 128]  # not the warm-up before a prefill
        shared = 3 if side[0] == "riyaz" else 0
        assert len(heads) == 3 * 3 + shared and len({tuple(head) for head in heads}) == len(heads)
    together = [{tuple(prompt) for prompt in call["prompts"]} for _, _, call in calls if "prompts" in call]
    assert {len(prompts) for prompts in together} == {1, 8}  # no two of a batch are equal
    assert [line for line in lines if "round" in line] == [f"{model} round {i} of 2 done" for i in (1, 2)]


def test_without_peers_ratios_are_null_and_cells_can_be_picked(inference, fake, source, monkeypatch, capsys) -> None:
    words = "--rounds", "1", "--model", str(source.path), "--only", "decode"
    _, result = run(inference, monkeypatch, capsys, *words)
    assert result[source.name] == {"decode": None} and result["peers"]["missing"] == {}
    assert result["peers"]["tokens_s"][source.name] == {"decode": {"riyaz": 90}}
    assert result["decode_bandwidth_share"] is not None and result["prefill_peak_share"] is None


def test_riyaz_is_measured_through_its_engine(sides: ModuleType, source: Source) -> None:
    riyaz = sides.Riyaz(str(source.path), "fp32")
    prompts = [[5 + i, 6, 7] for i in range(8)]
    for lora in (False, True):
        made = riyaz.decode(prompts, 4, lora)
        assert made["tokens"] == 32 and made["seconds"] > 0
    assert riyaz.prefill(list(range(5, 40)))["tokens"] == 35
    assert set(riyaz.limits()) == {"read_gbs", "int8_gops", "bf16_gops"}
    cold = sides.ColdRiyaz(str(source.path), "fp32").start([5, 6], [5, 6, 7], 2)
    assert cold["seconds"] > 0 and cold["tokenizer_s"] > 0 and cold["peak"] > 0 and "torch" in cold


def test_the_lora_is_on_every_linear_but_the_head(sides: ModuleType, source: Source) -> None:
    pairs = sides.random_lora(source).pairs
    assert len(pairs) == 2 * 7 and not any("lm_head" in name for name in pairs)
    assert all(pair.rank == 16 and pair.b.any() for pair in pairs.values())


def test_a_python_that_is_not_there_is_named(inference, monkeypatch, capsys) -> None:
    monkeypatch.setattr(sys, "argv", ["inference.py", "--peer", "--peer-python", "nowhere/python"])
    with pytest.raises(SystemExit):
        inference.main()
    assert "nowhere/python: no such program" in capsys.readouterr().err
