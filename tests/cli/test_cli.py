"""The command line: what loads, what is documented, what a person sees, and how every error ends."""

import dataclasses
import errno
import importlib
import inspect
import json
import os
import signal
import subprocess
import sys
import types
from pathlib import Path

import pytest
from fake_comparison import arm, comparison, typed, typed_arm

from riyaz import extras
from riyaz.cli import main as cli
from riyaz.cli import options
from riyaz.cli.output import json_line
from riyaz.cli.reference import reference
from riyaz.comparison.plan import ComparisonPlan
from riyaz.comparison.run import DryRun
from riyaz.config import AdaptConfig, CompareConfig, DataConfig, PretrainConfig, Seconds
from riyaz.data.data_report import DataReport
from riyaz.errors import RiyazError
from riyaz.events import ArmDone, Estimate
from riyaz.json_files import to_document, write_json
from riyaz.results import Comparison

ROOT = Path(__file__).parents[2]
VERBS = [verb for verbs in cli.VERBS.values() for verb in verbs]
COMMANDS = [  # (words, module, help) of everything that is a function
    *((verb, verb, told) for verbs in cli.VERBS.values() for verb, told in verbs.items() if verb not in cli.NESTED),
    *((f"{verb} {name}", verb, told) for verb, names in cli.NESTED.items() for name, told in names.items()),
]
HEAVY = ("torch", "numpy", "scipy")
FEW = 300  # modules that `--help` imports at most, with those of Python's start
COMMAND = [sys.executable, "-m", "riyaz.cli.main"]


def fake(monkeypatch, name: str, **functions):
    """Put a module with these functions in place of a library module, whether it can be imported or not."""
    module = types.ModuleType(name)
    for key, value in functions.items():
        setattr(module, key, value)
    parent, _, child = name.rpartition(".")
    monkeypatch.setitem(sys.modules, name, module)
    monkeypatch.setattr(importlib.import_module(parent), child, module, raising=False)


def raising(error: BaseException):
    def function(*args, **known):
        raise error

    return function


