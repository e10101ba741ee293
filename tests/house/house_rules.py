"""The house rules as pure functions over a source tree: each returns its problems as `file:line what`.

`src` is a folder that holds the package `riyaz`; `root` is a repository. tests/house/test_architecture.py runs
every rule on this repository and on small bad trees that it must report. Run one by hand:
`PYTHONPATH=tests/house python -c "import house_rules as h; print(h.rows(h.ROOT / 'src'))"`.
"""

import ast
import math
import os
import re
import statistics
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

ROOT = Path(__file__).parents[2]

FIRST = ("errors", "system", "commit")
# A module imports from earlier rows, and inside its row from names written before it. Each row is
# (inferring side and shared, training side); only the training side imports torch.
ROWS: tuple[tuple[tuple[str, ...], tuple[str, ...]], ...] = (
    ((*FIRST, "config", "hardware", "files", "json_files", "folders", "events", "ranks", "extras"), ()),
    (("native", "confined", "child", "text", "sources", "data", "families"), ()),
    (("metrics", "results", "artifact", "adapters"), ()),
    (("engine",), ("layers", "models")),
    (
        ("retrieval", "prompting", "classifiers", "predictor", "scoring", "precisions", "rehearsal", "teacher"),
        ("checkpoint", "train", "preferences", "pace", "joining"),
    ),
    (("methods", "quality", "drift", "evaluate", "scored_columns", "target_scores", "limits", "inside", "export"), ()),
    (("comparison", "pretraining", "ternarizing", "report", "card", "serve", "verifying"), ()),
    (("library", "lm_eval", "cli", "__main__"), ()),
)
ORDER = {name: (row, place) for row, sides in enumerate(ROWS) for place, name in enumerate(sides[0] + sides[1])}
INFERRING = {name for left, right in ROWS if right for name in left}
TRAINING = {name for _, right in ROWS for name in right}
STAND_IN = "riyaz.engine.torch"  # the Runner in torch: the one place where the inferring side touches the training side
# inside functions only
LAZY_TORCH = {"methods", "evaluate", "export", "comparison", "pretraining", "ternarizing", "cli", "__main__"}
NEVER = {
    ("evaluate", "methods"): "evaluate sees a Predictor, never a method",
    ("target_scores", "methods"): "target_scores sees a Predictor, never a method",
    ("inside", "methods"): "inside sees a Predictor, never a method",
    ("limits", "methods"): "limits sees a Predictor, never a method",
    **{
        ("serve", name): "serve opens predictors only"
        for name in ("methods", "evaluate", "comparison", "pretraining", "ternarizing")
    },
}
KIND = r"(Predictor|PromptedModel)\b"
ASKS_PREDICTOR = re.compile(
    rf"(isinstance\(|issubclass\(|type\(|\S+\.__class__ |case ).*{KIND}|.*{KIND} (is|is not|==|!=) type\("
    rf"|\S*\.lm (is|is not|==|!=) None|(has|get)attr\(.*'lm'|import \w*{KIND} as "
)

FAMILY_NAMES = {"MODEL_TYPE", "TEXT", "GGUF_NAMES"}  # what a module in families/ calls the names of its family
# Where a family's name may stand outside families/ and models/, as module or module:name.
FAMILY_EXEMPT = {
    "config.pretraining:FreshFamily": "`config` imports nothing; a test compares this one Literal with families.FRESH",
    "sources.source:EMBEDDERS": "asked before the family is known; a test compares it with families.EMBEDDERS",
    "sources.gguf_vocabulary": "kinds of GGUF tokenizers",
    "text.tokenizer_gguf": "kinds of GGUF tokenizers",
}
REPORT = {"errors", "files", "json_files", "events", "results"}  # what the report may import

