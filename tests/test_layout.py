"""The house: who may import whom, what files may be called, how long they may be."""

import ast
import subprocess
import sys
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest

from fastssd.losses.registry import CLASS_WEIGHTS, LOSSES
from fastssd.method_file import method_files
from fastssd.methods.options import TASKS
from fastssd.methods.registry import METHODS
from fastssd.models.registry import HEADS

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "fastssd"
MODULES = sorted(PACKAGE.rglob("*.py"))
MAX_LINES = 400

BASE = {"errors", "core", "native"}
PARTS = {"data", "augment", "models", "losses", "evaluation"}
"""They know nothing of each other: what they share travels as arrays."""
MAY_IMPORT = {
    # A room of the house: the rooms that its lines may import from, beside itself.
    "errors": set(),
    "native": {"errors"},
    "core": {"errors", "native"},
    "config": {"errors", "core"},
    "method_file": {"errors", "core"},
    "recipe_file": {"errors", "core", "config", "method_file"},
    **dict.fromkeys(PARTS, BASE),
    "tables": {*BASE, "config", *PARTS},
    "methods": {*BASE, "config", "tables", *PARTS},
    "training": {*BASE, "config", "tables", "methods", *PARTS},
    "runtime": {
        *BASE,
        "config",
        "method_file",
        "recipe_file",
        "tables",
        "methods",
        "training",
        "fastssd",  # its version
        *PARTS,
    },
    "evaluation.__main__": {"errors", "core", "recipe_file", "runtime", "data", "evaluation"},
    "train": {"errors", "core", "recipe_file", "runtime"},
    "fastssd": set(),
}
LIBRARIES = {
    # Packages, or modules, of ours whose lines may import a library.
    "accelerate": {"training", "runtime"},
    "rich": {"runtime.console"},
    "matplotlib": {"evaluation"},
    "yaml": {"core.tree", "core.bounded_yaml", "recipe_file", "runtime.describe"},
    "omegaconf": set(),
}


def room_of(path):
    """Return the package, or the module directly in fastssd/, that a file belongs to."""
    if path == PACKAGE / "evaluation" / "__main__.py":
        return "evaluation.__main__"  # a command line, which stands above the rooms
    first = path.relative_to(PACKAGE).parts[0]
    return "fastssd" if first == "__init__.py" else first.removesuffix(".py")


def module_of(path):
    """Return a file's module, without the package's name."""
    return ".".join(path.relative_to(PACKAGE).with_suffix("").parts)


def imported(path):
    """Yield the modules that a file's lines import, those within functions too."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, f"{path}: a relative import"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def rooms_imported(path):
    """Yield the rooms of fastssd that a file imports from."""
    for name in imported(path):
        package, _, rest = name.partition(".")
        if package == "fastssd":
            room = rest.split(".")[0]
            is_room = (PACKAGE / room).is_dir() or (PACKAGE / f"{room}.py").is_file()
            yield room if room and is_room else "fastssd"


def test_every_import_follows_the_arrows():
    wrong = [
        f"{path.relative_to(ROOT)} imports {room}"
        for path in MODULES
        for room in rooms_imported(path)
        if room != room_of(path) and room not in MAY_IMPORT[room_of(path)]
    ]

    assert not wrong


def test_every_arrow_is_between_rooms_that_there_are():
    rooms = {room_of(path) for path in MODULES}

    assert rooms == MAY_IMPORT.keys()
    assert set().union(*MAY_IMPORT.values()) <= rooms


def test_the_arrows_have_no_circle():
    left = {room: set(others) for room, others in MAY_IMPORT.items()}
    while left:
        free = [room for room, others in left.items() if not others & left.keys()]
        assert free, f"a circle among {sorted(left)}"
        for room in free:
            del left[room]


@pytest.mark.parametrize("library", LIBRARIES)
def test_libraries_stay_where_they_are_needed(library):
    users = {
        module_of(path)
        for path in MODULES
        for name in imported(path)
        if name.partition(".")[0] == library
    }

    allowed = LIBRARIES[library]
    assert not {user for user in users if not any(f"{user}.".startswith(f"{a}.") for a in allowed)}
    assert not {a for a in allowed if not any(f"{user}.".startswith(f"{a}.") for user in users)}


def test_no_module_of_ours_has_the_name_of_a_top_level_module():
    # A launcher that runs fastssd/train.py puts fastssd/ first on the path.
    ours = {path.stem for path in PACKAGE.iterdir() if path.suffix == ".py" or path.is_dir()}

    others = set(packages_distributions()) - {"fastssd"}

    assert not ours & (sys.stdlib_module_names | others)


def test_what_a_recipe_comes_to_is_known_without_torch():
    modules = [
        *(f"fastssd.{module_of(path)}" for path in PACKAGE.rglob("*options.py")),
        "fastssd.losses.class_weights",
        "fastssd.recipe_file",
        "fastssd.runtime.make_graph",
    ]
    code = f"import sys, {', '.join(modules)}; assert 'torch' not in sys.modules"

    assert len(modules) > 5
    subprocess.run([sys.executable, "-c", code], check=True, cwd=ROOT)


def test_no_line_outside_registries_compares_the_name_of_what_a_recipe_chooses():
    names = {*METHODS, *LOSSES, *CLASS_WEIGHTS, *HEADS, *TASKS, *method_files()} - {"none"}

    found = [
        f"{path.relative_to(ROOT)}:{node.lineno}: {ast.unparse(node)}"
        for path in MODULES
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.Compare | ast.MatchValue)
        for constant in ast.walk(node)
        if isinstance(constant, ast.Constant) and constant.value in names
        if "schedule" not in ast.unparse(node)  # has a cosine too
    ]

    assert not found


def test_no_file_is_too_long_to_read_in_one_sitting():
    files = [
        path
        for folder in ("fastssd", "tools", "benchmarks")
        for path in (ROOT / folder).rglob("*.py")
    ]

    lengths = {path: len(path.read_text(encoding="utf-8").splitlines()) for path in files}

    assert not {str(path): length for path, length in lengths.items() if length > MAX_LINES}


def test_library_code_draws_from_no_global_generator():
    allowed = PACKAGE / "models" / "seeding.py"
    banned = ("np.random.seed", "random.seed(", "torch.manual_seed", "set_seed(")

    found = [
        f"{path.relative_to(ROOT)}: {call}"
        for path in MODULES
        if path != allowed
        for call in banned
        if call in path.read_text(encoding="utf-8")
    ]

    assert not found
