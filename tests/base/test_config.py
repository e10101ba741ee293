"""Defaults have one home: dataclasses, riyaz.toml and flags agree, and wrong values name file and key."""

import dataclasses
import json
import subprocess
import sys
from pathlib import Path

import cyclopts
import pytest

from riyaz.config import (
    CONFIGS,
    CompareConfig,
    DataConfig,
    LimitsConfig,
    PretrainConfig,
    SamplingConfig,
    Seconds,
    ServeConfig,
    TernarizeConfig,
    parse_budget,
    read_toml,
    resolve,
)
from riyaz.errors import RiyazError


def line_of(error: pytest.ExceptionInfo) -> str:
    """The message a user sees, which must be one line with a next step."""
    text = str(error.value)
    assert "\n" not in text and "; " in text
    return text


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("90s", 90), ("20m", 1200), ("1h30m", 5400), ("2h", 7200), ("1.5h", 5400), ("1H 5m 10s", 3910)],
)
def test_budget_is_read_in_seconds(text, seconds):
    assert parse_budget(text) == seconds
    assert parse_budget(str(Seconds(text))) == seconds


@pytest.mark.parametrize("text", ["", "20", "m", "20x", "30m1h", "-5m", "0s", "nan", "1e3s", "9" * 400 + "h"])
def test_budget_that_is_no_duration_is_refused(text):
    with pytest.raises(RiyazError) as error:
        parse_budget(text, "--budget")
    assert line_of(error).startswith("--budget: ") and "20m" in line_of(error)


def test_seconds_is_a_number():
    budget = CompareConfig().budget
    assert budget == 1200 and budget / 2 == 600 and json.dumps({"budget": budget}) == '{"budget": 1200.0}'
    assert str(budget) == "20m" and str(Seconds(0)) == "0s" and str(Seconds(5410.5)) == "1h30m10.5s"


def test_every_field_has_help_and_a_valid_default():
    for config in (*CONFIGS, PretrainConfig, TernarizeConfig, SamplingConfig, ServeConfig, LimitsConfig):
        for field in dataclasses.fields(config):
            assert field.metadata["help"], field.name
            assert getattr(config(), field.name) == field.default


def test_flags_win_over_the_file_and_the_file_over_defaults(tmp_path):
    path = tmp_path / "riyaz.toml"
    path.write_bytes(b'\xef\xbb\xbfbudget = "90s"\r\nseed = 3\r\nmargin = 0\r\nprompt_column = "q"\r\n')
    data, compare = resolve(read_toml(path), {"seed": 0, "budget": None, "answer_column": "a"})
    assert data == DataConfig(prompt_column="q", answer_column="a")
    assert compare == CompareConfig(budget=Seconds(90), seed=0, margin=0.0)
    assert isinstance(compare.margin, float)


def test_method_lists_are_read_with_commas(tmp_path):
    (tmp_path / "riyaz.toml").write_text('methods = ["lora", "full"]\n')
    assert read_toml(tmp_path / "riyaz.toml") == {"methods": ("lora", "full")}
    assert CompareConfig(methods=("lora, full,",)).methods == ("lora", "full")


def test_paths_in_a_file_start_at_its_folder(tmp_path):
    path = tmp_path / "riyaz.toml"
    path.write_text('test = "held.jsonl"\nmodel = "./mine"\nout = "/results"\n')
    absolute = Path("/results")
    expected = {"test": tmp_path / "held.jsonl", "model": (str(tmp_path / "mine"),), "out": absolute}
    assert read_toml(path) == expected
    path.write_text('model = "smollm2-135m"\n')
    assert read_toml(path) == {"model": ("smollm2-135m",)}


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("limit_trian = 30", ["riyaz.toml: unknown key 'limit_trian'", "did you mean 'limit_train'?"]),
        ("zebra = 1\nyak = 2", ["unknown keys 'zebra', 'yak'", "known keys: prompt_column"]),
        ("seed = true", ["riyaz.toml: seed: True is not a whole number"]),
        ("seed = 1.5", ["riyaz.toml: seed: 1.5 is not a whole number"]),
        ("budget = 20", ["riyaz.toml: budget: 20 is not a duration", '"20m"']),
        ('budget = "20"', ["riyaz.toml: budget: '20' is not a duration"]),
        ("margin = 2", ["riyaz.toml: margin: 2.0 is too large", "at most 1"]),
        ("max_ms = nan", ["riyaz.toml: max_ms: nan is not a finite number"]),
        ("limit_train = 5", ["riyaz.toml: limit_train: 5 is too small", "at least 20"]),
        ('metric = "bleu"', ["riyaz.toml: metric: unknown metric 'bleu'", "one of accuracy, exact_match, token_f1, "]),
        ("test = 3", ["riyaz.toml: test: 3 is not a path"]),
        ('allow_leakage = "yes"', ["riyaz.toml: allow_leakage: 'yes' is not true or false"]),
        ("methods = [1]", ["riyaz.toml: methods: [1] is not text"]),
        ("seed = 1\nmargin = ,", ["riyaz.toml: not TOML", "line 2"]),
    ],
)
def test_wrong_settings_name_file_and_key(tmp_path, text, parts):
    path = tmp_path / "riyaz.toml"
    path.write_text(text)
    with pytest.raises(RiyazError) as error:
        read_toml(path)
    for part in parts:
        assert part in line_of(error)