INTERNAL = {"RIYAZ_STRICT", "RIYAZ_PARENT", "RIYAZ_UNSAFE_CODE"}  # of the build and of workers, which no user sets
FILE_LINES, CPP_LINES, FUNCTION_P90, FUNCTION_LINES, LOOP_LINES = 500, 400, 45, 90, 150
UNSAFE_IMPORTS = {"pickle", "cPickle", "_pickle", "dill", "cloudpickle", "marshal", "shelve", "joblib"}
UNSAFE_CALLS = {"eval", "exec", "torch.load", "os.system", "os.popen", "subprocess.getoutput"}
UNSAFE_NAMES = {"eval", "exec"}  # also where they only get another name
UNSAFE_EXEMPT = {  # file -> the one name that may stand in it
    "src/riyaz/metrics/code_worker.py": ("exec", "pass@1 runs generated code, in a process that is confined"),
    "tests/helpers/forked_ranks.py": ("exec", "runs a test's own program in a fork that has imported torch"),
    "tests/house/test_readme.py": ("exec", "runs the README's program of a client as its reader does"),
}
UNSAFE_KEYWORDS = {"shell", "allow_pickle", "trust_remote_code"}
NO_SHELL = "src/riyaz/cli/completion.py"  # names the shell that will read its script
# Spelled with brackets so that this file does not match itself.
UNSAFE_TEXT = {
    "a registry host": re.compile(
        r"p[y]pi\.|p[y]thonhosted|n[p]mjs\.|d[e]b\.debian|download\.p[y]torch|a[n]aconda\.|crates\.[i]o"
    ),
    "an index URL": re.compile(r"--(extra-)?index-[u]rl"),
    "a machine path": re.compile(r"(?<![\w.])/(?:w[o]rk|r[o]ot|f[a]rm|h[o]me/(?!me\b)[\w-]+|U[s]ers/[\w-]+)/"),
}
# They need a browser, a balancer, systemd, sshd, clang, or a compiler and an emulator of another CPU, which no package
# of Python brings, or Ray, 260 MB: only they may skip.
MAY_SKIP = {"test_deploy.py", "test_fuzz_native.py", "test_html_browser.py", "test_native_cross.py",
            "test_places_ssh.py", "test_ray.py", "test_replicas.py"}  # fmt: skip
CHECKING = {"raises", "fail", "until", "linear"}  # pytest's; what tests/helpers raise where something does not come
CPP_ENDINGS = {".cpp", ".h", ".inc"}
TEXT_ENDINGS = {".py", ".md", ".toml", ".yml", ".yaml", ".json", ".jsonl", ".txt", ".cfg", ".sh", "", *CPP_ENDINGS}


@dataclass(frozen=True)
class Import:
    """One import: dotted names; `eager` when it runs as soon as the source module is imported."""

    source: str
    target: str
    line: int
    eager: bool


