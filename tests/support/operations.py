"""What a call costs, without a clock: the lines of Python that it runs, and the memory it takes."""

import sys
import tracemalloc
from collections.abc import Callable
from types import FrameType
from typing import Any, NamedTuple


class Cost(NamedTuple):
    """What a call cost: `outcome` is what it returned, or the exception that it raised."""

    outcome: Any
    lines: int
    peak_bytes: int


def cost_of(function: Callable[..., Any], *arguments: Any, at_most: int) -> Cost:
    """Call a function and count.

    Args:
        function: What is called.
        arguments: Its arguments.
        at_most: Lines after which the call is stopped, lest a test that fails takes for ever.
    """
    lines = 0

    def trace(frame: FrameType, event: str, argument: object) -> Any:
        nonlocal lines
        lines += event == "line"
        if lines > at_most:
            raise AssertionError(f"more than {at_most} lines of Python were run")
        return trace

    before = sys.gettrace()
    tracemalloc.start()
    sys.settrace(trace)
    try:
        outcome = function(*arguments)
    except AssertionError:
        raise
    except Exception as error:
        outcome = error
    finally:
        sys.settrace(before)
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
    return Cost(outcome, lines, peak)
