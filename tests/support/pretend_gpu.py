"""A GPU that there is not: code for GPUs runs on it, and its mistakes with devices are found.

Tensors on it keep their values in the host's memory, but say that they are on ``cuda:0``, mix with
none of the host's in an operation and give NumPy nothing. Operations compute what they do on the
CPU, so a whole run must end with the same numbers as a run on the CPU. Copies from page-locked
memory are late (`pretend_streams`).

What it is not: kernels and cuDNN are not CUDA's, and all but these copies is over when it was asked
for; mixed precision computes in float32; there is one GPU. Tensors are made on it by the thread
that entered the block; others may compute with them.
"""

import threading
from contextlib import ExitStack, contextmanager
from unittest import mock

import torch
from host_waits import needs_values
from pretend_streams import Event, Stream, Streams
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_flatten, tree_map

GPU, HOST = torch.device("cuda", 0), torch.device("cpu")
_MOVES = {"_to_copy", "copy_"}
_FROM_VALUES = {"tensor", "as_tensor", "asarray"}


class DeviceMixError(AssertionError):
    """An operation was given tensors of the host and of the GPU."""


class OnGpu(torch.Tensor):
    """A tensor on the GPU.

    To PyTorch's own code it is one of the device ``meta``, whose autograd needs no driver.

    Args:
        held: Its values, on the host.
    """

    @staticmethod
    def __new__(cls, held):
        return torch.Tensor._make_wrapper_subclass(
            cls,
            held.shape,
            strides=held.stride(),
            storage_offset=held.storage_offset(),
            dtype=held.dtype,
            layout=held.layout,
            device="meta",
        )

    def __init__(self, held):
        self.held = held

    __torch_function__ = torch._C._disabled_torch_function_impl
    device = property(lambda self: GPU)
    is_cuda = property(lambda self: True)
    is_meta = is_cpu = property(lambda self: False)

    def __repr__(self):
        return f"OnGpu({self.held})"

    def numpy(self, *args, **kwargs):
        raise TypeError("can't convert cuda:0 device type tensor to numpy")

    __array__ = numpy

    def data_ptr(self):
        raise DeviceMixError("the address of a tensor on the GPU is of no use on the host")

    def record_stream(self, stream):
        """Do nothing: nothing is ever under way."""

    def tolist(self):
        return self.cpu().tolist()

    @classmethod
    def __torch_dispatch__(cls, operation, types, args=(), kwargs=None):
        return _run(operation, args, kwargs or {})


class _Waits:
    """What made the host wait, in the threads that asked to know."""

    def __init__(self):
        self._here = threading.local()

    def note(self, what):
        if (found := getattr(self._here, "found", None)) is not None:
            found.append(what)

    @contextmanager
    def noted(self):
        before, self._here.found = getattr(self._here, "found", None), []
        try:
            yield self._here.found
        finally:
            self._here.found = before


_WAITS = _Waits()
_STREAMS = Streams()


@contextmanager
def pretended_gpu_refuses_waits():
    """Raise AssertionError at the end of the block if the host waited for the GPU inside it."""
    with _WAITS.noted() as found:
        yield
    assert not found, found


def _run(operation, args, kwargs):
    """Compute on the host what an operation computes on the devices of its tensors."""
    name = operation.overloadpacket.__name__
    tensors = [leaf for leaf in tree_flatten((args, kwargs))[0] if isinstance(leaf, torch.Tensor)]
    on_gpu = [tensor for tensor in tensors if isinstance(tensor, OnGpu)]
    # Numbers of the host may go with a kernel; arrays may not.
    of_host = [tensor for tensor in tensors if not isinstance(tensor, OnGpu) and tensor.dim()]
    if on_gpu and of_host and name not in _MOVES:
        shapes = [tuple(tensor.shape) for tensor in of_host]
        raise DeviceMixError(f"{operation}: tensors of cuda:0, and of cpu with shapes {shapes}")
    to_gpu = bool(on_gpu)
    if kwargs.get("device") is not None:
        to_gpu = _is_gpu(kwargs["device"])
        kwargs = {**kwargs, "device": HOST}
    _note_wait(operation, name, args, kwargs, on_gpu=on_gpu, of_host=of_host, to_gpu=to_gpu)
    if not operation.is_view:
        for tensor in on_gpu:
            _STREAMS.use(tensor.held)
    if name == "_to_copy" and to_gpu and not on_gpu and _may_be_late(kwargs, *of_host):
        held = torch.full_like(args[0], 77)  # what uninitialised memory may hold
        _STREAMS.copy(args[0], held)
        return OnGpu(held)
    kwargs.pop("non_blocking", None)
    held_args, held_kwargs = tree_map(_held, (args, kwargs))
    out = operation(*held_args, **held_kwargs)
    if name == "copy_":
        return args[0]
    given = {id(_held(tensor)): tensor for tensor in tensors}  # what is written to is returned

    def placed(value):
        if not isinstance(value, torch.Tensor):
            return value
        return given.get(id(value)) if id(value) in given else OnGpu(value) if to_gpu else value

    if name == "_to_copy" and id(out) in given:
        out = out.clone()
    return tree_map(placed, out)


