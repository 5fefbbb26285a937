"""The decoders by the name that `data.decoder` gives them."""

import difflib
from collections.abc import Callable
from dataclasses import dataclass
from importlib.util import find_spec

from fastssd.data.decode.decoder import Decoder
from fastssd.errors import ConfigError

AUTO = "auto"


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
        return find_spec(self.requires) is not None


def _torchvision() -> Decoder:
    from fastssd.data.decode.torchvision_decoder import TorchvisionDecoder

    return TorchvisionDecoder()


DECODERS: dict[str, DecoderEntry] = {
    # Best first: `auto` takes the first whose module is installed.
    "torchvision": DecoderEntry(
        requires="torchvision", install="pip install torchvision", build=_torchvision
    ),
}


def build_decoder(name: str = AUTO) -> Decoder:
    """Return the decoder of that name; `auto` is the best of those installed.

    Raises:
        ConfigError: If there is no such decoder, or its module is not installed.
    """
    if name == AUTO:
        for entry in DECODERS.values():
            if entry.present:
                return entry.build()
        installs = " or ".join(f"`{entry.install}`" for entry in DECODERS.values())
        raise ConfigError(f"data.decoder=auto: no decoder is installed: {installs}")
    if name not in DECODERS:
        choices = [AUTO, *DECODERS]
        nearest = difflib.get_close_matches(name, choices, n=1)
        hint = f"; did you mean {nearest[0]}?" if nearest else ""
        raise ConfigError(f"data.decoder={name}: choose one of {', '.join(choices)}{hint}")
    entry = DECODERS[name]
    if not entry.present:
        raise ConfigError(
            f"data.decoder={name}: the module {entry.requires} is missing: `{entry.install}`"
        )
    return entry.build()
