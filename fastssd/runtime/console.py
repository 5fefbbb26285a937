"""What a person sees while a run goes on: a live display on a terminal, plain lines elsewhere."""

import atexit
import math
import os
import sys
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import TYPE_CHECKING, Protocol, Self, TextIO, cast

from fastssd.core.streams import Lasting, lasting
from fastssd.core.untrusted import for_terminal
from fastssd.evaluation.shots import GROUPS, LIMITS
from fastssd.evaluation.tables import Row, aligned, paper_table, percent, table_notes

if TYPE_CHECKING:
    from rich.live import Live
    from rich.table import Table

_RATE_WINDOW = 20
"""Progress events over which the time left is estimated: long enough to hold an evaluation."""

PLAIN_INTERVAL = 5.0
"""Seconds between two lines of progress where there is no terminal; a stage's first and last line
are always shown."""


class Console:
    """Shows stages, progress, evaluations and the final table.

    What the stream does not take (a closed pipe, a lost terminal, a full disk) is left out: a run
    of days does not end because nobody can watch it. The final table then goes to standard error.

    Args:
        enabled: False shows nothing, as on all ranks but the first.
        stream: Where to; standard output if omitted.
        clock: Seconds from any start.
    """

    def __init__(
        self,
        *,
        enabled: bool,
        stream: TextIO | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._stream = lasting(sys.stdout if stream is None else stream)
        self._display: _Display | None = None
        if enabled:
            kind = _Live if _is_terminal(self._stream) else _Plain
            self._display = kind(self._stream)
        self._clock = clock
        self._seconds_between_lines = 0.0 if isinstance(self._display, _Live) else PLAIN_INTERVAL
        self._last_shown = -math.inf
        self._stage = _Stage(title="", epochs=0, num_steps=0)
        self._recent: deque[tuple[float, int]] = deque(maxlen=_RATE_WINDOW)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def message(self, text: str) -> None:
        """Show a line."""
        self._show(lambda display: display.line(text))

    def warning(self, text: str) -> None:
        """Show a line that stands out."""
        self._show(lambda display: display.line(f"warning: {text}", style="yellow"))

    def stage_started(
        self, title: str, *, epochs: int, steps_per_epoch: int, first_step: int = 0
    ) -> None:
        """Show that a stage starts, or goes on.

        Args:
            title: Such as ``1-features``.
            epochs: Of the whole stage.
            steps_per_epoch: Optimizer steps.
            first_step: Steps done before, by the run that this one resumes.
        """
        self._stage = _Stage(title=title, epochs=epochs, num_steps=epochs * steps_per_epoch)
        self._recent.clear()
        self._last_shown = -math.inf
        self._recent.append((self._clock(), first_step))
        text = f"{title}: {epochs} epochs of {steps_per_epoch:,} steps"
        if first_step:
            text += f", resumed after step {first_step:,} of {self._stage.num_steps:,}"
        self._show(lambda display: display.stage_started(text))

    def progress(
        self,
        *,
        epoch: int,
        step: int,
        losses: Mapping[str, float],
        accuracy: Mapping[str, float],
        lr: float,
        images_per_second: float,
        data_wait_percent: float,
    ) -> None:
        """Show how far the stage is.

        Args:
            epoch: Counted from 0.
            step: Steps done since the stage began, over all epochs.
            losses: By term, in nats.
            accuracy: In percent, by task or group.
            lr: Learning rate.
            images_per_second: Over all devices.
            data_wait_percent: Share of the time in which the device waited for images.
        """
        stage = self._stage
        left = self._seconds_left(step)
        facts = [
            [
                f"epoch {min(epoch + 1, stage.epochs)}/{stage.epochs}",
                f"step {step:,}/{stage.num_steps:,}",
                f"{'?' if left is None else duration(left)} left",
            ],
            _named("loss", {term: _short(value) for term, value in losses.items()}),
            _named("accuracy", {key: f"{percent(value)}%" for key, value in accuracy.items()}),
            [
                f"lr {lr:.3g}",
                f"{images_per_second:,.0f} images/s",
                f"data wait {percent(data_wait_percent)}%",
            ],
        ]
        done = step / max(stage.num_steps, 1)
        # A job log of thousands of lines helps nobody; metrics.jsonl has every one of them.
        now = self._clock()
        if done < 1 and now - self._last_shown < self._seconds_between_lines:
            return
        self._last_shown = now
        self._show(lambda display: display.progress(stage.title, done, facts))

    def evaluated(self, split: str, heads: Mapping[str, Mapping[str, float | None]]) -> None:
        """Show accuracies in percent, by head and then by the keys of `accuracies`."""
        for head, groups in heads.items():
            others = ", ".join(
                f"{title} {percent(groups[key])}"
                for key, title in (("overall", "all"), *zip(GROUPS, GROUPS, strict=True))
                if key in groups
            )
            mean = percent(groups.get("class_mean"))
            text = f"{self._stage.title}  {split}, {head}: class mean {mean}%"
            self.message(f"{text} ({others})" if others else text)

    def stage_finished(self, seconds: float) -> None:
        """Show that the stage is done, and how long it took."""
        text = f"{self._stage.title}: done in {duration(seconds)}"
        self._show(lambda display: display.stage_finished(text))

    def table(self, rows: Sequence[Row]) -> None:
        """Show the paper's table.

        Args:
            rows: Those of ``report.json``, in its order.
        """
        if not rows:
            return
        header, cells = paper_table(rows)
        limits = ", ".join(f"{group} {LIMITS[group]}" for group in GROUPS)
        notes = [*table_notes(rows), f"Groups by training images of a class: {limits}."]
        self._show(lambda display: display.table(header, cells, notes))
        if self._display is not None and (problem := cast(Lasting, self._stream).problem):
            instead = _Plain(lasting(sys.stderr))
            instead.line(f"fastssd: standard output takes nothing ({problem}); its last words are:")
            instead.table(header, cells, notes)

    def close(self) -> None:
        """End the display and give the terminal back as it was. May be called again."""
        self._show(lambda display: display.close())

    def _show(self, draw: "Callable[[_Display], None]") -> None:
        if self._display is not None:
            draw(self._display)

    def _seconds_left(self, step: int) -> float | None:
        """Estimate from the recent pace, evaluations included; None before it is known."""
        now = self._clock()
        then, first = self._recent[0] if self._recent else (now, step)
        self._recent.append((now, step))
        if step <= first or now <= then:
            return None
        return (self._stage.num_steps - step) * (now - then) / (step - first)


@dataclass(frozen=True, kw_only=True, slots=True)
class _Stage:
    title: str
    epochs: int
    num_steps: int


class _Display(Protocol):
    """Where the console's lines and numbers go."""

    def line(self, text: str, *, style: str = "") -> None: ...

    def stage_started(self, text: str) -> None: ...

    def progress(self, title: str, done: float, facts: Sequence[Sequence[str]]) -> None:
        """Show a share of 1 and what is known, in groups that belong together."""

    def stage_finished(self, text: str) -> None: ...

    def table(
        self, header: Sequence[str], cells: Sequence[Sequence[str]], notes: Sequence[str]
    ) -> None: ...

    def close(self) -> None: ...


class _Plain:
    """One line an event and no control characters, for files, pipes and job logs."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def line(self, text: str, *, style: str = "") -> None:
        del style
        self._stream.write(_printable(text, self._stream) + "\n")
        self._stream.flush()

    def stage_started(self, text: str) -> None:
        self.line(text)

    def progress(self, title: str, done: float, facts: Sequence[Sequence[str]]) -> None:
        del done
        self.line("  ".join([title, *(fact for group in facts for fact in group)]))

    def stage_finished(self, text: str) -> None:
        self.line(text)

    def table(
        self, header: Sequence[str], cells: Sequence[Sequence[str]], notes: Sequence[str]
    ) -> None:
        shown = [[_printable(cell, self._stream) for cell in row] for row in cells]
        for text in ("", *aligned(header, shown), "", *notes):
            self.line(text)

    def close(self) -> None:
        """Nothing to give back."""


class _Live:
    """A few lines that stay at the bottom of the terminal while the others scroll above them.

    They are redrawn at each event, not by a thread: nothing runs beside the training loop.
    """

    def __init__(self, stream: TextIO) -> None:
        # Rich is slow to import, and of no use to anything but a terminal.
        from rich.console import Console as RichConsole

        self._stream = stream
        self._console = RichConsole(
            file=stream, force_terminal=True, markup=False, highlight=False, emoji=False
        )
        self._live: Live | None = None

    def line(self, text: str, *, style: str = "") -> None:
        self._console.print(_printable(text, self._stream), style=style or None, soft_wrap=True)

    def stage_started(self, text: str) -> None:
        from rich.live import Live

        self.close()
        self.line(text, style="bold")
        self._live = Live(console=self._console, auto_refresh=False, transient=True)
        # The cursor comes back even where nobody calls close().
        atexit.register(self.close)
        self._live.start()

    def progress(self, title: str, done: float, facts: Sequence[Sequence[str]]) -> None:
        if self._live is None:
            return
        self._live.update(self._status(title, done, facts), refresh=True)

    def stage_finished(self, text: str) -> None:
        self.close()
        self.line(text, style="green")

    def table(
        self, header: Sequence[str], cells: Sequence[Sequence[str]], notes: Sequence[str]
    ) -> None:
        from rich.table import Table

        self.close()
        shown = [[_printable(cell, self._stream) for cell in row] for row in cells]
        table = Table()
        for index, title in enumerate(header):
            table.add_column(title, justify="left" if index == 0 else "right", no_wrap=True)
        for row in shown:
            table.add_row(*row)
        plain = aligned(header, shown)
        if len(plain[0]) + len(header) + 3 <= self._console.width:  # with lines in between
            self._console.print(table)
        else:  # Rich would cut the numbers.
            for text in plain:
                self.line(text)
        for note in notes:
            self.line(note, style="dim")

    def close(self) -> None:
        live, self._live = self._live, None
        if live is not None:
            atexit.unregister(self.close)
            live.stop()

    def _status(self, title: str, done: float, facts: Sequence[Sequence[str]]) -> "Table":
        """Return a bar and below it a line for each group of facts."""
        from rich.progress_bar import ProgressBar
        from rich.table import Table

        bar = Table.grid(padding=(0, 1))
        bar.add_row(
            _printable(title, self._stream),
            ProgressBar(total=1.0, completed=done, width=30),
            f"{100 * done:.0f}%",
        )
        status = Table.grid()
        status.add_row(bar)
        for group in filter(None, facts):
            status.add_row(_printable("  " + "  ".join(group), self._stream))
        return status


def _named(what: str, values: Mapping[str, str]) -> list[str]:
    """Return one fact of all values, none without any."""
    text = ", ".join(f"{key} {value}" for key, value in values.items())
    return [f"{what}: {text}"] if values else []


def duration(seconds: float) -> str:
    """Return a time for people: ``42 s``, ``3 min 05 s``, ``2 h 10 min``, ``1 d 04 h``."""
    if seconds < 10:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    for unit, smaller, size in (("d", "h", 86_400), ("h", "min", 3_600), ("min", "s", 60)):
        if whole >= size:
            part = {"h": 3_600, "min": 60, "s": 1}[smaller]
            return f"{whole // size} {unit} {whole % size // part:02d} {smaller}"
    return f"{whole} s"


def _is_terminal(stream: TextIO) -> bool:
    return stream.isatty() and os.environ.get("TERM", "") not in ("", "dumb", "unknown")


def _printable(text: str, stream: TextIO) -> str:
    """Return one line that the stream can encode: a name from a dataset must not end a run."""
    return for_terminal(text, encoding=getattr(stream, "encoding", None) or "utf-8")


def _short(value: float) -> str:
    """Return three digits or so of a loss."""
    return f"{value:.4g}" if math.isfinite(value) else str(value)