@cache
def tree_of(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"), str(path))


@cache
def nodes(path: Path) -> list[ast.AST]:
    return list(ast.walk(tree_of(path)))


def modules(src: Path) -> dict[str, Path]:
    """Dotted name of every module of the package, and its file."""
    found = {}
    for path in sorted((src / "riyaz").rglob("*.py")):
        parts = path.relative_to(src).with_suffix("").parts
        found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


def top(name: str) -> str:
    """`riyaz.data.rows` -> `data`, the name that has a row; `riyaz` -> ``."""
    return name.split(".")[1] if "." in name else ""


def walk(node: ast.AST, eager: bool = True) -> Iterator[tuple[ast.AST, bool]]:
    """Every node below, with whether it runs at import: not in functions, not under `if TYPE_CHECKING`."""
    for child in ast.iter_child_nodes(node):
        inner = eager and not isinstance(child, (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda))
        if isinstance(child, ast.If) and "TYPE_CHECKING" in ast.unparse(child.test):
            inner = False
        yield child, inner
        yield from walk(child, inner)


@cache
def imports(src: Path) -> list[Import]:
    """Every import of the package's modules: statements anywhere, and modules named in strings."""
    known, found = modules(src), []
    for source, path in known.items():
        package = source if path.name == "__init__.py" else source.rpartition(".")[0]
        tree = tree_of(path)
        spawned = {  # `python -m riyaz.x` starts a process, it imports nothing here
            id(after)
            for node in ast.walk(tree)
            if isinstance(node, (ast.List, ast.Tuple))
            for before, after in zip(node.elts, node.elts[1:], strict=False)
            if isinstance(before, ast.Constant) and before.value == "-m"
        }
        for node, eager in walk(tree):
            for target in [] if id(node) in spawned else targets(node, package, known):
                if target != source:
                    found.append(Import(source, target, getattr(node, "lineno", 0), eager))
    return found


def targets(node: ast.AST, package: str, known: dict[str, Path]) -> list[str]:
    """Dotted names that a node imports: `riyaz.x.y` in full, other packages by their first name."""
    names: list[str] = []
    if isinstance(node, ast.Import):
        names = [alias.name for alias in node.names]
    elif isinstance(node, ast.ImportFrom):
        base = node.module or ""
        if node.level:
            parent = package.split(".")[: len(package.split(".")) - node.level + 1]
            base = ".".join([*parent, base] if base else parent)
        names = [f"{base}.{alias.name}" if f"{base}.{alias.name}" in known else base for alias in node.names]
    elif isinstance(node, ast.Call) and dotted(node.func).endswith(("import_module", "__import__")):
        first = node.args[0] if node.args else None
        names = [first.value] if isinstance(first, ast.Constant) and isinstance(first.value, str) else []
    elif isinstance(node, ast.Constant) and isinstance(node.value, str):
        # A lazy command "riyaz.cli.data:data", a table of modules, the head of f"riyaz.models.{name}".
        name = re.fullmatch(r"(riyaz(?:\.\w+)+?)\.?(?::\w+)?", node.value)
        names = [name[1]] if name and name[1] in known else []
    return [name if name.split(".")[0] == "riyaz" else name.split(".")[0] for name in dict.fromkeys(names)]


def dotted(node: ast.AST) -> str:
    """`a.b.c` of a chain of names and attributes, else ``."""
    if isinstance(node, ast.Attribute):
        head = dotted(node.value)
        return f"{head}.{node.attr}" if head else ""
    return node.id if isinstance(node, ast.Name) else ""


def rows(src: Path) -> list[str]:
    """Imports that go to a later row, to a later module of the same row, or to a module without a row."""
    problems = [f"{name}: `{top(name)}` has no row in ROWS" for name in modules(src) if top(name) not in {"", *ORDER}]
    for item in imports(src):
        here, there = top(item.source), top(item.target)
        if item.target.split(".")[0] != "riyaz" or here == there or "" in (here, there):
            continue
        if item.source.startswith(STAND_IN) and there in TRAINING and ORDER[there][0] == ORDER[here][0]:
            continue
        if here in ORDER and there in ORDER and ORDER[there] > ORDER[here]:
            problems.append(f"{item.source}:{item.line} imports {item.target}, which comes later")
        if (here, there) in NEVER:
            problems.append(f"{item.source}:{item.line} imports {item.target}: {NEVER[here, there]}")
        if here == "report" and there not in REPORT:
            problems.append(f"{item.source}:{item.line} imports {item.target}: report reads result files only")
    return problems


def sides(src: Path) -> list[str]:
    """Imports across the dot, in either direction."""
    return [
        f"{item.source}:{item.line} imports {item.target} across the dot"
        for item in imports(src)
        if not item.source.startswith(STAND_IN) and item.target.startswith("riyaz.")
        if (top(item.source) in INFERRING and top(item.target) in TRAINING)
        or (top(item.source) in TRAINING and top(item.target) in INFERRING)
    ]


def torch_use(src: Path) -> list[str]:
    """torch outside the training side: any import, or one that runs when a torch-free module is imported."""
    found, problems, known = imports(src), [], modules(src)
    free = {name for name in known if not name.startswith(STAND_IN) and top(name) not in TRAINING}
    eager: dict[str, list[str]] = {name: [] for name in known}
    for item in found:
        if item.eager:
            eager[item.source].append(item.target)
        if item.target == "torch" and item.source in free and top(item.source) not in LAZY_TORCH:
            problems.append(f"{item.source}:{item.line} imports torch")
    for start in sorted(free):
        seen, queue = {start: start}, [start]
        while queue:
            name = queue.pop()
            parents = [name.rsplit(".", n)[0] for n in range(1, name.count(".") + 1)]
            for target in [*eager.get(name, []), *parents]:
                if target not in seen:
                    seen[target] = f"{seen[name]} > {target}"
                    queue.append(target)
        if "torch" in seen:
            problems.append(f"{start}: importing it loads torch ({seen['torch']})")
    return problems


def cycles(src: Path) -> list[str]:
    """Import cycles, deferred imports counted: one line for each module that can reach itself."""
    graph: dict[str, set[str]] = {name: set() for name in modules(src)}
    for item in imports(src):
        if item.target in graph:
            graph[item.source].add(item.target)
    problems = []
    for start in graph:
        seen, queue = {}, [(start, start)]
        while queue:
            name, path = queue.pop()
            for target in graph[name] - seen.keys():
                seen[target] = f"{path} > {target}"
                queue.append((target, seen[target]))
        if start in seen:
            problems.append(f"{start}: import cycle {seen[start]}")
    return problems


def family_names(src: Path) -> list[str]:
    """Families asked for by name outside families/ and models/: the name as a string, or a family's constant or
    configuration class in a comparison, a `case`, an `isinstance`, or as a key."""
    known, names, owned, problems = modules(src), set(), set(), []
    for module, path in known.items():
        for node in tree_of(path).body if module.startswith("riyaz.families.") else []:
            if isinstance(node, ast.Assign) and (constant := dotted(node.targets[0])) in FAMILY_NAMES:
                names |= {part.value for part in ast.walk(node.value) if isinstance(part, ast.Constant)}
                owned.add(f"{module}.{constant}")
            if isinstance(node, ast.ClassDef) and node.name.endswith("Config"):
                owned.add(f"{module}.{node.name}")
    for module, path in known.items():
        short, tree = module.removeprefix("riyaz."), tree_of(path)
        if top(module) in {"families", "models"} or short in FAMILY_EXEMPT:
            continue
        local = {  # what an import calls it here -> its name in full
            name.asname or name.name: f"{node.module}.{name.name}"
            for node in ast.walk(tree)
            if isinstance(node, ast.ImportFrom)
            for name in node.names
        }
        for statement in tree.body:
            if f"{short}:{dotted(getattr(statement, 'targets', [statement])[0])}" in FAMILY_EXEMPT:
                continue
            for node in ast.walk(statement):
                asks = isinstance(node, (ast.Compare, ast.match_case)) or (
                    isinstance(node, ast.Call) and dotted(node.func) == "isinstance"
                )
                asked = node.keys if isinstance(node, ast.Dict) else [node] if asks else []
                found = {dotted(part) for each in asked if each for part in ast.walk(each)}
                found = {name for name in found if full(name, local) in owned}
                if isinstance(node, ast.Constant) and node.value in names:
                    found = {repr(node.value)}
                problems += [f"{short}:{getattr(node, 'lineno', 0)} asks for the family {name}" for name in found]
    return problems


def full(name: str, local: dict[str, str]) -> str:
    """A dotted name with what it begins with in full."""
    head, dot, rest = name.partition(".")
    return f"{local.get(head, head)}{dot}{rest}"


def predictor_kinds(root: Path) -> list[str]:
    """Code outside `predictor/` that asks for a predictor's class, or whether it has an `lm`: it says both itself. A
    class has no other name there, so that the rule sees it."""
    problems, home = [], root / "src/riyaz/predictor"
    for path in [*(root / "src").rglob("*.py"), *(root / "benchmarks").rglob("*.py")]:
        for node in nodes(path) if home not in path.parents else []:
            text = f"case {ast.unparse(node)}" if isinstance(node, ast.MatchClass) else ""
            if isinstance(node, (ast.Call, ast.Compare)):
                text = ast.unparse(node)
            elif isinstance(node, ast.alias):
                text = f"import {ast.unparse(node)} "
            if ASKS_PREDICTOR.match(text):
                problems.append(f"{path.relative_to(root)}:{getattr(node, 'lineno', 0)} asks a predictor: {text}")
    return problems


def python_files(root: Path) -> list[Path]:
    return [path for path in text_files(root) if path.suffix == ".py"]


def text_files(root: Path) -> list[Path]:
    """Text files of the repository, without what .gitignore names, .git and hidden folders other than .ci."""
    ignore = root / ".gitignore"
    ignored = {line.strip("/ ") for line in ignore.read_text().splitlines()} if ignore.exists() else set()
    found = []
    for folder, names, files in os.walk(root):
        names[:] = [n for n in names if n not in ignored and not (n.startswith(".") and n != ".ci")]
        found += [Path(folder, name) for name in files if Path(name).suffix in TEXT_ENDINGS and name != ".git"]
    return sorted(found)


def sizes(root: Path) -> list[str]:
    """Python files longer than FILE_LINES, C++ files longer than CPP_LINES."""
    limits = {".py": FILE_LINES, **dict.fromkeys(CPP_ENDINGS, CPP_LINES)}
    files = [path for path in text_files(root) if path.suffix in limits]
    lengths = {path: len(path.read_text(encoding="utf-8").splitlines()) for path in files}
    return [
        f"{path.relative_to(root)}: {n} lines > {limits[path.suffix]}"
        for path, n in lengths.items()
        if n > limits[path.suffix]
    ]


def functions(path: Path) -> list[ast.FunctionDef | ast.AsyncFunctionDef]:
    return [node for node in nodes(path) if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef))]


