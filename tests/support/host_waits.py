"""What would make the host wait for an accelerator."""

import warnings
from contextlib import contextmanager

import torch


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