@pytest.fixture(autouse=True)
def home(monkeypatch, tmp_path):
    monkeypatch.setenv("RIYAZ_HOME", str(tmp_path / "home"))
    for name in ("RIYAZ_TRACEBACK", "COLUMNS"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.chdir(tmp_path)
    return tmp_path / "home"


# what loads


def test_help_is_quick_and_loads_nothing_heavy():
    """Its .1 s are those of its imports, of which there are few."""
    code = "import sys; from riyaz.cli.main import main; main(['--help']); "
    code += f"print(set(sys.modules) & set({HEAVY!r}), len(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    heavy, modules = done.stdout.split()[-2:]
    assert heavy == "set()" and int(modules) < FEW
    assert all(f"  {verb}" in done.stdout for verb in VERBS)


def test_no_verbs_help_loads_anything_heavy():
    code = (
        "import sys; from riyaz.cli.main import main\n"
        f"codes = [main([*words.split(), '--help']) for words, _, _ in {COMMANDS!r}]\n"
        f"print(codes, set(sys.modules) & set({HEAVY!r}))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.rstrip().endswith(f"{[0] * len(COMMANDS)} set()")


def test_a_terminal_without_unicode_gets_escapes(tmp_path):
    rows = "".join(f"größe {i},{'ja' if i % 2 else 'nö'}\n" for i in range(30))
    (tmp_path / "rows.csv").write_text(f"text,label\n{rows}", encoding="utf-8")
    environment = os.environ | {"PYTHONIOENCODING": "ascii"}
    done = subprocess.run([*COMMAND, "data", "rows.csv"], capture_output=True, env=environment)
    assert done.returncode == 0 and b"n\\xf6: train" in done.stdout, done.stderr


# what is documented


def test_the_reference_page_is_what_the_program_says():
    page = (ROOT / "docs" / "reference.md").read_text(encoding="utf-8")
    assert page == reference(), "python -m riyaz.cli.reference > docs/reference.md"


@pytest.mark.parametrize(("words", "module", "told"), COMMANDS, ids=[words for words, _, _ in COMMANDS])
def test_every_verb_is_a_function_that_says_the_same_and_explains_every_option(words, module, told):
    function = getattr(importlib.import_module(f"riyaz.cli.{module}"), words.split()[-1])
    assert inspect.getdoc(function) == told + "."
    command = cli.build()
    for word in words.split():
        command = command[word]
    for argument in command.assemble_argument_collection().filter_by(parse=True):
        if argument.names and not argument.children:
            assert argument.parameter.help, f"{words} {argument.name} has no help"


def test_every_setting_is_a_flag_of_compare_with_its_own_default_and_help():
    arguments = {a.name: a for a in cli.build()["compare"].assemble_argument_collection() if not a.children}
    for config in (DataConfig, CompareConfig):
        for option in dataclasses.fields(config):
            flag = arguments["--" + option.name.replace("_", "-")]
            assert flag.field_info.default == option.default
            assert option.metadata["help"] in flag.parameter.help


# how errors end


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        (["compar"], "error: unknown command 'compar'; did you mean compare?; see riyaz --help"),
        (["wxyz"], "error: unknown command 'wxyz'; see riyaz --help"),
        (["rag", "ad"], "error: unknown command 'ad'; did you mean add?; see riyaz rag --help"),
        (["rag", "add", "x"], "error: PATH is missing; see riyaz rag add --help"),
        (["compare"], "error: DATA is missing; see riyaz compare --help"),
        (["compare", "x", "--budgt", "3m"], "error: unknown option: --budgt; did you mean --budget?"),
        (["compare", "x", "--budget"], "error: --budget needs a value; see riyaz compare --help"),
        (["compare", "x", "--budget", "20"], "error: --budget: '20' is not a duration"),
        (["compare", "x", "--margin", "u"], "error: invalid value for --margin"),
        (["compare", "x", "--margin", "3"], "error: --margin: 3.0 is too large; give at most 1"),
        (["compare", "x", "--metric", "bleu"], 'error: invalid value "bleu" for --metric. Choose from: "acc'),
        (["compare", "x", "y"], "error: unexpected 'y'; see riyaz compare --help"),
        (["compare", "x", "/"], "error: unexpected '/'; several files are one pattern in quotes"),
        (["adapt", "lora", "x"], "error: --out is missing; see riyaz adapt --help"),
        (["adapt", "lora", "x", "--out", "o", "--margin", "0.1"], "error: unknown option: --margin"),
        (["export", "x", "--format", "onnx", "--out", "o"], "error: invalid value"),
        (["data", "absent.jsonl"], "error: absent.jsonl: no such file"),
        (["pull", "no-such-model"], "error: there is no model or file named 'no-such-model'"),
    ],
)  # fmt: skip
def test_wrong_usage_is_one_line_and_exit_2(capsys, line, expected):
    assert cli.main(line) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith(expected) and err.count("\n") == 1, err


@pytest.mark.parametrize(
    ("error", "status", "expected"),
    [
        (RiyazError("is bad", "a.jsonl:17", "mend it"), 2, "error: a.jsonl:17: is bad; mend it\n"),
        (RiyazError("two\nlines"), 2, "error: two lines\n"),
        (KeyboardInterrupt(), 130, "stopped; run the same command again to continue\n"),
        (ModuleNotFoundError("No module named 'torch'", name="torch"), 2,
         "error: torch is not installed; in riyaz's folder: pip install -e '.[train]'\n"),
        (MemoryError(), 2, "error: out of memory; take a smaller model, close other programs"),
        (RuntimeError("[enforce fail at alloc_cpu.cpp:117] err == 0. DefaultCPUAllocator: can't allocate memory: you "
                      "tried to allocate 4000000000 bytes. Error code 12 (Cannot allocate memory)"), 2,
         "error: out of memory; "),
        (RuntimeError("can't start new thread"), 2, "error: out of memory; "),
        (ImportError("libtorch_cpu.so: failed to map segment from shared object"), 2, "error: out of memory; "),
        (OSError(errno.ENOSPC, "No space left on device", "/x/y"), 2,
         "error: /x/y: no space left on device; free some space and run the same command again\n"),
        (PermissionError(errno.EACCES, "Permission denied", "/x"), 2, "error: /x: permission denied\n"),
        (ValueError("embedded null byte"), 2, "error: a path holds a NUL character; no file can have that name\n"),
        (KeyError("a\nb"), 1, "error: unexpected KeyError: 'a\\nb'; this is a bug, RIYAZ_TRACEBACK=1"),
        (ModuleNotFoundError("No module named 'x'", name="x"), 1, "error: unexpected ModuleNotFoundError"),
    ],
)  # fmt: skip
def test_every_error_ends_in_one_line_and_its_status(monkeypatch, capsys, error, status, expected):
    fake(monkeypatch, "riyaz.comparison.run", compare=raising(error))
    assert cli.main(["compare", "x.jsonl"]) == status
    out, err = capsys.readouterr()
    assert out == "" and err.count("\n") == 1
    assert err.startswith(expected)


