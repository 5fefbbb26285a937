"""One process's part of a run: Accelerate, data and console set up, stages run, report written."""

import dataclasses
import json
from collections.abc import Callable, Mapping
from datetime import timedelta
from pathlib import Path
from types import TracebackType
from typing import Any, Self, cast

import torch
from accelerate import Accelerator
from accelerate.utils import DistributedDataParallelKwargs, InitProcessGroupKwargs
from torch import Tensor

from fastssd.config import Config
from fastssd.core.exchange import main_says
from fastssd.core.files import write_atomically
from fastssd.core.processes import Processes, Stopped
from fastssd.data.damage import Damage
from fastssd.data.dataset import open_dataset
from fastssd.data.decode.decoders import FFCV, build_decoder, fallback_notice
from fastssd.data.workers import Workers
from fastssd.errors import ConfigError, DataError, FastssdError
from fastssd.evaluation.damaged_images import damage_file
from fastssd.evaluation.report import build_report
from fastssd.evaluation.results import RESULT, Run, parse_row
from fastssd.recipe_file import Recipe
from fastssd.runtime import dry_run, environment, launchers
from fastssd.runtime.build import untrained
from fastssd.runtime.check import check_images, check_run
from fastssd.runtime.console import Console
from fastssd.runtime.context import Context
from fastssd.runtime.deciding import decided_by_main
from fastssd.runtime.dry_run import estimates
from fastssd.runtime.graph import Graph
from fastssd.runtime.hosts import check_hosts
from fastssd.runtime.make_graph import make_graph
from fastssd.runtime.measuring import measuring_context, trained_stages
from fastssd.runtime.pipeline import Runner
from fastssd.runtime.record import check_folders, write_graph
from fastssd.runtime.rows import measured_rows
from fastssd.runtime.run_report import make_report, warn_of_absent_classes
from fastssd.runtime.stop_signal import StopSignal
from fastssd.runtime.watchdog import Watchdog


