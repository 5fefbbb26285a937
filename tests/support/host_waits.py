"""Finding where a step would make the host wait for an accelerator, on a machine without one.

A host waits where it needs a number that the device has still to compute: for a branch, for the
shape of a result, to print it; or where it copies from ordinary memory to the device. PyTorch
marks its operations of the first kind; the others have names of their own.
"""

import threading
import warnings
from contextlib import contextmanager

import torch
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

READS = {
    "__array__",
    "__bool__",
    "__complex__",
    "__float__",
    "__index__",
    "__int__",
    "cpu",
    "is_nonzero",
    "item",
    "numpy",
    "tolist",
}
"""Methods of tensors that give the host their values."""

COPIES = {"as_tensor", "asarray", "tensor"}
"""Functions of torch whose result starts in ordinary memory."""


class HostWaitError(AssertionError):
    """The host would have waited for the device."""


@contextmanager
def cuda_refuses_waits():
    """Have CUDA itself refuse them, on a machine with a GPU."""
    before = torch.cuda.get_sync_debug_mode()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # once it says that this is a prototype
            torch.cuda.set_sync_debug_mode("error")
        yield
    finally:
        torch.cuda.set_sync_debug_mode(before)


def needs_values(operation, args):
    """Return whether the host must know values of an operation's tensors before it can go on."""
    if operation.namespace != "aten":
        return False
    name = operation.overloadpacket.__name__
    if name.lstrip("_").startswith(("index_put", "unsafe_index")) or name == "index":
        # By numbers it is a gather; by a mask the shape depends on the mask's values.
        return any(
            index is not None and index.dtype in (torch.bool, torch.uint8) for index in args[1]
        )
    return bool(
        {torch.Tag.data_dependent_output, torch.Tag.dynamic_output_shape} & {*operation.tags}
    )


class _Operations(TorchDispatchMode):
    """Refuses operations whose result the host must know before it can go on."""

    def __torch_dispatch__(self, operation, types, args=(), kwargs=None):
        if needs_values(operation, args):
            raise HostWaitError(f"{operation} needs a value that the device has")
        return operation(*args, **(kwargs or {}))


class _Functions(TorchFunctionMode):
    """Refuses what never becomes an operation, because on the CPU there is nothing to do."""

    def __torch_function__(self, function, types, args=(), kwargs=None):
        name = getattr(function, "__name__", "")
        of_tensor = bool(args) and isinstance(args[0], torch.Tensor)
        if (of_tensor and name in READS) or name in COPIES:
            raise HostWaitError(f"{name} moves values between host and device")
        return function(*args, **(kwargs or {}))


class NoHostWaits:
    """Inside the block, this thread may do nothing that waits for an accelerator.

    Raises:
        HostWaitError: Where it does.
    """

    def __enter__(self):
        self._modes = (_Functions(), _Operations())
        for mode in self._modes:
            mode.__enter__()
        # The one function that no mode is told of. Loader threads may call it.
        self._from_numpy, thread = torch.from_numpy, threading.get_ident()

        def from_numpy(array):
            if threading.get_ident() == thread:
                raise HostWaitError("from_numpy moves values between host and device")
            return self._from_numpy(array)

        torch.from_numpy = from_numpy

    def __exit__(self, *error):
        torch.from_numpy = self._from_numpy
        for mode in reversed(self._modes):
            mode.__exit__(*error)