@pytest.mark.parametrize("line", [["data", "x", "--", "--json"], ["run", "x", "y", "--out", "z", "--", "--force"]])
def test_an_option_after_two_dashes_is_no_option(line, capsys):
    assert cli.main(line) == 2
    told = (
        f"error: {line[-1]} stands after --, where nothing is an option; write it before --; see riyaz {line[0]} --help"
    )
    assert capsys.readouterr().err == f"{told}\n"


def test_a_very_long_word_of_the_command_line_is_not_repeated_whole(capsys):
    for line in (["compare", "x", "--seed", "9" * 5000], ["compare", "x", *map(str, range(400))]):
        assert cli.main(line) == 2
        err = capsys.readouterr().err
        assert err.count("\n") == 1 and len(err) < 250 and "see riyaz compare --help" in err


@pytest.mark.parametrize("line", [["compare", "x"], ["adapt", "lora", "x", "--out", "o"], ["predict", "x"]])
def test_without_torch_one_line_says_how_to_get_it(monkeypatch, capsys, line):
    monkeypatch.setitem(sys.modules, "torch", None)
    for name in [name for name in sys.modules if name.startswith("riyaz.engine.torch_") or name == "riyaz.models"]:
        monkeypatch.delitem(sys.modules, name)
    if line[0] == "predict":
        import tiny_llama

        monkeypatch.setenv("RIYAZ_ENGINE", "torch")

        line = [*line, "--model", str(tiny_llama.write_hf_folder(Path("tiny")))]
    assert cli.main(line) == 2
    instead = ", or name methods that train nothing with --methods" if line[0] == "compare" else ""
    told = f"error: torch is not installed; in riyaz's folder: pip install -e '.[train]'{instead}\n"
    assert capsys.readouterr().err == told


@pytest.mark.parametrize(
    "line",
    [["compare", "x"], ["adapt", "linear", "x", "--out", "o"], ["data", "x"], ["evaluate", "x", "--test", "x"],
     ["limits", "x"], ["report", "x"]],
)  # fmt: skip
def test_what_compares_says_at_once_which_packages_are_missing(monkeypatch, capsys, line):
    for name in ("scipy", "matplotlib"):
        monkeypatch.setitem(sys.modules, name, None)
    assert cli.main(line) == 2
    told = "error: scipy and matplotlib are not installed; in riyaz's folder: pip install -e '.[compare]'\n"
    assert capsys.readouterr().err == told


@pytest.mark.parametrize("line", [["compare", "x", "--methods", "linear,lora"], ["adapt", "lora", "x", "--out", "o"]])
def test_one_line_has_all_that_a_named_method_needs(monkeypatch, capsys, line):
    for name in ("scipy", "torch"):
        monkeypatch.setitem(sys.modules, name, None)
    assert cli.main(line) == 2
    told = "error: torch and scipy are not installed; in riyaz's folder: pip install -e '.[train]'\n"
    assert capsys.readouterr().err == told


def test_of_a_wheel_the_hint_is_the_name_of_the_package(monkeypatch, tmp_path):
    monkeypatch.setattr(extras, "ROOT", tmp_path)
    assert extras.install("train") == "pip install 'riyaz[train]'"


