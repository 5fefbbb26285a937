"""A run's context on the tiny dataset, and trained stages for the later ones to stand on."""

from collections.abc import Callable, Iterator
from contextlib import nullcontext
from pathlib import Path

import pytest
import torch
from torch import nn

from fastssd.data.dataset import open_dataset
from fastssd.data.decode.decoders import build_decoder
from fastssd.recipe_file import load_config
from fastssd.runtime.context import Context
from fastssd.training.batches import Workers


@pytest.fixture
def one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture
def context(
    tmp_path: Path, arguments: Callable[..., list[str]], one_thread: None
) -> Callable[..., Context]:
    """Return what makes a context in a folder, under overrides of the tiny recipe."""

    def make(
        *overrides: str, output: Path | None = None, rank: int = 0, num_processes: int = 1
    ) -> Context:
        output = output or tmp_path / "run"
        output.mkdir(exist_ok=True)
        recipe, *rest = arguments(output, *overrides)
        config = load_config(recipe, rest)
        return Context(
            config=config,
            dataset=open_dataset(config.data.path),
            decoder=build_decoder("torchvision"),
            workers=Workers(
                rank=rank,
                num_processes=num_processes,
                threads=1,
                prefetch=1,
                device=torch.device("cpu"),
            ),
            output=output,
            is_main=rank == 0,
            autocast=nullcontext,
            reduce=lambda values: values,
            barrier=lambda: None,
            stop_if_asked=lambda: None,
        )

    return make


@pytest.fixture
def plant() -> Callable[..., None]:
    """Return what leaves stages with weights, as if trained: random ones, BatchNorm included."""
    from fastssd.runtime.jobs import jobs_of

    from fastssd.runtime.build import prepare
    from fastssd.training.checkpoints import save_weights

    def leave(context: Context, *folders: str) -> None:
        for job in jobs_of(context.config):
            if job.folder not in folders:
                continue
            stage = prepare(job, context).stage
            generator = torch.Generator().manual_seed(len(job.folder))
            for layer in stage.modules():
                if job.kind != "balance" and isinstance(layer, nn.BatchNorm2d):
                    layer.running_mean.normal_(0, 0.3, generator=generator)
                    layer.running_var.uniform_(0.5, 2, generator=generator)
            with torch.no_grad():
                if job.kind == "balance":
                    stage.network.scale.scale.uniform_(0.5, 2, generator=generator)
            (context.output / job.folder).mkdir(exist_ok=True)
            save_weights(context.output / job.folder / "weights.safetensors", stage)

    return leave


@pytest.fixture
def job_of() -> Callable[..., object]:
    from fastssd.runtime.jobs import jobs_of

    def find(context: Context, folder: str) -> object:
        (context.output / folder).mkdir(exist_ok=True)  # as the pipeline does before it prepares
        return next(job for job in jobs_of(context.config) if job.folder == folder)

    return find
