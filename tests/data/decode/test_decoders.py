import pytest

from fastssd.data.decode.decoders import DECODERS, build_decoder
from fastssd.errors import ConfigError


@pytest.mark.parametrize("name", list(DECODERS))
def test_a_decoder_says_its_name_and_filter_for_the_manifest(name):
    decoder = build_decoder(name)
    assert decoder.name == name
    assert decoder.filter


def test_auto_is_one_of_the_decoders():
    assert build_decoder("auto").name in DECODERS


def test_an_unknown_decoder_is_an_error_with_the_nearest_name():
    with pytest.raises(ConfigError, match=r"data\.decoder=torchvison.*did you mean torchvision"):
        build_decoder("torchvison")


def test_a_decoder_whose_module_is_missing_says_what_to_install(monkeypatch):
    monkeypatch.setattr("fastssd.data.decode.decoders.find_spec", lambda name: None)
    for name in ("torchvision", "auto"):
        with pytest.raises(ConfigError, match="pip install torchvision"):
            build_decoder(name)
