"""The house: who may import whom, what files may be called, how long they may be."""

import ast
import sys
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "fastssd"
MODULES = sorted(PACKAGE.rglob("*.py"))
MAX_LINES = 400

BASE = {
    "errors",
    "untrusted",
    "buffers",
    "keyed",
    "files",
    "places",
    "reading",
    "config",
    "native",
}
PARTS = {"data", "augment", "models", "losses", "evaluation"}
MAY_IMPORT = {
    # A room of the house: the rooms that its lines may import from, beside itself.
    "errors": set(),
    "untrusted": set(),
    "keyed": {"native"},
    "files": {"errors", "reading"},
    "reading": {"errors"},
    "places": {"errors"},
    "native": {"errors"},
    "bounds": {"errors"},
    "config": {"bounds", "errors"},
    "bounded_yaml": {"reading"},
    "recipe_file": {"bounded_yaml", "config", "errors"},
    **{part: BASE - {"config"} for part in PARTS},
    "learning_rate": {"config"},
    "descent": {"config"},
    "console": {"evaluation", "streams", "untrusted"},
    "checkpoints": {"errors", "files", "reading"},
    "agreement": set(),
    "streams": set(),
    "signals": {"streams"},
    "liveness": {"native", "streams"},
    "run_directory": {
        "config",
        "errors",
        "files",
        "places",
        "reading",
        "recipe_file",
        "streams",
        "untrusted",
    },
    "hosts": {"data", "errors", "files", "stages"},
    "collectives": {"errors"},
    "resume": {"checkpoints", "collectives", "errors", "files", "reading"},
    "meter": {"evaluation"},
    "tracing": {"data", "files"},
    "launchers": {"errors"},
    "environment": {"config", "errors", "fastssd", "launchers"},
    "trainer": BASE
    | PARTS
    | {"checkpoints", "collectives", "console", "descent", "learning_rate", "meter", "tracing"}
    | {"agreement", "resume"},
    "stages": BASE | PARTS | {"checkpoints", "collectives"},
    "pipeline": BASE
    | PARTS
    | {"agreement", "checkpoints", "console", "resume", "stages", "trainer"},
    "run_report": {"config", "console", "data", "errors", "evaluation"},
    "session": BASE
    | PARTS
    | {
        "agreement",
        "console",
        "environment",
        "hosts",
        "launchers",
        "liveness",
        "pipeline",
        "run_report",
        "stages",
    },
    "evaluation.__main__": BASE
    | {"console", "data", "liveness", "recipe_file", "run_report", "session", "streams"},
    "train": BASE
    | {"agreement", "launchers", "liveness", "recipe_file", "run_directory", "session"}
    | {"signals", "streams"},
    "fastssd": set(),
}


def room_of(path):
    """Return the package, or the module directly in fastssd/, that a file belongs to."""
    if path == PACKAGE / "evaluation" / "__main__.py":
        return "evaluation.__main__"  # a command line, which stands above the rooms
    first = path.relative_to(PACKAGE).parts[0]
    return "fastssd" if first == "__init__.py" else first.removesuffix(".py")


def imports_of(path):
    """Yield the rooms of fastssd that a file imports from."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        names = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module:
            names = [node.module]
            if node.module == "fastssd":
                names = [f"fastssd.{alias.name}" for alias in node.names]
        for name in names:
            package, _, rest = name.partition(".")
            if package == "fastssd":
                room = rest.split(".")[0]
                is_room = (PACKAGE / room).is_dir() or (PACKAGE / f"{room}.py").is_file()
                yield room if room and is_room else "fastssd"


def test_every_import_follows_the_arrows():
    wrong = [
        f"{path.relative_to(ROOT)} imports {room}"
        for path in MODULES
        for room in imports_of(path)
        if room != room_of(path) and room not in MAY_IMPORT[room_of(path)]
    ]

    assert not wrong


def test_the_arrows_have_no_circle():
    left = {room: set(others) for room, others in MAY_IMPORT.items()}
    while left:
        free = [room for room, others in left.items() if not others & left.keys()]
        assert free, f"a circle among {sorted(left)}"
        for room in free:
            del left[room]


@pytest.mark.parametrize("library", ["accelerate", "omegaconf", "rich", "matplotlib"])
def test_libraries_stay_in_the_rooms_that_need_them(library):
    rooms = {
        "accelerate": {"trainer", "resume", "pipeline", "session", "environment", "hosts"},
        "omegaconf": {"recipe_file"},
        "rich": {"console"},
        "matplotlib": {"evaluation"},
    }[library]
    users = {
        room_of(path)
        for path in MODULES
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if (isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == library)
        or (
            isinstance(node, ast.Import)
            and any(alias.name.split(".")[0] == library for alias in node.names)
        )
    }

    assert users <= rooms


def test_no_module_of_ours_has_the_name_of_a_top_level_module():
    # A launcher that runs fastssd/train.py puts fastssd/ first on the path.
    ours = {path.stem for path in PACKAGE.iterdir() if path.suffix == ".py" or path.is_dir()}

    others = set(packages_distributions()) - {"fastssd"}

    assert not ours & (sys.stdlib_module_names | others)


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