def _may_be_late(kwargs, source=None):
    """Return whether a copy to the GPU is one of bytes, from page-locked memory."""
    if source is None or not kwargs.get("non_blocking") or kwargs.get("memory_format"):
        return False
    return (
        kwargs.get("dtype") in (None, source.dtype)
        and source.is_pinned()
        and source.is_contiguous()
    )


def _is_pinned(tensor):
    return _STREAMS.is_pinned(tensor)


def _held(value):
    return value.held if isinstance(value, OnGpu) else value


def _is_gpu(device):
    # PyTorch's own code asks for what it takes a tensor on the GPU for.
    return torch.device(device).type in ("cuda", "meta")


def _note_wait(operation, name, args, kwargs, *, on_gpu, of_host, to_gpu):
    if name in _MOVES:
        to_gpu = isinstance(args[0], OnGpu) if name == "copy_" else to_gpu
        if to_gpu and of_host:
            asked = bool(kwargs.get("non_blocking") or (name == "copy_" and args[2:] == (True,)))
            if not (asked and all(tensor.is_pinned() for tensor in of_host)):
                _WAITS.note(f"{name} to the GPU of {[tuple(each.shape) for each in of_host]}")
        elif on_gpu and not to_gpu:
            _WAITS.note(f"{name} from the GPU of {[tuple(each.shape) for each in on_gpu]}")
    elif on_gpu and needs_values(operation, args):
        _WAITS.note(str(operation))


class _Factories(TorchDispatchMode):
    """Makes tensors on the GPU."""

    def __torch_dispatch__(self, operation, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        if kwargs.get("device") is not None and _is_gpu(kwargs["device"]):
            return _run(operation, args, kwargs)
        return operation(*args, **kwargs)


class _Functions(TorchFunctionMode):
    """Does what would ask CUDA's driver before it becomes an operation."""

    def __torch_function__(self, function, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        name, device = getattr(function, "__name__", ""), kwargs.get("device")
        if name in _FROM_VALUES and device is not None and _is_gpu(device):
            return function(*args, **{**kwargs, "device": HOST}).to(GPU)
        if function is not torch.device:
            args, kwargs = tree_map(_indexed, (args, kwargs))
        return function(*args, **kwargs)


def _indexed(value):
    unnumbered = value == "cuda" if isinstance(value, str) else _is_cuda(value)
    return GPU if unnumbered else value


def _is_cuda(value):
    return isinstance(value, torch.device) and value.type == "cuda"


@contextmanager
def pretended_gpu():
    """Have one GPU inside the block; 8 GB of its 16 are free."""
    empty = torch.empty

    def empty_or_pinned(*shape, pin_memory=False, **kwargs):
        made = empty(*shape, **kwargs)
        return _STREAMS.pin(made) if pin_memory else made

    of_cuda = {
        "_lazy_init": lambda: None,
        "init": lambda: None,
        "is_available": lambda: True,
        "is_initialized": lambda: True,
        "is_bf16_supported": lambda *args, **kwargs: True,
        "device_count": lambda: 1,
        "current_device": lambda: 0,
        "set_device": lambda device: None,
        "get_device_name": lambda device=None: "pretended GPU",
        "get_device_capability": lambda device=None: (9, 0),
        "mem_get_info": lambda device=None: (8 << 30, 16 << 30),
        "default_generators": (torch.Generator(),),
        "Stream": Stream,
        "Event": Event,
        "current_stream": _STREAMS.current,
        "stream": _STREAMS.on,
        "synchronize": lambda device=None: None,
    }
    with ExitStack() as stack:
        for name, value in of_cuda.items():
            stack.enter_context(mock.patch.object(torch.cuda, name, value))
        stack.enter_context(mock.patch.object(torch, "empty", empty_or_pinned))
        stack.enter_context(mock.patch.object(torch.Tensor, "is_pinned", _is_pinned))
        stack.enter_context(_Functions())
        stack.enter_context(_Factories())
        yield
