"""How the code reads, in numbers: the table of STYLE measured on every tree; prints JSON or text.

    python -m benchmarks.style [--json] [FOLDER ...]

A row a tree: lines of a function's body without docstring and comments (p50, p95, max), lines of a
module, cyclomatic complexity, the share of functions whose return is annotated, `print` calls,
broad `except`s, public functions without a docstring, ignores (`noqa`, `type: ignore`), the share
of lines that are a comment and nothing else, and the share of all functions that are private and
have one call site. Tests are a tree of their own.
"""

import argparse
import ast
import io
import json
import sys
import tokenize
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final

TREES: Final = (
    *("worker", "lora_registry", "workflows", "families", "gateway", "characters"),
    *("builder", "local", "benchmarks", "tests"),
)
# What a function's paths fork at; `and` and `or` fork once for each operand after the first.
_FORKS: Final = (
    *(ast.If, ast.For, ast.While, ast.AsyncFor, ast.IfExp, ast.ExceptHandler, ast.Assert),
    *(ast.comprehension, ast.match_case),
)
_BROAD: Final = {"Exception", "BaseException"}

Function = ast.FunctionDef | ast.AsyncFunctionDef


@dataclass(frozen=True, slots=True)
class Row:
    """One tree; sizes in lines, `comments` and `single_call` in percent."""

    tree: str
    files: int
    lines: int
    function_p50: int
    function_p95: int
    function_max: int
    module_p50: int
    module_max: int
    complexity_p95: int
    complexity_max: int
    typed_returns: float
    prints: int
    broad_excepts: int
    undocumented: int
    ignores: int
    classes: int
    comments: float
    single_call: float


@dataclass(frozen=True, slots=True)
class Module:
    """One file, parsed, with what only its tokens say."""

    tree: ast.Module
    lines: int
    comment_lines: frozenset[int]
    ignores: int


def read_module(path: Path) -> Module:
    """Parse a file. Raises SyntaxError."""
    text = path.read_text(encoding="utf-8")
    comments = [
        token
        for token in tokenize.generate_tokens(io.StringIO(text).readline)
        if token.type == tokenize.COMMENT
    ]
    return Module(
        tree=ast.parse(text),
        lines=text.count("\n"),
        comment_lines=frozenset(
            token.start[0] for token in comments if not token.line[: token.start[1]].strip()
        ),
        ignores=sum("noqa" in c.string or "type: ignore" in c.string for c in comments),
    )


def measure(tree: str, paths: Sequence[Path]) -> Row:
    """The row of a tree's files."""
    modules = [read_module(path) for path in paths]
    functions = [(module, node) for module in modules for node in _functions(module.tree)]
    sizes = sorted(_body_lines(module, node) for module, node in functions)
    forks = sorted(_complexity(node) for _, node in functions)
    lengths = sorted(module.lines for module in modules)
    single_calls = sum(_single_calls(module.tree) for module in modules)
    nodes = [node for module in modules for node in ast.walk(module.tree)]
    return Row(
        tree=tree,
        files=len(modules),
        lines=sum(lengths),
        function_p50=_at(sizes, 50),
        function_p95=_at(sizes, 95),
        function_max=_at(sizes, 100),
        module_p50=_at(lengths, 50),
        module_max=_at(lengths, 100),
        complexity_p95=_at(forks, 95),
        complexity_max=_at(forks, 100),
        typed_returns=_percent(sum(f.returns is not None for _, f in functions), len(functions)),
        prints=sum(isinstance(n, ast.Call) and _name(n.func) == "print" for n in nodes),
        broad_excepts=sum(_is_broad(node) for node in nodes),
        undocumented=sum(_undocumented(module.tree) for module in modules),
        ignores=sum(module.ignores for module in modules),
        classes=sum(isinstance(node, ast.ClassDef) for node in nodes),
        comments=_percent(sum(len(m.comment_lines) for m in modules), sum(lengths)),
        single_call=_percent(single_calls, len(functions)),
    )


