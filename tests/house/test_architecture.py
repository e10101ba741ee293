"""The house rules hold in this repository, and each of them is red on a small tree that breaks it."""

import gc
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import clocks
import house_rules as rules
import one_home
import owners
import pytest
from house_names import method_names, vague_names

Rule = Callable[[Path], list[str]]
SRC = rules.ROOT / "src"
HELP_CALLS = 500_000  # calls and returns of `riyaz --help`, which has 360,000, most of cyclopts; numpy's import 290,000
HELP = "sys.argv = ['riyaz', '--help']; from riyaz.cli.main import main; main()"
PACKAGE_RULES: list[Rule] = [
    *(rules.rows, rules.sides, rules.torch_use, rules.cycles, rules.family_names, rules.public_faces),
    *(one_home.default_homes, one_home.result_homes),
    *(owners.hung_state, vague_names),
]
REPOSITORY_RULES: list[Rule] = [
    *(rules.sizes, rules.function_sizes, rules.unsafe_code, rules.unsafe_text),
    *(rules.torch_requirement, rules.weak_tests, rules.environment_variables, rules.predictor_kinds),
    *(method_names, clocks.clock_uses),
]
PYPROJECT = '[project]\ndependencies = ["numpy"]\n[project.optional-dependencies]\n'
LONG = "def long() -> None:\n" + "    pass\n" * 91
LLAMA = {"families/llama.py": "MODEL_TYPE = 'llama'\nGGUF_NAMES = ('meta',)\nclass LlamaConfig: ..."}
ALLOWED = {"../../tests/house/clocks.json": '{"tests/a.py": 1}'}
PYPI, HOME = "https://p" + "ypi.org/simple", "/ho" + "me/someone/data"

