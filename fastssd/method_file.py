"""Methods as files: found by name, put under the options that speak of them."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from importlib import metadata, resources
from pathlib import Path
from typing import cast

from fastssd.core.tree import Leaf, Tree, copied, merge, nearest, origin_of, read_yaml
from fastssd.errors import ConfigError

METHODS_GROUP = "fastssd.methods"
"""Entry points of packages that bring methods: a name, and a package with NAME.yaml in it."""


@dataclass(frozen=True, kw_only=True)
class MethodFile:
    """A method as it is to be trained: its file under options, variant and command line.

    Attributes:
        name: In `methods`, folders and references.
        base: The name of its file; another one for a variant.
        path: Its file.
        title: What it is, in a few words.
        stages: By name, in the file's order.
        tables: By name.
        origin: Where it was asked for.
    """

    name: str
    base: str
    path: Path
    title: str
    stages: Mapping[str, Tree]
    tables: Mapping[str, Tree]
    origin: str


def read_method(name: str, base: str, path: Path, options: Tree, origin: str) -> MethodFile:
    """Return a method's file under its options, and under those of the variant, if it is one."""
    file = find_method(base, path, origin)
    content = read_yaml(file)
    sections = _sections(content, file)
    base = file.stem
    own = options.get(name, {}) if name != base else {}
    for layer in (options.get(base, {}), own):
        if isinstance(layer, Leaf):
            raise ConfigError(
                f"{layer.origin}: {name} is a method: set a key of one of its stages, such as "
                f"{name}.{next(iter(sections['stages']))}.KEY"
            )
        for part, block in layer.items():
            _put_over(part, block, sections, name, origin_of(block, origin))
    if name != base:
        _rename_rows(sections["stages"], own, name)
    title = content.get("title")
    return MethodFile(
        name=name,
        base=base,
        path=file,
        title=str(title.value) if isinstance(title, Leaf) else "",
        stages=cast(dict[str, Tree], sections["stages"]),
        tables=cast(dict[str, Tree], sections["tables"]),
        origin=origin,
    )


def _sections(content: Tree, file: Path) -> dict[str, Tree]:
    """Return a method's stages and tables.

    Raises:
        ConfigError: If the file has anything else, or no stage.
    """
    sections: dict[str, Tree] = {}
    for section in ("stages", "tables"):
        blocks = content.get(section, {})
        if isinstance(blocks, Leaf) or any(isinstance(block, Leaf) for block in blocks.values()):
            raise ConfigError(f"{origin_of(blocks, str(file))}: {section} holds blocks by name")
        sections[section] = copied(blocks)
    for key, value in content.items():
        if key not in (*sections, "title"):
            raise ConfigError(
                f"{origin_of(value, str(file))}: {key} is no key of a method"
                f"{nearest(key, (*sections, 'title'))}"
            )
    if not sections["stages"]:
        raise ConfigError(f"{file}: a method has stages, and this one has none")
    return sections


def _rename_rows(stages: Tree, own: "Leaf | Tree", name: str) -> None:
    """Let a variant's rows have its name, where it gives them none of its own."""
    for stage, block in stages.items():
        said = own.get(stage) if isinstance(own, dict) else None
        rows = block.get("rows") if isinstance(block, dict) else None
        if isinstance(rows, dict) and not (isinstance(said, dict) and "rows" in said):
            for head, row in rows.items():
                if isinstance(row, Leaf):
                    rows[head] = Leaf(f"{row.value} ({name})", row.origin)


def _put_over(
    part: str, block: "Leaf | Tree", sections: Mapping[str, Tree], method: str, origin: str
) -> None:
    for blocks in sections.values():
        if part in blocks:
            if isinstance(block, Leaf):
                raise ConfigError(f"{origin}: {method}.{part} is a block: set {method}.{part}.KEY")
            merge(blocks, {part: block})
            return
    known = [name for blocks in sections.values() for name in blocks]
    raise ConfigError(
        f"{origin}: {method}.{part} is no stage or table of {method} ({', '.join(known)})"
        f"{nearest(part, known)}"
    )


def find_method(name: str, recipe: Path, origin: str) -> Path:
    """Return a method's file: a path, `methods/` beside the recipe, ours, or a package's.

    Raises:
        ConfigError: If there is none of that name, with the nearest that there is.
    """
    if name.endswith((".yaml", ".yml")):
        path = Path(name) if Path(name).is_absolute() else recipe.parent / name
        if not path.is_file() and Path(name).is_file():
            path = Path(name)
        if not path.is_file():
            raise ConfigError(f"{origin}: methods: there is no file {name}")
        return path
    known = method_files(recipe)
    if name not in known:
        raise ConfigError(
            f"{origin}: methods: {name} is none of {', '.join(known)}{nearest(name, known)}"
        )
    return known[name]


def method_files(recipe: Path | None = None) -> dict[str, Path]:
    """Return the methods that are found by name, and their files."""
    folders = [
        Path(str(resources.files("fastssd"))) / "configs" / "methods",
        *(
            Path(str(resources.files(entry.value)))
            for entry in metadata.entry_points(group=METHODS_GROUP)
        ),
    ]
    if recipe is not None:
        folders.append(recipe.parent / "methods")
    return {
        path.stem: path
        for folder in folders
        if folder.is_dir()
        for path in sorted(folder.glob("*.yaml"))
    }


def own_method_files(recipe: Path, methods: Iterable[MethodFile]) -> dict[str, Path]:
    """Return the files, by name, that are only found from where a recipe is, or by their paths."""
    everywhere = {name: path.resolve() for name, path in method_files().items()}
    found = method_files(recipe) | {method.base: method.path for method in methods}
    return {name: path for name, path in found.items() if everywhere.get(name) != path.resolve()}
