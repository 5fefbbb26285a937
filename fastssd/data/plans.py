"""Plans: the draws of every epoch of one use of the images, and how a recipe names them.

A plan speaks of the global sequence of draws and knows nothing of ranks, batches or pixels. Its
text is `SAMPLER[:OPTION=NUMBER,...]`, such as `class_aware:per_class=2`; several joined by `+`
draw as many images a row, such as `instance+reversed`.
"""

import difflib
import inspect
import re
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property, partial

import numpy as np

from fastssd.core import counter_rng
from fastssd.data.class_index import ClassIndex
from fastssd.data.draw_kernels import running_count
from fastssd.data.draws import Draws, pack_view, unpack_view
from fastssd.data.samplers import IMAGES_PER_CLASS_VISIT, SAMPLERS, Sampler
from fastssd.errors import ConfigError

__all__ = [
    "IMAGES_PER_CLASS_VISIT",
    "SAMPLERS",
    "ClassIndex",
    "Plan",
    "bind",
    "check_sampler",
    "running_count",
]

_ENDLESS = 2**32
_TOO_LARGE = 2**63
_JOINT = re.compile(r"\+(?=[^0-9])")
"""A plus between samplers, not that of a number such as 1e+2."""


@dataclass(frozen=True, kw_only=True)
class Plan:
    """The draws of every epoch of one use of the images.

    Attributes:
        index: The split's labels.
        sampler: Names of `SAMPLERS` with their options.
        seed: The run's seed.
        stream: What the draws are for; plans of different streams are independent.
        num_epochs: Epochs that will be drawn in all.
        num_views: If not None, every sample's views are mapped to this many, evenly over epochs:
            those of a table.
    """

    index: ClassIndex
    sampler: str
    seed: int
    stream: str
    num_epochs: int
    num_views: int | None = None

    def __post_init__(self) -> None:
        _check(self.sampler, key="plan", num_epochs=self.num_epochs)

    def epoch(self, epoch: int) -> Draws:
        """Return the N rows of one epoch; all draws are different over all epochs unless bound.

        One sampler gives samples and views of shape (N,), K of them (N, K). The columns are drawn
        independently; a sample that two of them have drawn has a view of its own in each.
        """
        columns = [
            sampler(self.index, self.seed, stream, epoch, self.num_epochs)
            for sampler, stream in zip(self._samplers, self._streams(), strict=False)
        ]
        samples = columns[0] if len(columns) == 1 else np.stack(columns, axis=1)
        draws = Draws(samples, pack_view(epoch, running_count(samples)))
        return draws if self.num_views is None else bind(draws, self.num_views, self.seed)

    @cached_property
    def _samplers(self) -> list[Sampler]:
        return _parse(self.sampler, key="plan")

    def _streams(self) -> Iterable[str]:
        """Yield each column's stream; the first is the plan's, as if there were no other."""
        yield self.stream
        for column in range(1, len(self._samplers)):
            yield f"{self.stream}/column {column}"


def check_sampler(text: str, *, key: str, num_epochs: int | None = None) -> None:
    """Raise ConfigError if a stage can't draw its images by this plan.

    Args:
        text: The sampler asked for, with its options.
        key: The config's key that names it.
        num_epochs: Epochs that will be drawn, where known.

    Raises:
        ConfigError: With the nearest name where a sampler or option is unknown.
    """
    num_columns = _check(text, key=key, num_epochs=num_epochs or _ENDLESS)
    if num_columns > 1:
        raise ConfigError(
            f"{key}={text} draws {num_columns} images a row, and the stages there are take one: "
            "name one sampler"
        )


def bind(draws: Draws, num_views: int, seed: int) -> Draws:
    """Return the draws with views below `num_views`: (epoch + repetition + hash(sample)) mod K.

    A sample drawn once an epoch visits its K views in turn; the hash keeps the samples of a batch
    from all being at the same view.
    """
    epochs, repetitions = unpack_view(draws.views)
    samples = draws.samples.ravel()
    chance = counter_rng.uniforms(
        seed, "view offset", samples, np.zeros_like(samples), field=0, count=1
    )
    shift = (chance[:, 0] * num_views).astype(np.int64).reshape(draws.samples.shape)
    return Draws(draws.samples, (epochs + repetitions + shift) % num_views)


def _check(text: str, *, key: str, num_epochs: int) -> int:
    """Return a plan's columns after a trial draw, in which samplers refuse options they can't use.

    Raises:
        ConfigError: If the text is wrong, or a sampler refuses.
    """
    samplers = _parse(text, key=key)
    few = ClassIndex(np.array([0, 0, 1], dtype=np.int64), num_classes=2)
    for sampler in samplers:
        try:
            sampler(few, 0, "trial", 0, num_epochs)
        except ConfigError as error:
            raise ConfigError(f"{key}={text}: {error}") from error
    return len(samplers)


def _parse(text: str, *, key: str) -> list[Sampler]:
    """Return the sampler of each column, its options set."""
    return [_parse_column(column, text=text, key=key) for column in _JOINT.split(text)]


def _parse_column(column: str, *, text: str, key: str) -> Sampler:
    name, colon, rest = column.partition(":")
    if name not in SAMPLERS:
        nearest = difflib.get_close_matches(name, SAMPLERS, n=1, cutoff=0.0)[0]
        where = f"{key}={text}" if column == text == name else f"{key}={text}: {name}"
        raise ConfigError(f"{where} is none of {', '.join(SAMPLERS)}; did you mean {nearest}?")
    sampler = SAMPLERS[name]
    kinds = {
        parameter.name: parameter.annotation
        for parameter in inspect.signature(sampler).parameters.values()
        if parameter.kind is parameter.KEYWORD_ONLY
    }
    options: dict[str, int | float] = {}
    for item in rest.split(",") if colon else []:
        option, equals, value = item.partition("=")
        if option not in kinds:
            raise ConfigError(f"{key}={text}: {_unknown_option(name, option, list(kinds))}")
        if not equals or option in options:
            example = f"{name}:{option}=NUMBER"
            raise ConfigError(f"{key}={text}: an option stands there once, as in {example}")
        try:
            options[option] = number = kinds[option](value)
        except ValueError as error:
            kind = "a whole number" if kinds[option] is int else "a number"
            raise ConfigError(f"{key}={text}: {option}={value} is not {kind}") from error
        if not abs(number) < _TOO_LARGE:
            raise ConfigError(f"{key}={text}: {option}={value} is not finite, or beyond 2**63")
    return partial(sampler, **options)


def _unknown_option(name: str, option: str, options: list[str]) -> str:
    if not options:
        return f"{name} takes no options"
    nearest = difflib.get_close_matches(option, options, n=1, cutoff=0.0)[0]
    return f"{name} has no option '{option}'; did you mean {nearest}?"
