"""The layers of the package, and the graph of its imports: who may import whom, and who does."""

import ast
from collections.abc import Iterator, Mapping
from pathlib import Path

LEVEL = {
    **dict.fromkeys(("errors",), -1),
    **dict.fromkeys(("durable",), 0),
    **dict.fromkeys(
        ("child", "config", "device", "figures", "inputs", "openmp", "outputs", "package_index"), 1
    ),
    **dict.fromkeys(("sampling_params", "threads"), 1),
    **dict.fromkeys(("kernels", "rows", "tokenizer", "sandbox"), 2),
    **dict.fromkeys(("model", "remote"), 3),
    **dict.fromkeys(("cost", "low_precision", "tasks"), 4),
    **dict.fromkeys(("data",), 5),
    **dict.fromkeys(("engine", "train"), 6),
    **dict.fromkeys(("distill", "evals", "preferences", "receipts", "serve"), 7),
    **dict.fromkeys(("rl",), 8),
    **dict.fromkeys(("cli",), 9),
    **dict.fromkeys(("__init__",), 10),  # the package's own: hands out LLM when it is asked for
}
"""Folders and files of the package: each imports from a lower level or from itself."""
WITHOUT_TORCH = (
    "child", "errors", "durable", "config", "inputs", "openmp", "package_index", "sampling_params",
    "remote", "rows", "sandbox", "tokenizer", "tasks",
)  # fmt: skip

Graph = dict[str, set[str]]


def imported(node: ast.AST) -> list[str]:
    """Dotted names that one statement imports; a relative import gives a name that starts with a dot."""
    if isinstance(node, ast.Import):
        return [alias.name for alias in node.names]
    if isinstance(node, ast.ImportFrom):
        return ["." * node.level + f"{node.module or ''}.{alias.name}" for alias in node.names]
    return []


def module_name(path: Path) -> str:
    """shoestring.model.moe for shoestring/model/moe.py, shoestring.model for shoestring/model/__init__.py."""
    return ".".join(path.with_suffix("").parts).removesuffix(".__init__")


def import_graph(trees: Mapping[Path, ast.Module]) -> Graph:
    """The modules of the package that each module imports, inside functions too.

    Paths begin with the package's folder. Its own __init__.py is left out: it imports LLM only on request.
    """
    names = {module_name(path) for path in trees}
    graph: Graph = {name: set() for name in names if "." in name}
    for path, tree in trees.items():
        for full_name in (name for node in ast.walk(tree) for name in imported(node)):
            target = full_name if full_name in names else full_name.rpartition(".")[0]
            if module_name(path) in graph and target in graph:
                graph[module_name(path)].add(target)
    return graph


def import_loops(graph: Graph) -> list[list[str]]:
    """Sets of modules that import one another, directly or by way of others."""
    reach = {name: set(_reachable(graph, name)) for name in graph}
    loops = {tuple(sorted({n for n in reach[name] if name in reach[n]})) for name in graph}
    return [list(loop) for loop in sorted(loops) if loop]


def _reachable(graph: Graph, start: str) -> Iterator[str]:
    """Modules that `start` imports at any distance; itself only if it is in a loop."""
    modules: set[str] = set()
    waiting = list(graph[start])
    while waiting:
        name = waiting.pop()
        if name not in modules:
            modules.add(name)
            waiting += graph[name]
            yield name