# (rule, files of a bad tree, what its report must say)
BAD: list[tuple[Rule, dict[str, str], str]] = [
    (rules.rows, {"errors.py": "", "novel.py": ""}, "`novel` has no row"),
    (rules.rows, {"config.py": "from riyaz.data import x", "data/__init__.py": ""}, "comes later"),
    (rules.rows, {"data/__init__.py": "", "sources.py": "import riyaz.data"}, "comes later"),
    (rules.rows, {"metrics/a.py": "def f():\n    from riyaz import scoring", "scoring.py": ""}, "metrics.a:2 imports"),
    (rules.rows, {"data/rows.py": "from ..engine import trie", "engine/trie.py": ""}, "imports riyaz.engine.trie"),
    (
        rules.rows,
        {"artifact.py": "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    import riyaz.cli", "cli.py": ""},
        "artifact:3 imports riyaz.cli",
    ),
    (
        rules.rows,
        {"scoring.py": "import importlib\nimportlib.import_module('riyaz.comparison')", "comparison.py": ""},
        "scoring:2 imports riyaz.comparison",
    ),
    (rules.rows, {"data.py": "TABLE = {'a': 'riyaz.cli.main:run'}", "cli/main.py": ""}, "imports riyaz.cli.main"),
    (rules.rows, {"evaluate.py": "from riyaz.methods import lora", "methods/lora.py": ""}, "never a method"),
    (rules.rows, {"serve.py": "from riyaz.methods import lora", "methods/lora.py": ""}, "predictors only"),
    (rules.rows, {"report.py": "from riyaz import metrics", "metrics.py": ""}, "result files only"),
    (rules.sides, {"scoring.py": "from riyaz import models", "models.py": ""}, "across the dot"),
    (rules.sides, {"train.py": "def f():\n    import riyaz.engine.trie", "engine/trie.py": ""}, "across the dot"),
    (rules.torch_use, {"metrics.py": "def f():\n    from torch import nn"}, "metrics:2 imports torch"),
    (rules.torch_use, {"methods/lora.py": "import torch"}, "importing it loads torch"),
    (
        rules.torch_use,
        {
            "cli.py": "from riyaz.comparison import run",
            "comparison.py": "from riyaz import train",
            "train.py": "import torch",
        },
        "riyaz.cli > riyaz.comparison > riyaz.train > torch",
    ),
    (
        rules.torch_use,  # a package's __init__ runs before its modules
        {
            "predictor.py": "from riyaz.engine.trie import T",
            "engine/trie.py": "",
            "engine/__init__.py": "from .torch import runner",
            "engine/torch/runner.py": "import torch",
        },
        "riyaz.predictor: importing it loads torch",
    ),
    (rules.torch_use, {"__init__.py": "from riyaz import train", "train.py": "import torch"}, "riyaz: importing it"),
    (rules.cycles, {"data/a.py": "from riyaz.data import b", "data/b.py": "def f():\n    from .a import x"}, "cycle"),
    (rules.cycles, {"data/__init__.py": "from .a import f", "data/a.py": "from riyaz.data import g"}, "import cycle"),
    (
        rules.family_names,
        LLAMA | {"engine.py": "def f(c): return c.model_type == 'llama'"},
        "asks for the family 'llama'",
    ),
    (rules.family_names, LLAMA | {"library.py": "A = Literal['llama'] | None"}, "library:1 asks"),
    (rules.family_names, LLAMA | {"config/pretraining.py": "SIZES = {'llama': 3}"}, "config.pretraining:1 asks"),
    *(
        (rules.family_names, LLAMA | {"engine.py": f"from riyaz.families{line}"}, "engine:2 asks for the family")
        for line in (
            " import llama\nB = A.kind in llama.GGUF_NAMES",
            " import llama\nB = isinstance(A, llama.LlamaConfig)",
            " import llama\nB = {llama.MODEL_TYPE: 1}",
            ".llama import LlamaConfig as C\nB = isinstance(A, C)",
            ".llama import MODEL_TYPE\nB = A == MODEL_TYPE",
        )
    ),
    (
        rules.predictor_kinds,
        {"serve/chat.py": "def f(p):\n    return isinstance(p, Free | CopyPredictor)"},
        "chat.py:2 asks a predictor",
    ),
    (rules.predictor_kinds, {"drift.py": "x = type(p) is not predictor.FreePredictor"}, "asks a predictor"),
    *(
        (rules.predictor_kinds, {"drift.py": line}, "drift.py:1 asks a predictor")
        for line in (
            "x = p.__class__ == Predictor",
            "x = CopyPredictor is type(p)",
            "x = p.lm != None",
            "x = getattr(p, 'lm', None)",
            "from riyaz.predictor import CopyPredictor as Copy",
        )
    ),
    (
        rules.predictor_kinds,
        {"drift.py": "match p:\n    case PromptedModel():\n        pass"},
        "drift.py:2 asks a predictor",
    ),
    (rules.predictor_kinds, {"../../benchmarks/a.py": "x = 1 if p.a.lm is not None else 2"}, "a.py:1 asks a predictor"),
    (rules.public_faces, {"errors.py": "x = 1"}, "module without a docstring"),
    (rules.public_faces, {"errors.py": '"""D."""\nclass A:\n    pass'}, "A without a docstring"),
    (rules.public_faces, {"errors.py": '"""D."""\ndef f() -> int: ...'}, "f without a docstring"),
    (rules.public_faces, {"errors.py": '"""D."""\ndef f(a, *, b: int) -> int:\n    """F."""'}, "no type for `a`"),
    (
        rules.public_faces,
        {"errors.py": '"""D."""\nclass A:\n    """A."""\n    def f(self):\n        """F."""'},
        "no return",
    ),
    (one_home.default_homes, {"cli/a.py": "BUDGET = Seconds('20m')"}, "cli.a:1 Seconds('20m'), a default outside"),
    (
        one_home.default_homes,
        {"config/a.py": "class A:\n    margin: float = option(0.02, 'help')", "pick.py": "def f(a, margin=0.02): ..."},
        "pick:1 f(margin=0.02) repeats",
    ),
    (
        one_home.default_homes,
        {"config/a.py": "class A:\n    budget: int = option(9, 'help')", "cli.py": "def f(*, a=1, budget=9): ..."},
        "cli:1 f(budget=9) repeats",
    ),
    (
        one_home.result_homes,
        {"pretraining/a.py": "class A:\n    schema: Literal[1] = 1"},
        "pretraining.a:1 A has a schema",
    ),
    (owners.hung_state, {"layers/a.py": "def f(module, x):\n    module.total = x"}, "layers.a:2 sets module.total"),
    (owners.hung_state, {"layers/a.py": "def f(m, g):\n    m.forward = g"}, "sets m.forward"),
    (owners.hung_state, {"models/a.py": "for out._recipe in (): pass"}, "sets out._recipe"),
    (owners.hung_state, {"train.py": "total = getattr(head, 'total', None)"}, "train:1 asks for 'total'"),
    (owners.hung_state, {"layers/a.py": "hasattr(linear, 'totals')"}, "asks for 'totals'"),
    (owners.hung_state, {"train.py": "sums = GradientSums({})"}, "calls GradientSums"),
    (owners.hung_state, {"layers/a.py": "setattr(x, name, 1)"}, "calls setattr"),
    (owners.hung_state, {"layers/a.py": "vars(m)['total'] = x"}, "sets vars(m)['total']"),
    (owners.hung_state, {"layers/a.py": "m.__dict__['total'] = x"}, "sets m.__dict__['total']"),
    (owners.hung_state, {"layers/a.py": "vars(m).update(total=x)"}, "calls vars(m).update"),
    (owners.hung_state, {"layers/a.py": "object.__setattr__(m, 'total', x)"}, "calls object.__setattr__"),
    (owners.hung_state, {"layers/a.py": "m.register_buffer('total', x)"}, "calls m.register_buffer"),
    (rules.sizes, {"errors.py": "\n" * 500}, "501 lines"),
    (rules.sizes, {"../../native/kernels/a.cpp": "\n" * 400}, "a.cpp: 401 lines > 400"),
    (rules.sizes, {"../../native/a.h": "\n" * 400}, "a.h: 401 lines > 400"),
    (rules.function_sizes, {"errors.py": LONG}, "long has 92 lines"),
    (rules.function_sizes, {"train.py": LONG + LONG.replace("long", "two")}, "two has 92 lines"),
    (rules.function_sizes, {"train.py": LONG + "    pass\n" * 60}, "long has 152 lines"),
    (
        rules.function_sizes,
        {
            f"data/{n}.py": LONG[: len("def long() -> None:\n") + 9 * lines]
            for n, lines in enumerate([9] * 8 + [60] * 2)
        },
        "90th percentile",
    ),
    (rules.unsafe_code, {"errors.py": "import pickle"}, "errors.py:1 pickle"),
    (rules.unsafe_code, {"errors.py": "from torch import load"}, "torch.load"),
    (rules.unsafe_code, {"errors.py": "import torch as t\nt.load('x')"}, "errors.py:2 torch.load"),
    (rules.unsafe_code, {"errors.py": "eval('1')"}, "eval"),
    (rules.unsafe_code, {"errors.py": "exec('1')"}, "exec"),
    (rules.unsafe_code, {"errors.py": "run = exec"}, "errors.py:1 exec"),
    (rules.unsafe_code, {"errors.py": "import subprocess\nsubprocess.run('ls', shell=True)"}, "shell="),
    (rules.unsafe_code, {"errors.py": "load('x', trust_remote_code=False)"}, "trust_remote_code="),
    (rules.unsafe_text, {"errors.py": f"# {PYPI}"}, "a registry host"),
    (rules.unsafe_text, {"../../native/a.cpp": f"// {HOME}/x"}, "a machine path"),
    (rules.unsafe_text, {"errors.py": f"PATH = '{HOME}/x'"}, "a machine path"),
    (rules.unsafe_text, {"../../Makefile": "pip install --index" + "-url x"}, "an index URL"),
    (rules.torch_requirement, {"../../pyproject.toml": PYPROJECT + 'train = ["torch==2.8"]'}, "not a range"),
    (rules.torch_requirement, {"../../pyproject.toml": PYPROJECT + 'train = ["torch>=2.8+cpu"]'}, "not a range"),
    (rules.torch_requirement, {"../../pyproject.toml": PYPROJECT + 'x = ["torch>=2.8"]'}, "not in `train`"),
    (rules.weak_tests, {"../../tests/test_a.py": "def test_a():\n    print(1)"}, "test_a asserts nothing"),
    (rules.weak_tests, {"../../tests/test_a.py": "X = 1"}, "no test functions"),
    (rules.weak_tests, {"../../tests/test_a.py": "import pytest\npytest.importorskip('x')"}, "never skips"),
    (
        rules.environment_variables,
        {"errors.py": "NAME = 'RIYAZ_NOVEL'"},
        "errors.py reads RIYAZ_NOVEL, not in reference.md",
    ),
    (rules.environment_variables, {"../../native/a.cpp": 'std::getenv("RIYAZ_NOVEL")'}, "a.cpp reads RIYAZ_NOVEL"),
    (rules.environment_variables, {"../../docs/reference.md": "| `RIYAZ_OLD` | x |"}, "nothing reads RIYAZ_OLD"),
    *(
        (method_names, {"methods/lora.py": "", "report/a.py": line}, "report/a.py:1 asks")
        for line in (
            "a = arm.method == 'lora'",
            "a = arm.method in ('lora', 'b')",
            "A = {'lora': 'Small matrices'}",
            "a = METHODS['lora']",
            "A = ['lora']",
            "a = name.endswith('lora')",
            "CURVE = 'lora'",
            "a = comparison.arm(method='lora')",
            "from riyaz.methods import lora",
            "from riyaz.methods.lora import RECIPE",
        )
    ),
    (
        method_names,
        {"methods/lora.py": "", "report/a.py": "match x:\n    case 'lora':\n        pass"},
        "report/a.py:2 asks",
    ),
    (method_names, {"methods/lora.py": "", "../../page/src/a.tsx": "\n  lora: 5,"}, "page/src/a.tsx:2 asks"),
    (method_names, {"methods/lora.py": "", "../../page/src/a.ts": 'if (a === "lora")'}, "page/src/a.ts:1 asks"),
    (method_names, {"methods/lora.py": "", "../../page/src/a.ts": "const a = { lora: 5 }"}, "page/src/a.ts:1 asks"),
    (clocks.clock_uses, {"../../tests/a.py": "import time\ntime.sleep(1)"}, "tests/a.py:2 sleeps: time.sleep(1)"),
    (clocks.clock_uses, {"../../page/tests/a.py": "thread.join(9)"}, "page/tests/a.py: 1 uses of a clock, 0 allowed"),
    (clocks.clock_uses, {"../../tests/a.py": "", **ALLOWED}, "tests/a.py: 0 uses of a clock, 1 in"),
    (clocks.clock_uses, ALLOWED, "tests/a.py: stands in tests/house/clocks.json and is gone"),
    (vague_names, {"a.py": "def make() -> int: ..."}, "a.py:1 make names no object"),
    (vague_names, {"a.py": "class A:\n    asked: int"}, "a.py:2 asked names no thing"),
    (vague_names, {"a.py": "def f(given: int): ..."}, "a.py:1 given names no thing"),
    (vague_names, {"a.py": "def f():\n    def told(): ..."}, "a.py:2 told names no thing"),
]

