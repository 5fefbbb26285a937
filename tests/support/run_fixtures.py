"""A run's context on the tiny dataset, and trained stages for the later ones to stand on."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from torch import nn

from fastssd.core.processes import Processes
from fastssd.data.dataset import open_dataset
from fastssd.data.decode.decoders import build_decoder
from fastssd.data.workers import Workers
from fastssd.models.heads import ClassScale
from fastssd.recipe_file import Recipe, load_recipe
from fastssd.runtime.context import Context
from fastssd.runtime.graph import Graph, Stage
from fastssd.runtime.make_graph import make_graph


@dataclass(frozen=True, kw_only=True)
class TestContext(Context):
    """A context that knows its recipe, from which tests make the graph."""

    __test__ = False

    recipe: Recipe


@pytest.fixture
def one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture
def context(
    tmp_path: Path, arguments: Callable[..., list[str]], one_thread: None
) -> Callable[..., TestContext]:
    """Return what makes a context in a folder, under overrides of the tiny recipe."""

    def make(
        *overrides: str,
        output: Path | None = None,
        rank: int = 0,
        num_processes: int = 1,
        processes: Processes | None = None,
    ) -> TestContext:
        output = output or tmp_path / "run"
        output.mkdir(exist_ok=True)
        path, *rest = arguments(output, *overrides)
        recipe = load_recipe(path, rest)
        return TestContext(
            recipe=recipe,
            config=recipe.config,
            dataset=open_dataset(recipe.config.data.path),
            decoder=build_decoder("torchvision"),
            workers=Workers(
                rank=rank,
                num_processes=num_processes,
                threads=1,
                prefetch=1,
                device=torch.device("cpu"),
            ),
            output=output,
            processes=processes or Processes(is_main=rank == 0),
        )

    return make


@pytest.fixture
def graph_of() -> Callable[[TestContext], Graph]:
    """Return what makes the graph of a context's recipe."""

    def make(context: TestContext) -> Graph:
        return make_graph(context.recipe, context.facts())

    return make


@pytest.fixture
def stage_of(graph_of: Callable[[TestContext], Graph]) -> Callable[[TestContext, str], Stage]:
    """Return what finds a stage by its label, such as `ssd.II`, and makes its folder."""

    def find(context: TestContext, label: str) -> Stage:
        method, name = label.split(".")
        stage = graph_of(context).asked[method, name, context.config.all_seeds[0]]
        (context.output / stage.folder).mkdir(parents=True, exist_ok=True)  # as the pipeline does
        return stage

    return find


@pytest.fixture
def plant(stage_of: Callable[[TestContext, str], Stage]) -> Callable[..., None]:
    """Return what leaves stages with weights, as if trained: random ones, BatchNorm included."""
    from fastssd.runtime.build import build
    from fastssd.training.checkpoints import WEIGHTS, save_weights

    def leave(context: TestContext, *labels: str) -> None:
        for label in labels:
            stage = stage_of(context, label)
            method = build(stage, context)
            generator = torch.Generator().manual_seed(len(label))
            with torch.no_grad():
                for layer in method.modules():
                    if isinstance(layer, ClassScale):
                        layer.scale.uniform_(0.5, 2, generator=generator)
                    elif isinstance(layer, nn.BatchNorm2d) and "source" not in stage.sources:
                        layer.running_mean.normal_(0, 0.3, generator=generator)
                        layer.running_var.uniform_(0.5, 2, generator=generator)
            save_weights(context.output / stage.folder / WEIGHTS["last"], method)

    return leave