def test_a_traceback_is_shown_when_asked_for(monkeypatch):
    fake(monkeypatch, "riyaz.comparison.run", compare=raising(RiyazError("bad")))
    monkeypatch.setenv("RIYAZ_TRACEBACK", "1")
    with pytest.raises(RiyazError):
        cli.main(["compare", "x.jsonl"])


@pytest.mark.parametrize("line", [["report", "results"], ["--help"]])
def test_a_reader_that_leaves_is_met_with_silence(line):
    write_json(Path("results/compare.json"), typed(comparison()))
    process = subprocess.Popen([*COMMAND, *line], stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    process.stdout.close()
    assert process.stderr.read() == b""
    assert process.wait() == 141


def stopped(name: str, before: str = "") -> subprocess.CompletedProcess:
    """`riyaz compare x` whose work is to send itself this signal."""
    code = (
        f"import os, signal, sys, types; from riyaz.cli.main import main; import riyaz.comparison\n{before}\n"
        f"run = types.ModuleType('run'); run.compare = lambda *a, **k: os.kill(os.getpid(), signal.{name})\n"
        "sys.modules['riyaz.comparison.run'] = riyaz.comparison.run = run; sys.exit(main(['compare', 'x']))"
    )
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)


@pytest.mark.parametrize("name", ["SIGINT", "SIGTERM", "SIGHUP"])
def test_ctrl_c_and_a_request_to_end_reach_the_person_as_one_line(name):
    heard = "signal.signal(signal.SIGHUP, signal.SIG_DFL)"  # nohup may have started the tests
    done = stopped(name, heard if name == "SIGHUP" else "")
    assert (done.returncode, done.stdout) == (130, "")
    assert done.stderr == "stopped; run the same command again to continue\n"


def test_a_command_under_nohup_goes_on_when_the_terminal_has_gone():
    done = stopped("SIGHUP", "signal.signal(signal.SIGHUP, signal.SIG_IGN)")
    assert done.returncode not in (130, -signal.SIGHUP) and "stopped" not in done.stderr


def test_the_library_keeps_the_handlers_of_its_program(capsys):
    before = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)]
    assert cli.main(["--version"]) == 0
    assert [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)] == before
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler, "the library keeps its own handler"


# compare and adapt


class Recorder:
    """Stands for `riyaz.comparison.run`: remembers what it was called with, sends events, writes the folder."""

    def __init__(self, comparison: Comparison) -> None:
        self.comparison = comparison

    def compare(self, data, data_config, config, *, command, began, listen):
        self.data, self.data_config, self.config, self.command = data, data_config, config, command
        listen(Estimate(60, 900, 10))
        listen(ArmDone(arm("nearest", score=0.5, ci_low=0.4, ci_high=0.6)))
        write_json(config.out / "compare.json", self.comparison)
        return self.comparison

    def dry_run(self, data, data_config, config, *, began, listen):
        estimate = {"seconds": 61.0, "peak_rss_mb": 900.0, "disk_mb": 10.0}
        report = DataReport({}, 0, 0, {}, {})
        return DryRun(estimate, ComparisonPlan(0, 1, "float32", (), 1, 1, 1, estimate), report, "closed")

    def adapt(self, method, data, data_config, config, continuing, *, command, began, listen):
        self.continuing = continuing
        self.method, self.data, self.data_config, self.config = method, data, data_config, config
        return typed_arm(method, score=0.5, ci_low=0.4, ci_high=0.6)


@pytest.fixture
def run(monkeypatch):
    recorder = Recorder(typed(comparison()))
    verbs = {"compare": recorder.compare, "dry_run": recorder.dry_run, "adapt": recorder.adapt}
    fake(monkeypatch, "riyaz.comparison.run", **verbs)
    return recorder