# What the rules must leave alone.
GOOD: list[tuple[Rule, dict[str, str]]] = [
    (rules.rows, {"events.py": "RUN = [PYTHON, '-m', 'riyaz.cli']", "cli.py": "", "__init__.py": "import riyaz.cli"}),
    (rules.rows, {"engine/torch/runner.py": "from riyaz.layers import lora", "layers/swaps/lora.py": ""}),
    (rules.sides, {"engine/torch/runner.py": "from riyaz import models", "models.py": ""}),
    (rules.torch_use, {"methods/lora.py": "def fit():\n    import torch", "engine/torch/runner.py": "import torch"}),
    (rules.cycles, {"data/__init__.py": "from .a import f", "data/a.py": "from riyaz.data import b", "data/b.py": ""}),
    (
        rules.family_names,
        LLAMA
        | {
            "models/llama.py": "A = B == 'llama'",
            "config/pretraining.py": "FreshFamily = Literal['llama']",
            "text/tokenizer_gguf.py": "def f(kind): return kind == 'llama'",
            "engine.py": "A, B = 'llama-bpe', llama.MODEL_TYPE\nC = D.model_type in FAMILIES",
        },
    ),
    (
        rules.predictor_kinds,
        {
            "predictor/kinds.py": "x = isinstance(p, CopyPredictor) or p.lm is None",
            "drift.py": "x = p.has_model and p.lm is base.lm and isinstance(p, dict) and type(x) is Linear",
            "../../tests/test_a.py": "assert isinstance(p, CopyPredictor)",
        },
    ),
    (
        rules.public_faces,
        {"__init__.py": '"""D."""', "errors.py": '"""D."""\ndef _f(a): ...\nclass _A:\n    def f(self): ...'},
    ),
    (
        one_home.default_homes,
        {
            "config/a.py": "class A:\n    budget: int = option(9, 'help')\n    seed: int = option(0, 'help')",
            "cli.py": "def f(seconds, budget=None, seed=0, other=9): Seconds(seconds)",
        },
    ),
    (
        one_home.result_homes,
        {"results/a.py": "class A:\n    schema: Literal[1] = 1", "a.py": "class A:\n    schema: B"},
    ),
    (
        owners.hung_state,
        {
            "layers/masters.py": "def f(self, ctx, w):\n    self.sums = ctx.total = GradientSums()\n    w.grad = None\n"
            "    vars(self).update(vars(w))\n    self.__dict__['a'] = 1\n    self.register_buffer('b', w)",
            "layers/swap.py": "setattr(model, name, module)\ngetattr(config, 'logit_cap', None)\ngetattr(torch, kind)",
            "report.py": "arm.total = 1",
        },
    ),
    (rules.function_sizes, {"train.py": LONG}),
    (rules.unsafe_code, {"errors.py": "model.eval()\nre.compile('x')\nrun('ls', shell=False)"}),
    (rules.unsafe_text, {"errors.py": "# see ../shared/framework/x and data/home/x"}),
    (rules.torch_requirement, {"../../pyproject.toml": PYPROJECT + 'train = ["torch>=2.8,<3"]'}),
    (rules.weak_tests, {"../../tests/test_a.py": "def same(a): assert a\ndef test_a():\n    same(1)"}),
    (
        rules.environment_variables,
        {"a.py": "NAME = 'RIYAZ_NEW'", "b.py": "X = 'RIYAZ_PARENT'", "../../docs/reference.md": "| `RIYAZ_NEW` | x |"},
    ),
    (clocks.clock_uses, {"../../tests/a.py": "import time\ntime.sleep(1)", **ALLOWED}),
    (
        method_names,
        {
            "methods/lora.py": "A = ['lora']",
            "adapters/a.py": "A = ['lora']",
            "report/a.py": "a = weights.kind in ('lora', 'full')\nb = kind == 'lora'\nc = 'no lora'",
            "../../page/src/a.tsx": "explore: 5, // lora",
        },
    ),
    (
        vague_names,
        {
            "a.py": "class A:\n    def keep(self): f(asked=run.asked)\ndef make_plan(): ...",
            "results/pretraining.py": "class PretrainRun:\n    asked: dict",
        },
    ),
]