def function_sizes(root: Path) -> list[str]:
    """Functions longer than FUNCTION_LINES anywhere, and a package whose 90th percentile is too long."""
    problems, package = [], []
    for path in python_files(root):
        loops = 1 if path == root / "src/riyaz/train.py" else 0  # THE loop
        for node in functions(path):
            lines = (node.end_lineno or node.lineno) - node.lineno + 1
            if (root / "src") in path.parents:
                package.append(lines)
            if lines > FUNCTION_LINES:
                loops -= 1
                if loops < 0 or lines > LOOP_LINES:
                    problems.append(f"{path.relative_to(root)}:{node.lineno} {node.name} has {lines} lines")
    if len(package) > 1 and (p90 := statistics.quantiles(package, n=10, method="inclusive")[-1]) > FUNCTION_P90:
        problems.append(f"src: 90th percentile of function length is {math.ceil(p90)} > {FUNCTION_P90} lines")
    return problems


def public_faces(src: Path) -> list[str]:
    """Modules, public classes and functions without a docstring; public functions not fully typed."""
    problems = []
    for name, path in modules(src).items():
        tree = tree_of(path)
        if not ast.get_docstring(tree):
            problems.append(f"{name}: module without a docstring")
        classes = [node for node in tree.body if isinstance(node, ast.ClassDef) and node.name[0] != "_"]
        problems += [f"{name}:{c.lineno} {c.name} without a docstring" for c in classes if not ast.get_docstring(c)]
        for owner in [tree, *classes]:
            for node in owner.body:
                if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
                    problems += [f"{name}:{node.lineno} {node.name} {what}" for what in face(node, owner is not tree)]
    return problems


