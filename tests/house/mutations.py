"""Small changes of Python source, each of which a test should notice: another comparison, a number that is one off,
a call or a refusal left out, `return None`, branches in each other's place.

Only what functions do is changed: no asserts, annotations, defaults, decorators, patterns or f-strings.
"""

import ast
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass

OTHERS: dict[type[ast.AST], tuple[type[ast.AST], ...]] = {
    ast.Lt: (ast.LtE, ast.GtE), ast.LtE: (ast.Lt, ast.Gt), ast.Gt: (ast.GtE, ast.LtE), ast.GtE: (ast.Gt, ast.Lt),
    ast.Eq: (ast.NotEq,), ast.NotEq: (ast.Eq,), ast.Is: (ast.IsNot,), ast.IsNot: (ast.Is,), ast.In: (ast.NotIn,),
    ast.NotIn: (ast.In,), ast.And: (ast.Or,), ast.Or: (ast.And,), ast.Add: (ast.Sub,), ast.Sub: (ast.Add,),
    ast.Mult: (ast.Div,), ast.Div: (ast.Mult,), ast.FloorDiv: (ast.Div,), ast.Mod: (ast.Mult,), ast.Pow: (ast.Mult,),
    ast.BitOr: (ast.BitAnd,), ast.BitAnd: (ast.BitOr,),
}  # fmt: skip
UNCHANGED = (ast.Assert, ast.JoinedStr, ast.Import, ast.ImportFrom, ast.pattern, ast.Global, ast.Nonlocal)
LONGEST = 60  # characters that are shown of what is changed


@dataclass(frozen=True)
class Mutation:
    """One change, from `start` to `end` of the source's UTF-8 bytes."""

    kind: str  # comparison, boolean, arithmetic, number, return, call, raise or branch
    line: int
    lines: tuple[int, ...]  # where coverage may have noted it: its own, and of an expression the first of its statement
    what: str
    key: str  # names it also where the lines of the file have moved: function, change, and which of equal ones
    start: int
    end: int
    new: str


def mutated(source: str, mutation: Mutation) -> str:
    """The source with the change."""
    data = source.encode()
    return (data[: mutation.start] + mutation.new.encode() + data[mutation.end :]).decode()


def mutations(source: str) -> list[Mutation]:
    """All changes of a file, in its order."""
    begins = [0]
    for line in source.encode().splitlines(keepends=True):
        begins.append(begins[-1] + len(line))
    found: list[Mutation] = []
    equal: Counter[str] = Counter()
    for function, statement, node in inside(ast.parse(source), "", None):
        for kind, place, new in changes(node):
            text = f"({ast.unparse(new)})" if isinstance(new, ast.expr) else ast.unparse(new)
            what = f"{short(place)} → {short(new)}"
            key = f"{function}: {what}"
            equal[key] += 1
            end_line, end = place.end_lineno or place.lineno, place.end_col_offset or 0
            lines = (*range(place.lineno, end_line + 1), *([statement.lineno] if isinstance(place, ast.expr) else []))
            found.append(Mutation(
                kind, place.lineno, lines, what, f"{key} #{equal[key]}", begins[place.lineno - 1] + place.col_offset,
                begins[end_line - 1] + end, text,
            ))  # fmt: skip
    return found


def short(node: ast.AST) -> str:
    """The first characters of a node's source, in one line."""
    text = " ".join(ast.unparse(node).split())
    return text if len(text) <= LONGEST else f"{text[: LONGEST - 1]}…"


def inside(node: ast.AST, function: str, statement: ast.stmt | None) -> Iterator[tuple[str, ast.stmt, ast.AST]]:
    """(function, statement, node) of all that functions do."""
    if isinstance(node, UNCHANGED):
        return
    if isinstance(node, ast.stmt):
        statement = node
    if function and statement is not None:
        yield function, statement, node
    if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
        # what stands in a class beside its methods runs at import
        name = f"{function.removesuffix('.')}.{node.name}".removeprefix(".")
        for child in node.body:
            of_class = isinstance(node, ast.ClassDef)
            if not of_class or isinstance(child, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
                yield from inside(child, f"{name}." if of_class else name, statement)
    elif isinstance(node, ast.Lambda):
        yield from inside(node.body, function, statement)
    else:
        for field, value in ast.iter_fields(node):
            for child in value if isinstance(value, list) else [value]:
                if isinstance(child, ast.AST) and field not in ("annotation", "decorator_list"):
                    yield from inside(child, function, statement)


def changes(node: ast.AST) -> Iterator[tuple[str, ast.expr | ast.stmt, ast.expr | ast.stmt]]:
    """(kind, node to replace, new node) of one node."""
    match node:
        case ast.Compare(left=left, ops=[op], comparators=comparators):
            for other in OTHERS[type(op)]:
                yield "comparison", node, ast.Compare(left, [other()], comparators)  # type: ignore[list-item]
        case ast.BoolOp(op=op, values=values):
            yield "boolean", node, ast.BoolOp(OTHERS[type(op)][0](), values)  # type: ignore[arg-type]
        case ast.UnaryOp(op=ast.Not(), operand=operand):
            yield "boolean", node, operand
        case ast.BinOp(left=left, op=op, right=right) if type(op) in OTHERS and not {text(left), text(right)} - {False}:
            yield "arithmetic", node, ast.BinOp(left, OTHERS[type(op)][0](), right)  # type: ignore[arg-type]
        case ast.AugAssign(target=target, op=op, value=value) if type(op) in OTHERS and not text(value):
            yield "arithmetic", node, ast.AugAssign(target, OTHERS[type(op)][0](), value)  # type: ignore[arg-type]
        case ast.Constant(value=bool(value)):
            yield "number", node, ast.Constant(not value)
        case ast.Constant(value=int(value)):
            yield "number", node, ast.Constant(value + 1)
            yield "number", node, ast.Constant(value - 1)
        case ast.Constant(value=float(value)):
            yield "number", node, ast.Constant(value + 1)
        case ast.Return(value=ast.expr() as value) if not (isinstance(value, ast.Constant) and value.value is None):
            yield "return", node, ast.Return(ast.Constant(None))
        case ast.Expr(value=ast.Call() | ast.Await()):
            yield "call", node, ast.Pass()
        case ast.If(body=[*_, ast.Raise() as refusal], orelse=[]):
            yield "raise", refusal, ast.Pass()
        case ast.If(test=test, orelse=[_, *_]) | ast.IfExp(test=test):
            yield "branch", test, ast.UnaryOp(ast.Not(), test)


def text(node: ast.expr) -> bool:
    """Whether it is plainly a string, of which nothing can be subtracted."""
    return isinstance(node, ast.JoinedStr) or (isinstance(node, ast.Constant) and isinstance(node.value, (str, bytes)))