def tree(folder: Path, files: dict[str, str]) -> Path:
    """A repository whose package holds the given files; returns its root."""
    for name, text in {"__init__.py": "", **files}.items():
        path = folder / "src/riyaz" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        for parent in path.parents:
            if folder / "src/riyaz" in parent.parents and not (parent / "__init__.py").exists():
                (parent / "__init__.py").write_text("")
        path.write_text(text + "\n")
    return folder


@pytest.fixture(scope="module", autouse=True)
def without_collections() -> Iterator[None]:
    """The trees of 1,200 files are a million and a half objects: to look through them for garbage, again and again,
    takes longer than all rules."""
    gc.disable()
    yield
    gc.enable()


def run(rule: Rule, root: Path) -> list[str]:
    return rule(root / "src" if rule in PACKAGE_RULES else root)


@pytest.mark.parametrize("rule", PACKAGE_RULES + REPOSITORY_RULES, ids=lambda rule: rule.__name__)
def test_rule_holds_in_this_repository(rule: Rule) -> None:
    problems = run(rule, rules.ROOT)
    assert not problems, "\n" + "\n".join(problems)


@pytest.mark.parametrize(("rule", "files", "says"), BAD, ids=lambda value: getattr(value, "__name__", ""))
def test_rule_reports_a_bad_tree(tmp_path: Path, rule: Rule, files: dict[str, str], says: str) -> None:
    assert says in "\n".join(run(rule, tree(tmp_path, files)))