def test_compare_prints_the_table_on_stdout_and_talks_on_stderr(run, capsys):
    assert cli.main(["compare", "rows.jsonl", "--out", "results"]) == 0
    out, err = capsys.readouterr()
    assert out.startswith("method") and "The pick: lora (certified)" in out
    assert "estimate: 1m 00s" in err and "nearest: ok, accuracy 0.500" in err
    assert "results in results: report.html, report.md" in err
    assert Path("results/report.md").read_text().startswith("# The pick: lora (certified)")
    left = sorted(path.name for path in Path("results").iterdir())
    assert left == ["compare.json", "report.html", "report.md"], "no temporary file"


def test_compare_json_is_the_one_line_on_stdout(run, capsys):
    assert cli.main(["compare", "rows.jsonl", "--json"]) == 0
    out, err = capsys.readouterr()
    assert json.loads(out) == to_document(run.comparison) and out.count("\n") == 1
    assert "The pick: lora (certified)" in err


def test_the_command_line_is_handed_to_the_library(run, monkeypatch):
    monkeypatch.setattr("sys.argv", ["/usr/bin/riyaz", "compare", "my rows.jsonl"])
    assert cli.main() == 0
    assert run.command == "riyaz compare 'my rows.jsonl'"


def test_every_flag_arrives(run):
    line = [
        "compare", "rows.jsonl", "--model", "m", "--test", "t.jsonl", "--methods", "lora,nearest",
        "--methods", "full", "--budget", "1h30m", "--margin", "0.05", "--max-ms", "9", "--max-rss-mb", "800",
        "--max-forgetting", "0.1", "--limit-train", "300", "--limit-test", "200", "--general", "g.txt",
        "--allow-leakage", "--seed", "7", "--out", "o", "--prompt-column", "p", "--answer-column", "a",
        "--instruction", "I", "--metric", "chrf", "--task", "free",
    ]  # fmt: skip
    assert cli.main(line) == 0
    assert run.config == CompareConfig(
        model="m", test=Path("t.jsonl"), methods=("lora", "nearest", "full"), budget="1h30m", margin=0.05,
        max_ms=9, max_rss_mb=800, max_forgetting=0.1, limit_train=300, limit_test=200, general=Path("g.txt"),
        allow_leakage=True, seed=7, out=Path("o"),
    )  # fmt: skip
    expected = DataConfig(prompt_column="p", answer_column="a", instruction="I", metric="chrf", task="free")
    assert run.data_config == expected
    assert type(run.config) is CompareConfig and type(run.data_config) is DataConfig


def test_a_flag_wins_over_the_folders_toml_even_when_it_repeats_the_default(run):
    folder = Path("shop")
    folder.mkdir()
    folder.joinpath("riyaz.toml").write_text('margin = 0.3\nbudget = "5m"\ninstruction = "From the file."\n')
    assert cli.main(["compare", "shop", "--margin", str(CompareConfig().margin)]) == 0
    assert run.config.margin == CompareConfig().margin
    assert run.config.budget == 300
    assert run.data_config.instruction == "From the file."
    assert run.config.out == Path("riyaz-results/shop"), "the same command finds its results again"


def test_a_dry_run_writes_nothing(run, capsys):
    assert cli.main(["compare", "rows.jsonl", "--dry-run", "--json"]) == 0
    out, err = capsys.readouterr()
    assert json.loads(out)["estimate"]["seconds"] == 61
    assert "estimate: 1m 01s, 900 MB of memory, 10 MB of disk" in err
    assert not Path("riyaz-results").exists()


def test_adapt_runs_one_method(run, capsys):
    assert cli.main(["adapt", "lora", "rows.jsonl", "--out", "o", "--budget", "3m", "--json"]) == 0
    out, _ = capsys.readouterr()
    assert (run.method, run.config.out, run.config.budget) == ("lora", Path("o"), 180)
    assert json.loads(out)["method"] == "lora" and run.continuing == AdaptConfig()


def test_every_flag_of_adapt_alone_arrives(run):
    line = ["adapt", "lora", "rows.jsonl", "--out", "o", "--model", "m", "--from", "a", "--earlier-test", "t.jsonl"]
    assert cli.main(line) == 0
    assert run.continuing == AdaptConfig(from_=Path("a"), earlier_test=Path("t.jsonl")) and run.config.model == ("m",)