def face(node: ast.FunctionDef | ast.AsyncFunctionDef, method: bool) -> list[str]:
    """What the signature and docstring of one function lack; private names may lack both."""
    if node.name.startswith("_") and node.name != "__init__":
        return []
    decorators = {dotted(item).rpartition(".")[2] for item in node.decorator_list}
    arguments = [*node.args.posonlyargs, *node.args.args]
    if method and "staticmethod" not in decorators:
        arguments = arguments[1:]
    arguments += [a for a in (*node.args.kwonlyargs, node.args.vararg, node.args.kwarg) if a]
    problems = [f"has no type for `{a.arg}`" for a in arguments if a.annotation is None]
    if node.returns is None:
        problems.append("has no return type")
    if node.name != "__init__" and not decorators & {"overload", "setter"} and not ast.get_docstring(node):
        problems.append("without a docstring")
    return problems


def unsafe_code(root: Path) -> list[str]:
    """Calls and imports that execute what a file says: pickle, torch.load, eval, a shell, remote code."""
    problems = []
    for path in python_files(root):
        alias = {}
        for node in nodes(path):
            what: list[str] = []
            if isinstance(node, ast.Import):
                alias |= {item.asname: item.name for item in node.names if item.asname}
                what = [item.name for item in node.names if item.name.split(".")[0] in UNSAFE_IMPORTS]
            elif isinstance(node, ast.ImportFrom):
                names = [f"{node.module}.{item.name}" for item in node.names]
                unsafe = (node.module or "").split(".")[0] in UNSAFE_IMPORTS
                what = names if unsafe else [name for name in names if name in UNSAFE_CALLS]
            elif isinstance(node, ast.Call):
                head, dot, rest = dotted(node.func).partition(".")
                called = f"{alias.get(head, head)}{dot}{rest}"
                what = [called] if called in UNSAFE_CALLS - UNSAFE_NAMES else []
            elif isinstance(node, ast.Name) and node.id in UNSAFE_NAMES:
                exempt = UNSAFE_EXEMPT.get(path.relative_to(root).as_posix(), ("", ""))[0]
                what = [node.id] if node.id != exempt else []
            elif isinstance(node, ast.keyword) and node.arg in UNSAFE_KEYWORDS:
                off = isinstance(node.value, ast.Constant) and not node.value.value
                named = node.arg == "shell" and path.relative_to(root).as_posix() == NO_SHELL
                what = [] if named or (off and node.arg != "trust_remote_code") else [f"{node.arg}="]
            problems += [f"{path.relative_to(root)}:{node.lineno} {name}" for name in what]  # type: ignore[attr-defined]
    return problems


