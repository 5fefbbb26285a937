"""The decoders by the name that `data.decoder` gives them."""

import difflib
from collections.abc import Callable
from dataclasses import dataclass
from importlib.util import find_spec
from typing import TYPE_CHECKING

from fastssd.data.decode.decoder import Decoder
from fastssd.errors import ConfigError
from fastssd.native.library import INSTALL, library, problem

if TYPE_CHECKING:
    import torch

AUTO = "auto"
NATIVE = "native"
_THREADS_OF_GPU = 2
"""Of a DALI pipeline that decodes on a GPU: what is left for the host is reading headers."""
FFCV = "ffcv"
"""FFCV's own Loader, which is no `Decoder`: it draws its own crops; see `data/ffcv_loader.py`."""


@dataclass(frozen=True, kw_only=True, slots=True)
class DecoderEntry:
    """How to get a decoder.

    Attributes:
        requires: The module that it needs.
        install: What to type when that is missing.
        build: Makes the decoder, for a number of threads that work on one batch and where pixels
            are wanted; imports what it needs only then.
        problem: Why it cannot be used; empty where it can. By default, that its module is missing.
    """

    requires: str
    install: str
    build: "Callable[[int, torch.device | None], Decoder]"
    problem: Callable[[], str] | None = None

    @property
    def missing(self) -> str:
        """Why it cannot be used; empty where it can."""
        if self.problem is not None:
            return self.problem()
        return "" if _installed(self.requires) else f"the module {self.requires} is missing"

    @property
    def present(self) -> bool:
        """Whether it can be used."""
        return not self.missing


def _native(threads: int, device: "torch.device | None") -> Decoder:
    from fastssd.data.decode.native_decoder import NativeDecoder

    return NativeDecoder(threads=threads)


def _torchvision(threads: int, device: "torch.device | None") -> Decoder:
    from fastssd.data.decode.torchvision_decoder import TorchvisionDecoder

    return TorchvisionDecoder()


def _dali(threads: int, device: "torch.device | None") -> Decoder:
    import torch

    from fastssd.data.decode.dali_decoder import MIXED, DaliDecoder

    if device is None or device.type != "cuda":
        return DaliDecoder(threads=threads)
    index = torch.cuda.current_device() if device.index is None else device.index
    return DaliDecoder(device=MIXED, device_id=index, threads=_THREADS_OF_GPU)


def _no_kernels() -> str:
    return problem() if library() is None else ""


DECODERS: dict[str, DecoderEntry] = {
    # Best first: `auto` takes the first that is there.
    NATIVE: DecoderEntry(
        requires="fastssd.native", install=INSTALL, build=_native, problem=_no_kernels
    ),
    "torchvision": DecoderEntry(
        requires="torchvision", install="`pip install torchvision`", build=_torchvision
    ),
    "dali": DecoderEntry(
        requires="nvidia.dali", install="`pip install 'fastssd[dali]'`", build=_dali
    ),
}


def build_decoder(
    name: str = AUTO, *, threads: int = 1, device: "torch.device | None" = None
) -> Decoder:
    """Return the decoder of that name; `auto` is the best of those that are there.

    For `ffcv` it is that of `auto`: it decodes what FFCV's Loader does not, evaluation's images.

    Args:
        name: `data.decoder`.
        threads: That work on one batch, where the decoder has threads of its own: as many as the
            machine's for a caller that decodes one batch at a time.
        device: Where pixels are wanted: a decoder that works on GPUs takes this one. Omitted, it
            works on the CPU.

    Raises:
        ConfigError: If there is no such decoder, or what it needs is missing.
    """
    if name == FFCV and not _installed("ffcv"):
        raise ConfigError(
            f"data.decoder={name}: the module ffcv is missing: `pip install 'fastssd[ffcv]'`"
        )
    if name in (AUTO, FFCV):
        for entry in DECODERS.values():
            if entry.present:
                return entry.build(threads, device)
        installs = "; or ".join(entry.install for entry in DECODERS.values())
        raise ConfigError(f"data.decoder=auto: no decoder is installed: {installs}")
    if name not in DECODERS:
        choices = [AUTO, *DECODERS, FFCV]
        nearest = difflib.get_close_matches(name, choices, n=1)
        hint = f"; did you mean {nearest[0]}?" if nearest else ""
        raise ConfigError(f"data.decoder={name}: choose one of {', '.join(choices)}{hint}")
    entry = DECODERS[name]
    if missing := entry.missing:
        raise ConfigError(f"data.decoder={name}: {missing}: {entry.install}")
    return entry.build(threads, device)


def fallback_notice(name: str = AUTO) -> str:
    """Return what a person should know of the decoder that stands in; empty if there is nothing.

    Args:
        name: `data.decoder`, which `build_decoder` accepted.
    """
    missing = DECODERS[NATIVE].missing
    if name not in (AUTO, FFCV) or not missing:
        return ""
    return (
        f"{missing}: images are decoded by {build_decoder(name).name}, two to four times as "
        f"slowly; {INSTALL}"
    )


def _installed(module: str) -> bool:
    try:
        return find_spec(module) is not None
    except ModuleNotFoundError:  # the package that the module would be in
        return False