def test_every_flag_of_pretraining_arrives(monkeypatch):
    seen = []

    def train(paths, config, out, *, resume, command, listen):
        seen.append((paths, config, out, resume))
        raise RiyazError("enough")

    fake(monkeypatch, "riyaz.pretraining.run", pretrain=train)
    line = [
        "pretrain", "a.txt", "b.txt", "--out", "o", "--tokenizer", "chars", "--size", "5m", "--budget", "1h30m",
        "--family", "gpt2", "--context", "64", "--layers", "2", "--heads", "4", "--width", "128", "--batch", "8",
        "--steps", "9", "--lr", "0.001", "--dropout", "0.1", "--compute", "float32", "--validate-every", "3",
        "--checkpoint-every", "4", "--local-steps", "5", "--seed", "7", "--threads", "3", "--prompt", "Le renard",
        "--ternary", "--resume",
    ]  # fmt: skip
    assert cli.main(line) == 2
    config = PretrainConfig(
        tokenizer="chars", size="5m", budget=Seconds("1h30m"), family="gpt2", context=64, layers=2, heads=4, width=128,
        batch=8, steps=9, lr=0.001, dropout=0.1, compute="float32", validate_every=3, checkpoint_every=4, seed=7,
        threads=3, prompt="Le renard", ternary=True, local_steps=5,
    )  # fmt: skip
    assert seen == [((Path("a.txt"), Path("b.txt")), config, Path("o"), True)]
    assert None not in dataclasses.asdict(config).values()


# small verbs


@pytest.mark.parametrize("verb", ["doctor", "info"])
def test_the_doctor_says_what_a_bug_report_needs(monkeypatch, capsys, verb):
    monkeypatch.setattr(extras, "_tried", lambda name: "")  # tests/cli/test_extras.py imports them
    assert cli.main([verb, "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert document["absent"] == {"compare": [], "train": []}
    assert document["writable"] == {document["home"]: True, str(Path.cwd()): True}
    assert document["versions"]["riyaz"] and document["hardware"]["cores"] >= 1
    assert document["home"] == os.environ["RIYAZ_HOME"] and document["models"] == []


def test_the_doctor_says_what_is_wrong(monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "scipy", None)
    monkeypatch.setattr(extras, "_tried", lambda name: "")
    monkeypatch.setattr(os, "access", lambda path, mode: False)
    assert cli.main(["doctor"]) == 0
    out = " ".join(capsys.readouterr().out.split())
    assert "compare scipy missing; in riyaz's folder: pip install -e '.[compare]'" in out
    assert f"this folder {Path.cwd()}, cannot be written" in out


def test_models_lists_the_cache_and_what_could_be_pulled(capsys):
    assert cli.main(["models"]) == 0
    out, err = capsys.readouterr()
    assert out == "" and "smollm2-135m is not in the cache; get it with riyaz pull smollm2-135m" in err


def test_json_is_strict_and_takes_what_documents_hold():
    class Array:
        def tolist(self):
            return [1.5, float("nan")]

    line = json_line({"a": float("inf"), "b": Path("x"), "c": Array(), "d": (1, True, None), 5: "नमस्ते\ud800"})
    assert json.loads(line) == {
        "a": None,
        "b": "x",
        "c": [1.5, None],
        "d": [1, True, None],
        "5": "नमस्ते\ud800",
    }
    assert line.isascii() and line.count("\n") == 1


@pytest.mark.parametrize(
    ("program", "began"), [("/usr/bin/riyaz", 93.0), ("riyaz/cli/main.py", 93.0), ("pytest", 100.0)]
)
def test_a_command_begins_with_its_process_unless_that_is_a_callers(
    monkeypatch: pytest.MonkeyPatch, program: str, began: float
) -> None:
    monkeypatch.setattr(options.hardware, "process_seconds", lambda: 7.0)
    monkeypatch.setattr(options.time, "monotonic", lambda: 100.0)
    monkeypatch.setattr(options.sys, "argv", [program, "compare", "rows.jsonl"])
    assert options.command_began() == began