@pytest.mark.parametrize(("rule", "files"), GOOD, ids=lambda value: getattr(value, "__name__", ""))
def test_rule_leaves_a_good_tree_alone(tmp_path: Path, rule: Rule, files: dict[str, str]) -> None:
    assert run(rule, tree(tmp_path, files)) == []


def test_every_rule_was_seen_red_and_green() -> None:
    assert {rule for rule, *_ in BAD} == {*PACKAGE_RULES, *REPOSITORY_RULES}
    assert {rule for rule, _ in GOOD} >= {*PACKAGE_RULES, *REPOSITORY_RULES} - {rules.sizes}


def test_the_rules_see_this_package() -> None:
    assert {"riyaz", "riyaz.errors", "riyaz.hardware"} <= rules.modules(SRC).keys()
    assert any(item.target == "riyaz.errors" for item in rules.imports(SRC))
    assert rules.ROOT / "tests/house/test_architecture.py" in rules.python_files(rules.ROOT)


def test_files_that_git_ignores_are_not_read(tmp_path: Path) -> None:
    root = tree(tmp_path, {"../../.gitignore": "/runs/\n", "../../runs/log.md": PYPI, "../../.venv/x.md": PYPI})
    assert rules.unsafe_text(root) == []


def fresh_process(statements: str, path: Path, before: str, after: str) -> list[str]:
    """The words that `after` prints behind LOADED in a fresh process that has run the other two."""
    code = f"import sys\n{before}\ntry:\n    {statements}\nexcept SystemExit:\n    pass\n{after}"
    environment = os.environ | {"PYTHONPATH": str(path)}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment)
    last = (done.stdout.splitlines() or [""])[-1]
    assert done.returncode == 0 and last.startswith("LOADED"), done.stderr
    return last.split()[1:]


