"""The processes of a run as threads of this one, whose collectives are as strict as real ones."""

import threading

import torch

from fastssd.core.exchange import Exchange


class Process:
    """Stands for Accelerate on one of several processes.

    Args:
        rank: Its number.
        board: Where all leave what they exchange.
    """

    device = torch.device("cpu")
    scaler = None

    def __init__(self, rank, board):
        self.process_index, self.num_processes = rank, board.num_processes
        self.is_main_process = rank == 0
        self._board = board

    def gather(self, values):
        return torch.cat(self._board.exchanged(self.process_index, "gather", values))

    def reduce(self, values, reduction="sum"):
        return torch.stack(self._board.exchanged(self.process_index, "reduce", values)).sum(dim=0)

    def wait_for_everyone(self):
        self._board.exchanged(self.process_index, "barrier", torch.zeros(0))

    @property
    def exchange(self):
        return Exchange(
            rank=self.process_index,
            num_processes=self.num_processes,
            device=self.device,
            gather=self.gather,
            reduce=self.reduce,
        )


class _Board:
    def __init__(self, num_processes):
        self.num_processes = num_processes
        self._left = [None] * num_processes
        self._barrier = threading.Barrier(num_processes, timeout=30)

    def exchanged(self, rank, what, values):
        self._left[rank] = (what, values.clone())
        self._barrier.wait()
        left = list(self._left)
        self._barrier.wait()
        if len({(kind, each.dtype, each.shape) for kind, each in left}) != 1:
            raise RuntimeError(f"a collective of unequal calls: {left}")  # real ones die or hang
        return [each for _, each in left]

    def leave(self):
        self._barrier.abort()


def together(num_processes, work):
    """Return what `work(process)` returns on each of several processes; raise the first error."""
    board = _Board(num_processes)
    results, errors = [None] * num_processes, []

    def run(rank):
        try:
            results[rank] = work(Process(rank, board))
        except BaseException as error:
            errors.append(error)
            board.leave()

    threads = [threading.Thread(target=run, args=(rank,)) for rank in range(num_processes)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if errors:
        raise errors[0]
    return results
