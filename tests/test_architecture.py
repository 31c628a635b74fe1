"""The house rules that a machine can check: who may import whom, how long things may get, what must not be there.

Each check takes a package and returns its complaints; test_architecture_checks.py shows each of them a package that
breaks it. Complexity, annotations, eval and pickle are ruff's and pyright's part of `make check`.
"""

import ast
from collections.abc import Iterator
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

SRC = Path(__file__).parents[1] / "src" / "groupwise"

ARROWS = {
    "types": set(),
    "errors": set(),
    "config": {"errors"},
    "maths": set(),
    "rewards": {"types", "errors"},
    "tasks": {"rewards"},
    "models": {"maths", "config"},
    "engines": {"models"},
    "rollouts": {"engines", "tasks", "rewards"},
    "learner": {"models", "maths"},
    "runs": {"config", "types"},
    "training": {"rollouts", "learner", "runs"},
    "explain": {"training"},
    "compat": {"training"},
    "cli": {"training", "explain", "compat"},
}
"""Room -> the rooms right below it. A room may import all it reaches this way, and `types` and `errors` in any case."""

FILE_LINES, FUNCTION_LINES, PARAMETERS = 300, 50, 8
FORBIDDEN_MODULES = {
    "utils",
    "util",
    "helpers",
    "common",
    "misc",
    "episode",
    "trajectory",
    "actor",
    "worker",
    "manager",
}
FORBIDDEN_CLASSES = {"Episode", "Sample", "Datum", "Trajectory", "Actor", "Worker", "Manager"}
ONLY_IN = {"vllm": {"engines"}, "trl": set()}
LIGHT_ROOMS = {"config", "runs", "dashboard", "cli"}
"""They start without these; what needs them is imported inside the function that needs it."""
HEAVY = {"torch", "transformers", "peft", "datasets"}


class Package:
    """The syntax trees of a package's modules by dotted name; a package's `__init__` goes by the package's name."""

    def __init__(self, folder: Path):
        self.paths = {self._module(folder, path): path for path in sorted(folder.rglob("*.py"))}
        self.trees = {name: ast.parse(path.read_text(encoding="utf-8")) for name, path in self.paths.items()}
        self.root = folder.name

    def _module(self, folder: Path, path: Path) -> str:
        parts = path.relative_to(folder.parent).with_suffix("").parts
        return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)

    def room(self, module: str) -> str | None:
        """The room of one of our modules; None for the root and for what is not ours."""
        root, *rooms = module.split(".")
        return rooms[0] if root == self.root and rooms and rooms[0] != "__main__" else None

    def imports(self, module: str, *, at_start: bool = False) -> Iterator[str]:
        """What a module imports, anywhere in it or only while it is itself imported."""
        body = list(_run_at_import(self.trees[module])) if at_start else list(ast.walk(self.trees[module]))
        for node in body:
            if isinstance(node, ast.Import):
                yield from (alias.name for alias in node.names)
            elif isinstance(node, ast.ImportFrom):
                base = self._absolute(module, node)
                submodules = [f"{base}.{alias.name}" for alias in node.names]
                yield from (name if name in self.trees or base == self.root else base for name in submodules)

    def _absolute(self, module: str, node: ast.ImportFrom) -> str:
        if not node.level:
            return node.module or ""
        is_package = self.paths[module].name == "__init__.py"
        parts = module.split(".")
        above = parts[: len(parts) - node.level + is_package]
        return ".".join([*above, *([node.module] if node.module else [])])


