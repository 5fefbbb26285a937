"""The decoders by the name that `data.decoder` gives them."""

import difflib
from collections.abc import Callable
from dataclasses import dataclass
from importlib.util import find_spec

from fastssd.data.decode.decoder import Decoder
from fastssd.errors import ConfigError

AUTO = "auto"
FFCV = "ffcv"
"""FFCV's own Loader, which is no `Decoder`: it draws its own crops; see `data/ffcv_loader.py`."""


@dataclass(frozen=True, kw_only=True, slots=True)
class DecoderEntry:
    """How to get a decoder.

    Attributes:
        requires: The module that it needs.
        install: What to type when that module is missing.
        build: Makes the decoder; imports what it needs only then.
    """

    requires: str
    install: str
    build: Callable[[], Decoder]

    @property
    def present(self) -> bool:
        """Whether the module is installed."""
        return _installed(self.requires)


def _torchvision() -> Decoder:
    from fastssd.data.decode.torchvision_decoder import TorchvisionDecoder

    return TorchvisionDecoder()


def _dali() -> Decoder:
    import torch

    from fastssd.data.decode.dali_decoder import MIXED, DaliDecoder

    if torch.cuda.is_available():
        return DaliDecoder(device=MIXED, device_id=torch.cuda.current_device(), threads=2)
    return DaliDecoder()


DECODERS: dict[str, DecoderEntry] = {
    # Best first: `auto` takes the first whose module is installed.
    "torchvision": DecoderEntry(
        requires="torchvision", install="pip install torchvision", build=_torchvision
    ),
    "dali": DecoderEntry(
        requires="nvidia.dali", install="pip install 'fastssd[dali]'", build=_dali
    ),
}


def build_decoder(name: str = AUTO) -> Decoder:
    """Return the decoder of that name; `auto` is the best of those installed.

    For `ffcv` it is that of `auto`: it decodes what FFCV's Loader does not, evaluation's images.

    Raises:
        ConfigError: If there is no such decoder, or its module is not installed.
    """
    if name == FFCV and not _installed("ffcv"):
        raise _missing(name, "ffcv", "pip install 'fastssd[ffcv]'")
    if name in (AUTO, FFCV):
        for entry in DECODERS.values():
            if entry.present:
                return entry.build()
        installs = " or ".join(f"`{entry.install}`" for entry in DECODERS.values())
        raise ConfigError(f"data.decoder=auto: no decoder is installed: {installs}")
    if name not in DECODERS:
        choices = [AUTO, *DECODERS, FFCV]
        nearest = difflib.get_close_matches(name, choices, n=1)
        hint = f"; did you mean {nearest[0]}?" if nearest else ""
        raise ConfigError(f"data.decoder={name}: choose one of {', '.join(choices)}{hint}")
    entry = DECODERS[name]
    if not entry.present:
        raise _missing(name, entry.requires, entry.install)
    return entry.build()


def _installed(module: str) -> bool:
    try:
        return find_spec(module) is not None
    except ModuleNotFoundError:  # the package that the module would be in
        return False


def _missing(name: str, module: str, install: str) -> ConfigError:
    return ConfigError(f"data.decoder={name}: the module {module} is missing: `{install}`")