def unsafe_text(root: Path) -> list[str]:
    """Registry hosts, index URLs and paths of one machine, in any text of the repository."""
    return [
        f"{path.relative_to(root)}:{number} names {what}"
        for path in text_files(root)
        for number, line in enumerate(path.read_text(encoding="utf-8", errors="replace").splitlines(), 1)
        for what, pattern in UNSAFE_TEXT.items()
        if pattern.search(line)
    ]


def environment_variables(root: Path) -> list[str]:
    """RIYAZ_* variables that src or native reads and the table in docs/reference.md lacks, and the other way round."""
    page = root / "docs/reference.md"
    table = set(re.findall(r"^\| `(RIYAZ_\w+)` \|", page.read_text(encoding="utf-8") if page.exists() else "", re.M))
    files = [path for folder in ("src", "native") for path in text_files(root / folder)]
    read = {
        name: path.relative_to(root)
        for path in files
        if path.suffix in {".py", *CPP_ENDINGS}
        for name in re.findall(r"""["'](RIYAZ_[A-Z_]+)["']""", path.read_text(encoding="utf-8"))
    }
    lacking = [f"{read[name]} reads {name}, not in {page.name}" for name in sorted(read.keys() - table - INTERNAL)]
    return lacking + [f"{page.name}: nothing reads {name}" for name in sorted(table - read.keys())]


def torch_requirement(root: Path) -> list[str]:
    """pyproject.toml asks for torch once, in `train`, as a range: no pin, no local build, no URL."""
    project = tomllib.loads((root / "pyproject.toml").read_text())["project"]
    groups = {"dependencies": project.get("dependencies", []), **project.get("optional-dependencies", {})}
    found = {group: line for group, lines in groups.items() for line in lines if re.match(r"torch\b(?!-)", line)}
    if list(found) != ["train"]:
        return [f"pyproject.toml: torch stands in {sorted(found)}, not in `train` alone"]
    range_only = re.fullmatch(r"torch\s*>=\s*\d+(\.\d+)*(\s*,\s*<\s*\d+(\.\d+)*)?", found["train"])
    return [] if range_only else [f"pyproject.toml: `{found['train']}` is not a range of versions"]


def weak_tests(root: Path) -> list[str]:
    """Test functions that check nothing, and tests that skip instead of failing."""
    problems = []
    for path in sorted((root / "tests").rglob("test_*.py")):
        every = functions(path)
        helpers = {node.name for node in every if not node.name.startswith("test_") and checks(node, set())}
        tests = [node for node in every if node.name.startswith("test_")]
        where = path.relative_to(root)
        if not tests:
            problems.append(f"{where}: no test functions")
        problems += [
            f"{where}:{node.lineno} {node.name} asserts nothing" for node in tests if not checks(node, helpers)
        ]
        for node in nodes(path):
            ways = {"skip", "skipif", "importorskip", "xfail"} - ({"skip"} if path.name in MAY_SKIP else set())
            if isinstance(node, ast.Attribute) and node.attr in ways:
                problems.append(f"{where}:{node.lineno} {node.attr}: a test that cannot run fails, it never skips")
    return problems


def checks(function: ast.AST, helpers: set[str]) -> bool:
    """Whether a test asserts, expects an exception, or calls something that does."""
    for node in ast.walk(function):
        if isinstance(node, ast.Assert):
            return True
        if isinstance(node, ast.Call):
            name = dotted(node.func).rpartition(".")[2]
            if name in helpers or name in CHECKING or name.startswith("assert"):
                return True
    return False