def test_settings_that_are_not_utf8_are_refused(tmp_path):
    (tmp_path / "riyaz.toml").write_bytes(b'instruction = "\xe9"')
    with pytest.raises(RiyazError, match="UTF-8"):
        read_toml(tmp_path / "riyaz.toml")


def test_a_wrong_flag_is_named_as_a_flag():
    for flag, given in {"--limit-train": {"limit_train": 19}, "--budget": {"budget": Seconds(-1)}}.items():
        with pytest.raises(RiyazError) as error:
            resolve({}, given)
        assert line_of(error).startswith(flag + ": ")


@pytest.mark.parametrize(
    ("given", "line"),
    [
        ({"lr": 0.0}, "--lr: 0.0 is too small; give more than 0"),
        ({"lr": 1.5}, "--lr: 1.5 is too large; give at most 1"),
        ({"dropout": 1.0}, "--dropout: 1.0 is too large; give less than 1"),
        ({"dropout": -0.1}, "--dropout: -0.1 is too small; give at least 0"),
        ({"seed": 2**31}, "--seed: 2147483648 is too large; give at most 2147483647"),
        ({"steps": 0}, "--steps: 0 is too small; give at least 1"),
        ({"validate_every": 2.5}, "--validate-every: 2.5 is not a whole number; correct the value"),
        ({"budget": "15"}, "--budget: '15' is not a duration; write it with its unit, such as 90s, 20m or 1h30m"),
        ({"size": "2m"}, "--size: unknown size '2m'; choose one of 1m, 5m, 15m, 50m"),
        ({"family": ["llama"]}, "--family: unknown family ['llama']; choose one of llama, gpt2, bitnet"),
    ],
)
def test_wrong_options_of_pretraining_are_named_as_flags(given, line):
    with pytest.raises(RiyazError) as error:
        PretrainConfig(**given)
    assert line_of(error) == line


def test_pretraining_knows_what_was_given():
    assert PretrainConfig().explicit() == {}
    config = PretrainConfig(seed=0, budget="2m", lr=1, dropout=0)
    assert config.explicit() == {"seed": 0, "budget": Seconds(120), "lr": 1.0, "dropout": 0.0}
    assert isinstance(config.budget, Seconds) and isinstance(config.lr, float)
    assert PretrainConfig(**json.loads(json.dumps(config.explicit()))) == config


def test_the_command_line_takes_flags_from_the_fields():
    app, seen = cyclopts.App(), []

    @app.default
    def command(config: CompareConfig = CompareConfig()):  # noqa: B008
        seen.append(config)

    words = ["--config.budget", "1h30m", "--config.methods", "lora,full", "--config.limit-train", "300"]
    app(words, exit_on_error=False, result_action="return_value")
    assert seen == [CompareConfig(budget=Seconds(5400), methods=("lora", "full"), limit_train=300)]


def test_config_imports_nothing_heavy():
    code = "import sys, riyaz.config, riyaz.data; print({'numpy', 'torch', 'cyclopts'} & set(sys.modules))"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "set()"


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("seed = " + "[" * 100_000, "nested too deeply"),
        ("a." * 20_000 + "b = 1", "a key has more than 500 parts"),
        ("seed = " + "9" * 5000, "holds a number with too many digits"),
        ("seed = 0x" + "f" * 5000, "seed: a number of thousands of digits is too large"),
        ("threads = 99999999", "threads: 99999999"),
        ("margin = " + "9" * 400, "margin: 9999"),
        ('budget = "' + "9" * 5000 + 's"', "budget: '9999"),
        ('out = "a\\u0000b"', "out: the path holds a NUL character"),
        ("unsafe_code = true", "unsafe_code: is for the command line alone; give --unsafe-code there"),
        ('places = "touch x"', "places: is for the command line alone; give --places there"),
        ('ray = "10.0.0.1:6379"', "ray: is for the command line alone; give --ray there"),
        ("\n".join(f"key_{number} = 1" for number in range(500)), "and 494 more"),
        ("model = [" + "1, " * 900 + "]", "model: [1, 1, 1"),
    ],
)
def test_what_a_file_may_hold_ends_in_one_short_line(tmp_path, text, says):
    path = tmp_path / "riyaz.toml"
    path.write_text(text)
    with pytest.raises(RiyazError) as refused:
        read_toml(path)
    line = line_of(refused)
    assert line.startswith(f"{path}: ") and says in line and len(line) < len(str(path)) + 700


def test_a_nul_in_a_path_is_refused_before_anything_is_written():
    with pytest.raises(RiyazError, match="--out: the path holds a NUL character"):
        CompareConfig(out=Path("a\0b"))