def _run_at_import(node: ast.AST) -> Iterator[ast.AST]:
    """Every node that runs when the module is imported: not the insides of functions, not `if TYPE_CHECKING:`."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda)):
            continue
        if isinstance(child, ast.If) and "TYPE_CHECKING" in ast.unparse(child.test):
            continue
        yield child
        yield from _run_at_import(child)


def reach(room: str) -> set[str]:
    """All rooms below a room."""
    below = ARROWS[room] | {"types", "errors"} if room in ARROWS else set()
    return below.union(*(reach(inner) for inner in ARROWS.get(room, ())))


def wrong_arrows(package: Package) -> list[str]:
    found = []
    for module in package.trees:
        room = package.room(module)
        if room is None:
            continue
        if room not in ARROWS:
            found.append(f"{module}: room {room} has no row in ARROWS")
            continue
        allowed = {room, "__version__", *reach(room)} - ({"types"} if room == "maths" else set())
        found += [
            f"{module} imports {name}: no arrow {room} -> {package.room(name)}"
            for name in package.imports(module)
            if name.split(".")[0] == package.root and package.room(name) not in allowed
        ]
    return found


def cycles(package: Package) -> list[str]:
    modules = {name: {other for other in package.imports(name) if other in package.trees} for name in package.trees}
    rooms: dict[str, set[str]] = {}
    for name, others in modules.items():
        room = package.room(name) or package.root
        rooms.setdefault(room, set()).update({package.room(other) or package.root for other in others} - {room})
    found = []
    for graph in (modules, rooms):
        try:
            TopologicalSorter(graph).prepare()
        except CycleError as error:
            found.append(" <- ".join(error.args[1]))
    return found


def over_budget(package: Package) -> list[str]:
    found = []
    for module, path in package.paths.items():
        lines = len(path.read_text(encoding="utf-8").splitlines())
        if lines > FILE_LINES:
            found.append(f"{module}: {lines} lines, the budget is {FILE_LINES}")
        for node in ast.walk(package.trees[module]):
            if not isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
                continue
            length = node.end_lineno - node.lineno + 1
            if length > FUNCTION_LINES:
                found.append(f"{module}.{node.name}: {length} lines, the budget is {FUNCTION_LINES}")
            given = [*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs]
            count = len([each for each in given if each.arg not in ("self", "cls")])
            if count > PARAMETERS:
                found.append(f"{module}.{node.name}: {count} parameters, the budget is {PARAMETERS}")
    return found


def literal_attributes(package: Package) -> list[str]:
    return [
        f"{module}:{node.lineno}: {ast.unparse(node)}"
        for module, tree in package.trees.items()
        for node in ast.walk(tree)
        if isinstance(node, ast.Call)
        and isinstance(node.func, ast.Name)
        and node.func.id in ("getattr", "hasattr", "setattr", "delattr")
        and len(node.args) > 1
        and isinstance(node.args[1], ast.Constant)
    ]


def forbidden_names(package: Package) -> list[str]:
    found = [f"module {name}" for name in package.trees if name.rsplit(".", 1)[-1] in FORBIDDEN_MODULES]
    for module, tree in package.trees.items():
        classes = [node.name for node in ast.walk(tree) if isinstance(node, ast.ClassDef)]
        found += [f"class {module}.{name}" for name in classes if name in FORBIDDEN_CLASSES]
    return found


def forbidden_imports(package: Package) -> list[str]:
    found = []
    for module in package.trees:
        for name in package.imports(module):
            library = name.split(".")[0]
            if library in ONLY_IN and package.room(module) not in ONLY_IN[library]:
                found.append(f"{module} imports {name}")
            if package.room(module) == "maths" and library in HEAVY - {"torch"}:
                found.append(f"{module} imports {name}: maths is torch at most")
    return found


def heavy_starts(package: Package) -> list[str]:
    """Modules of the light rooms that cannot be imported without importing a heavy library, and by which way."""
    found = []
    for start in package.trees:
        if package.room(start) not in LIGHT_ROOMS:
            continue
        ways = {start: start}
        queue = [start]
        while queue:
            module = queue.pop()
            parents = [module.rsplit(".", count)[0] for count in range(1, module.count(".") + 1)]
            for name in [*parents, *package.imports(module, at_start=True)]:
                if name.split(".")[0] in HEAVY:
                    found.append(f"{ways[module]} -> {name}")
                elif name in package.trees and name not in ways:
                    ways[name] = f"{ways[module]} -> {name}"
                    queue.append(name)
    return found


CHECKS = [
    wrong_arrows,
    cycles,
    over_budget,
    literal_attributes,
    forbidden_names,
    forbidden_imports,
    heavy_starts,
]


@pytest.fixture(scope="module")
def house():
    return Package(SRC)


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
def test_the_house_is_in_order(check, house):
    assert check(house) == []


def test_the_arrows_are_those_of_the_rooms_that_there_are(house):
    assert set(ARROWS) == {house.room(module) for module in house.trees} - {None}
    assert "engines" not in reach("learner")
    assert "learner" not in reach("engines")
    assert all("cli" not in reach(room) for room in ARROWS)