def _functions(tree: ast.Module) -> Iterator[Function]:
    for node in ast.walk(tree):
        if isinstance(node, Function):
            yield node


def _body_lines(module: Module, function: Function) -> int:
    body = function.body[1:] if ast.get_docstring(function) is not None else function.body
    if not body:
        return 0
    span = range(body[0].lineno, (body[-1].end_lineno or body[-1].lineno) + 1)
    return len(span) - sum(line in span for line in module.comment_lines)


def _complexity(function: Function) -> int:
    inner = list(ast.walk(function))
    operands = sum(len(node.values) - 1 for node in inner if isinstance(node, ast.BoolOp))
    return 1 + operands + sum(isinstance(node, _FORKS) for node in inner)


def _is_broad(node: ast.AST) -> bool:
    if not isinstance(node, ast.ExceptHandler):
        return False
    return node.type is None or _name(node.type) in _BROAD


def _undocumented(tree: ast.Module) -> int:
    """Public functions and methods of public classes that say nothing of themselves."""
    classes = [node for node in tree.body if isinstance(node, ast.ClassDef)]
    public = [node for node in classes if not node.name.startswith("_")]
    bodies = [tree.body, *(node.body for node in public)]
    functions = [node for body in bodies for node in body if isinstance(node, Function)]
    return sum(not f.name.startswith("_") and ast.get_docstring(f) is None for f in functions)


def _single_calls(tree: ast.Module) -> int:
    """Private functions that their module names once; dunders are not private."""
    private = {
        node.name
        for node in _functions(tree)
        if node.name.startswith("_") and not node.name.endswith("__")
    }
    used = Counter(
        name for node in ast.walk(tree) if (name := _name(node)) in private and _is_read(node)
    )
    return sum(used[name] == 1 for name in private)


def _is_read(node: ast.AST) -> bool:
    return isinstance(node, ast.Name | ast.Attribute) and isinstance(node.ctx, ast.Load)


def _name(node: ast.AST) -> str | None:
    if isinstance(node, ast.Name):
        return node.id
    return node.attr if isinstance(node, ast.Attribute) else None


def _at(ordered: Sequence[int], percent: int) -> int:
    if not ordered:
        return 0
    return ordered[min(len(ordered) - 1, len(ordered) * percent // 100)]


def _percent(part: int, whole: int) -> float:
    return round(100 * part / whole, 1) if whole else 0.0


def table(rows: Sequence[Row]) -> str:
    """The rows as a Markdown table."""
    titles = (
        *("tree", "files / lines", "fn p50/p95/max", "module p50/max", "cc p95/max", "ret %"),
        *("print", "broad", "undoc.", "ignores", "classes", "comments %", "one call site %"),
    )
    lines = [titles, ("---",) * len(titles)]
    lines += [
        (
            *(row.tree, f"{row.files} / {row.lines}"),
            f"{row.function_p50}/{row.function_p95}/{row.function_max}",
            *(f"{row.module_p50}/{row.module_max}", f"{row.complexity_p95}/{row.complexity_max}"),
            *(f"{row.typed_returns:g}", str(row.prints), str(row.broad_excepts)),
            *(str(row.undocumented), str(row.ignores), str(row.classes)),
            *(f"{row.comments:g}", f"{row.single_call:g}"),
        )
        for row in rows
    ]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure the folders named, or all of ours."""
    parser = argparse.ArgumentParser(description="How the code reads, in numbers.")
    parser.add_argument("folders", nargs="*", default=TREES, metavar="FOLDER")
    parser.add_argument("--json", action="store_true", help="a JSON list in place of the table")
    given = parser.parse_args(arguments)
    rows = [measure(folder, sorted(Path(folder).rglob("*.py"))) for folder in given.folders]
    shown = json.dumps([asdict(row) for row in rows], indent=1) if given.json else table(rows)
    sys.stdout.write(f"{shown}\n")


if __name__ == "__main__":
    main()
