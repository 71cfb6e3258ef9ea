"""The plan of the house: imports point down, and only one room knows of the GPU."""

import ast
import re
import subprocess
import sys
from pathlib import Path

import minidraw

ROOT = Path(minidraw.__file__).parent
REPOSITORY = Path(__file__).parents[1]
OPS = ["ops.affine", "ops.lstm", "ops.latent", "ops.bernoulli", "ops.cross_entropy", "ops.attention", "ops.__init__"]
FLOORS = [  # a room may import from the floors below it
    ["__main__"],
    ["cli"],
    ["__init__"],
    ["runs", "presets", "bench", "page"],
    ["plots", "evaluation", "checkpoint"],
    ["training"],
    ["cuda_graph"],
    ["workers"],
    ["objective", "gradcheck_cases", "exercises"],
    ["draw", "adam", "images"],
    ["config", "files", *OPS],
    ["ops.elementary"],
    ["gradcheck"],
    ["autodiff"],
    ["backend"],
    ["errors"],
]
FLOOR = {room: floor for floor, rooms in enumerate(FLOORS) for room in rooms}
PACKAGES = {"": "__init__", "ops": "ops.__init__"}


def rooms():
    return {".".join(path.relative_to(ROOT).with_suffix("").parts): path for path in ROOT.rglob("*.py")}


def imports(path):
    """The rooms that a file imports from."""
    names = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            names |= {f"{node.module}.{alias.name}" for alias in node.names} | {node.module}
    for name in names:
        if name.split(".")[0] == "minidraw":
            inner = name.partition(".")[2]
            inner = PACKAGES.get(inner, inner)
            if inner in FLOOR:
                yield inner


def test_every_room_is_on_the_plan():
    assert set(rooms()) == set(FLOOR)


def test_imports_point_down():
    for room, path in rooms().items():
        for used in imports(path):
            if used == "__init__" or {room, used} <= set(OPS):
                continue
            assert FLOOR[used] > FLOOR[room], f"{room} imports {used}, which is not below it"


def test_only_the_backend_names_cupy():
    for room, path in rooms().items():
        tree = ast.parse(path.read_text(encoding="utf-8"))
        words = {node.id for node in ast.walk(tree) if isinstance(node, ast.Name)}
        words |= {alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names}
        assert ("cupy" in words) == (room == "backend"), room


def test_importing_minidraw_leaves_matplotlib_alone():
    """It is most of what an import would cost."""
    code = "import sys, minidraw, minidraw.cli; sys.exit('matplotlib' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


def test_the_lowest_versions_are_those_that_a_job_tests():
    project, lowest = ((REPOSITORY / path).read_text() for path in ("pyproject.toml", "tests/lowest.txt"))
    claimed = re.findall(r'"(numpy|matplotlib|tqdm|pytest|nbformat)>=([\d.]+)"', project)
    pinned = re.findall(r"^(\w+)==([\d.]+)$", lowest, re.MULTILINE)
    assert len(pinned) == 5 and dict(claimed) == dict(pinned)


def test_what_is_public_is_on_one_page():
    """Every name of `__all__` stands in the README's table, and the table names nothing else."""
    rows = (REPOSITORY / "README.md").read_text(encoding="utf-8").split("Everything that is public")[1].split("## ")[0]
    for name in minidraw.__all__:
        assert name in rows and hasattr(minidraw, name), name
    first_column = " ".join(row.split("|")[1] for row in rows.splitlines() if row.startswith("| `"))
    named = set(re.findall(r"`(\w+)(?=[(.`])", first_column)) - {"minidraw"}
    assert named <= set(minidraw.__all__), named - set(minidraw.__all__)
