"""Nothing that a user may have been given is executed: no unsafe reader is called anywhere."""

import ast
import functools
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
SOURCES = sorted(
    path for folder in ("fastssd", "tools", "benchmarks") for path in (ROOT / folder).rglob("*.py")
)

# The last parts of dotted names of calls.
FORBIDDEN = {
    "pickle.load": "runs what a file says",
    "pickle.loads": "runs what a file says",
    "cPickle.load": "runs what a file says",
    "dill.load": "runs what a file says",
    "joblib.load": "runs what a file says",
    "marshal.load": "trusts a file",
    "marshal.loads": "trusts a file",
    "shelve.open": "runs what a file says",
    "pandas.read_pickle": "runs what a file says",
    "yaml.load": "makes any object: yaml.safe_load",
    "yaml.load_all": "makes any object: yaml.safe_load_all",
    "yaml.unsafe_load": "makes any object",
    "yaml.full_load": "makes many objects: yaml.safe_load",
    "register_new_resolver": "lets a config call functions",
    "eval": "runs text",
    "exec": "runs text",
    "os.system": "runs text",
    "os.popen": "runs text",
    "extractall": "writes where an archive says",
    "shutil.unpack_archive": "writes where an archive says",
    "torch.jit.load": "runs what a file says",
    "load_state_dict_from_url": "loads a pickle from the network",
    "torch.hub.load": "runs code from the network",
    "broadcast_object_list": "unpickles",
    "gather_object": "unpickles",
    "all_gather_object": "unpickles",
}


@functools.cache
def calls():
    return [
        (path, node, ast.unparse(node.func))
        for path in SOURCES
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.Call)
    ]


def option(node, name):
    return next((ast.unparse(each.value) for each in node.keywords if each.arg == name), None)


def test_no_call_loads_or_runs_what_a_file_says():
    found = [
        f"{path.relative_to(ROOT)}:{node.lineno}: {name} {FORBIDDEN[forbidden]}"
        for path, node, name in calls()
        for forbidden in FORBIDDEN
        if name == forbidden or name.endswith(f".{forbidden}")
        if not (forbidden == "eval" and "." in name)  # a network's
    ]
    assert not found


def test_weights_of_torch_are_loaded_as_weights_only():
    found = [
        f"{path.relative_to(ROOT)}:{node.lineno}"
        for path, node, name in calls()
        if name == "torch.load" and option(node, "weights_only") != "True"
    ]
    assert not found


def test_no_array_is_loaded_with_pickles():
    found = [
        f"{path.relative_to(ROOT)}:{node.lineno}"
        for path, node, name in calls()
        if option(node, "allow_pickle") not in (None, "False")
        or (name.endswith("fromfile") and "pickle" in ast.unparse(node))
    ]
    assert not found


def test_archives_are_read_where_they_lie():
    # tar.extract writes a member under the name that the archive gives it; extractfile does not.
    found = [
        f"{path.relative_to(ROOT)}:{node.lineno}: {name}"
        for path, node, name in calls()
        if name.endswith(".extract") and option(node, "filter") != "'data'"
    ]
    assert not found


def test_a_shell_is_never_given_text():
    found = [
        f"{path.relative_to(ROOT)}:{node.lineno}"
        for path, node, name in calls()
        if name.startswith("subprocess.") and option(node, "shell") not in (None, "False")
    ]
    assert not found


def test_no_module_uses_a_library_that_calls_what_a_pickle_names():
    users = {
        path
        for path in SOURCES
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.Import | ast.ImportFrom)
        and any(
            name.split(".")[0] in ("pickle", "cPickle", "dill", "joblib", "cloudpickle")
            for name in [getattr(node, "module", None) or "", *(a.name for a in node.names)]
        )
    }
    assert not users


def test_images_are_opened_as_one_of_some_kinds():
    # Pillow gives EPS to Ghostscript; torchvision's readers take a path, and any kind as well.
    found = [
        f"{path.relative_to(ROOT)}:{node.lineno}: {name}"
        for path, node, name in calls()
        if (name.endswith("Image.open") and option(node, "formats") is None)
        or name.endswith(("decode_image", "read_image", "default_loader", "pil_loader"))
    ]
    assert not found


# Modules that may read files or JSON by themselves, and what.
READ_THEMSELVES = {
    "core/exchange": "what another process of the run has just sent",
    "data/class_names": "a text that reading has read, as pairs",
    "core/reading": "all that others made",
    "runtime/environment": "/proc/cpuinfo",
    "data/storage/host_memory": "the system's files on control groups",
    "data/directory": "the lock of an unfinished directory",
    "data/meta_file": "the text that it has just written",
    "runtime/deciding": "what another process of the run has just sent",
    "runtime/record": "what it has just made",
    "tables/tabulate": "what it has just made",
}


def test_files_that_others_made_are_read_by_one_module():
    found = [
        f"{path.relative_to(ROOT)}:{node.lineno}: {name}"
        for path, node, name in calls()
        if path.is_relative_to(ROOT / "fastssd")
        and path.relative_to(ROOT / "fastssd").with_suffix("").as_posix() not in READ_THEMSELVES
        and (
            name.endswith((".read_bytes", ".read_text"))
            or name in ("json.load", "json.loads", "np.load")
            or (name.rpartition(".")[2] == "open" and not opens_no_file(node, name))
        )
    ]
    assert not found


def opens_no_file(node, name):
    """Return whether a call of an `open` is one for writing, or of something else than a file."""
    modes = [str(arg.value) for arg in node.args if isinstance(arg, ast.Constant)]
    writes = any(mode[:1] in "wax" or "+" in mode for mode in modes)
    return writes or name.startswith(("Image.", "os.", "STORAGES", "entry."))


@pytest.mark.parametrize(
    "value",
    [
        "${oc.env:HOME}",
        "${oc.decode:${oc.env:HOME}}",
        "${output}",
        "x${seed}",
        "!!python/object/apply:os.system [touch /tmp/never]",
        "!!python/name:os.system",
    ],
)
def test_a_config_resolves_and_makes_nothing(tmp_path, value):
    from fastssd.errors import ConfigError
    from fastssd.recipe_file import load_config

    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(f"output: {value}\ndata: {{path: x}}\naugment: {{size: 8}}\n")
    with pytest.raises(ConfigError):
        load_config(recipe)
    recipe.write_text("output: run\ndata: {path: x}\naugment: {size: 8}\n")
    with pytest.raises(ConfigError):
        load_config(recipe, [f"augment.mean={value}"])