class Session:
    """Everything a process needs to run a config.

    Args:
        recipe: With its methods.
        requested_signal: Returns the number of a signal that asks to stop, or 0.
        watchdog: Told of every step.

    Raises:
        ConfigError: If config, dataset, machine and processes do not go together.
        DataError: If the dataset is missing or damaged.
    """

    def __init__(
        self,
        recipe: Recipe,
        *,
        requested_signal: Callable[[], int],
        watchdog: Watchdog,
    ) -> None:
        config = recipe.config
        self._recipe = recipe
        launch = launchers.launch()
        self._watchdog = watchdog
        self._watchdog.doing = f"finding the other processes {launch.meeting_point}"
        environment.set_algorithms(config)
        launchers.check_passed_on()
        # The watchdog ends what hangs. Timeouts of Gloo and NCCL would also count the seconds in
        # which all processes were stopped.
        timeout = _FOR_EVER
        # Before anything else of Accelerate: a state made earlier would hide the other processes.
        self._accelerator = Accelerator(
            mixed_precision=config.precision,
            gradient_accumulation_steps=1,  # the trainer's own; Accelerate would divide the loss
            kwargs_handlers=[
                DistributedDataParallelKwargs(
                    # Broadcasting a key queue at every step would cost more than the gradients.
                    broadcast_buffers=False,
                    # Otherwise gradients are put into other buckets after the first step, where
                    # three and more processes sum them in another order: also after a resume.
                    find_unused_parameters=config.deterministic,
                ),
                InitProcessGroupKwargs(timeout=timeout),
            ],
        )
        environment.check_processes(self._accelerator, started=launch.num_processes)
        _check_precision(config, self._accelerator.device)
        environment.check_compiler(config, self._accelerator.device)
        threads = environment.set_threads(config, num_local_processes=launch.num_local_processes)
        self._config = config
        self._requested_signal = requested_signal
        self._stop_signal = StopSignal(self._asked_of_us, timeout=timeout)
        self._output = Path(config.output)
        self._console = Console(enabled=self._accelerator.is_main_process)
        self._context = Context(
            config=config,
            dataset=open_dataset(config.data.path),
            decoder=build_decoder(
                config.data.decoder, threads=threads, device=self._accelerator.device
            ),
            workers=Workers(
                rank=self._accelerator.process_index,
                num_processes=self._accelerator.num_processes,
                threads=threads,
                prefetch=config.data.prefetch,
                device=self._accelerator.device,
                read_ahead=config.data.read_ahead,
                timeout=config.data.timeout,
            ),
            output=self._output,
            processes=Processes(
                is_main=self._accelerator.is_main_process,
                autocast=self._accelerator.autocast,
                reduce=self._sum,
                barrier=self._accelerator.wait_for_everyone,
                main_says=self._main_says,
                stop_if_asked=self._stop_if_asked,
                interrupted=lambda: bool(self._stop_signal.asked()),
            ),
            damage=self._damage(),
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._console.close()
        # After an error the other processes may be in a collective that never ends: leave at once.
        if error is None:
            self._accelerator.end_training()
            if torch.distributed.is_initialized():
                torch.distributed.destroy_process_group()

    def run(self, *, on_checked: Callable[[], None], on_stage: Callable[[str], None]) -> None:
        """Run the stages that are not finished, and write the report.

        Args:
            on_checked: Called when nothing is left that would refuse the config.
            on_stage: Told the folder of each stage that begins.
        """

        def begin(folder: str) -> None:
            self._watchdog.doing = f"in {folder}"
            on_stage(folder)

        self._watchdog.doing = "checking the config"
        check_hosts(self._context, self._accelerator)
        check_images(self._context)
        self._context, kept = self._context.with_images_on_device()
        graph = self._graph()
        check_run(graph, self._context)
        decided_by_main(lambda: check_folders(graph, self._context), self._context)
        on_checked()
        if self._context.is_main:
            content = environment.describe(self._accelerator)
            write_atomically(
                self._output / "environment.json", json.dumps(content, indent=2) + "\n"
            )
            write_graph(self._output, graph)
        self._introduce(graph)
        if kept:
            self._console.message(kept)
        Runner(
            context=self._context,
            accelerator=self._accelerator,
            console=self._console,
            stop_signal=self._stop_signal,
            on_stage=begin,
        ).run(graph)
        self._watchdog.doing = "writing the report"
        failure = self._report() if self._context.is_main else None
        self._context.processes.barrier()  # The others have done their part, whatever it does.
        if failure is not None:
            raise failure

    def dry_run(self) -> None:
        """Say what the run would do and take; nothing is written."""
        self._watchdog.doing = "measuring a few steps"
        check_images(self._context)
        self._context, _ = self._context.with_images_on_device()
        graph = self._graph()
        check_run(graph, self._context)
        decided_by_main(lambda: check_folders(graph, self._context), self._context)
        self._introduce(graph)
        finished = [
            stage.folder
            for stage in graph.stages
            if (self._output / stage.folder / RESULT).exists()
        ]
        for line in dry_run.lines(estimates(graph, self._context, finished=finished)):
            self._console.message(line)

    def evaluate(
        self, *, only: Path | None = None, class_map: Mapping[str, str] | None = None
    ) -> dict[str, Any]:
        """Measure the trained stages of the run directory again, and show the table.

        Args:
            only: Measure this file of weights alone.
            class_map: The run's name for classes that the dataset calls otherwise.

        Returns:
            What `report.json` has: `rows`, `classes` and `train_counts`.

        Raises:
            ConfigError: If the dataset's classes are not the run's.
            DataError: If there is nothing to measure, or what there is is damaged.
        """
        # Without facts: the dataset may be another than that of the run, and lack its splits.
        found = trained_stages(make_graph(self._recipe), self._context, only=only)
        context = measuring_context(
            self._context, found, class_map or {}, say=self._console.warning
        )
        stages = []
        for trained in found:
            # Weights hold whole networks: nothing is taken from what the stage stood on.
            method = context.on_device(untrained(trained.stage, context))
            rows = tuple(
                parse_row(row, context.num_classes)
                for row in measured_rows(trained.stage, method, context, only=only)
            )
            stages.append(dataclasses.replace(trained.result, rows=rows))
        if not any(stage.rows for stage in stages):
            raise DataError(f"{only or self._output}: no weights of a finished stage are here")
        run = Run(stages=tuple(stages), unfinished=(), train_counts=stages[0].train_counts)
        report = build_report(run, class_names=context.dataset.classes)
        self._console.table(report["rows"])
        warn_of_absent_classes(self._config, context.dataset, self._console)
        return {key: report[key] for key in ("rows", "classes", "train_counts")}

    def _report(self) -> FastssdError | None:
        """Make the report, and return what kept it from being whole."""
        try:
            make_report(
                self._output,
                config=self._config,
                dataset=self._context.dataset,
                console=self._console,
            )
        except FastssdError as error:
            return error
        return None

    def _graph(self) -> Graph:
        """Return the run's graph, its nodes' identities those on this dataset and decoder."""
        return make_graph(self._recipe, self._context.facts())

    def _introduce(self, graph: Graph) -> None:
        """Say what is trained on what, and how batches and rates are cut."""
        config, context = self._config, self._context
        num_processes = context.workers.num_processes
        counts = context.train.counts
        if warning := launchers.overridden(config.precision):
            self._console.warning(warning)
        decoder = context.decoder.name
        if config.data.decoder == FFCV:
            from fastssd.data.ffcv_loader import NOTICE

            self._console.warning(NOTICE)
            decoder = FFCV
        elif notice := fallback_notice(config.data.decoder):
            self._console.warning(notice)
        self._console.message(
            f"{context.dataset.name}: {len(context.train)} training images of "
            f"{context.num_classes} classes, {counts.max()} to {counts.min()} a class"
        )
        warn_of_absent_classes(config, context.dataset, self._console)
        self._console.message(
            f"{num_processes} process(es) on {context.workers.device.type}, precision "
            f"{config.precision}, decoder {decoder}, {context.workers.threads} decode "
            f"and {torch.get_num_threads()} compute threads each"
        )
        executor = context.augmentation("check", seed=0).executor(context.workers.device)
        self._console.message(f"augmentation: {executor}")
        if config.compile:
            self._console.message("compiled networks: each stage's first steps wait for them")
        said = set()
        for stage in graph.stages:
            budget = stage.budget
            known = (stage.method, stage.name)  # whatever the seed
            if budget is None or known in said:
                continue
            said.add(known)
            share = budget.batch_size // (num_processes * budget.accumulate)
            self._console.message(
                f"{stage.label}: batch {budget.batch_size} = {num_processes} x "
                f"{budget.accumulate} x {share}, learning rate {budget.lr} for the whole batch "
                f"({budget.schedule}), {budget.epochs} epochs"
            )

    def _damage(self) -> Damage | None:
        """Return where damaged training images are noted, if others may replace them."""
        if self._config.data.on_error == "raise":
            return None
        path = damage_file(self._output, self._accelerator.process_index)
        return Damage(path, warn=self._console.warning)

    def _asked_of_us(self) -> int:
        self._watchdog.beat()  # Asked at every step, and at every batch of anything else.
        return self._requested_signal()

    def _stop_if_asked(self) -> None:
        if number := self._stop_signal.now():
            raise Stopped(number)

    def _main_says(self, number: int) -> int:
        accelerator = self._accelerator
        return main_says(
            number,
            is_main=accelerator.is_main_process,
            device=accelerator.device,
            reduce=self._sum,
        )

    def _sum(self, values: Tensor) -> Tensor:
        return cast(Tensor, self._accelerator.reduce(values, reduction="sum"))


_FOR_EVER = timedelta(days=365)


def _check_precision(config: Config, device: torch.device) -> None:
    # Accelerate would train in float32 there and still say fp16.
    if config.precision == "fp16" and device.type == "cpu":
        raise ConfigError("precision=fp16 needs a GPU: on the CPU choose bf16 or no")