def heavy_modules(statements: str, path: Path) -> list[str]:
    """Of torch, numpy and scipy: what a fresh process has loaded after running the statements."""
    report = "print('LOADED', *(m for m in ('torch', 'numpy', 'scipy') if m in sys.modules))"
    return fresh_process(statements, path, "", report)


def function_calls(statements: str, path: Path) -> int:
    """The calls of functions and the returns from them that the statements cause in a fresh process."""
    count = "calls = [0]\ndef count(*event):\n    calls[0] += 1\nsys.setprofile(count)"
    return int(fresh_process(statements, path, count, "sys.setprofile(None)\nprint('LOADED', calls[0])")[0])


@pytest.mark.parametrize("statements", ["import riyaz", HELP], ids=["import", "help"])
def test_import_and_help_load_neither_torch_nor_numpy_nor_scipy(statements: str) -> None:
    assert heavy_modules(statements, SRC) == []


def test_a_heavy_import_is_seen(tmp_path: Path) -> None:
    assert heavy_modules("import riyaz", tree(tmp_path, {"__init__.py": "import numpy"}) / "src") == ["numpy"]


def test_help_does_little() -> None:
    assert function_calls(HELP, SRC) < HELP_CALLS


def test_a_slow_start_is_seen(tmp_path: Path) -> None:
    slow = tree(tmp_path, {"__init__.py": "for n in range(10**6): abs(n)"}) / "src"
    assert function_calls("import riyaz", slow) > HELP_CALLS
