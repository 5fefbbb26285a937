import pytest

from fastssd.data.decode.decoders import DECODERS, build_decoder, fallback_notice
from fastssd.errors import ConfigError


@pytest.mark.parametrize("name", list(DECODERS))
def test_a_decoder_says_its_name_and_filter_for_the_manifest(name):
    if not DECODERS[name].present:
        pytest.skip(DECODERS[name].missing)
    decoder = build_decoder(name)
    assert decoder.name == name
    assert decoder.filter


def test_auto_is_one_of_the_decoders():
    assert build_decoder("auto").name in DECODERS


def test_an_unknown_decoder_is_an_error_with_the_nearest_name():
    with pytest.raises(ConfigError, match=r"data\.decoder=torchvison.*did you mean torchvision"):
        build_decoder("torchvison")


@pytest.fixture
def no_kernels(monkeypatch):
    monkeypatch.setattr("fastssd.data.decode.decoders.library", lambda: None)
    monkeypatch.setattr("fastssd.data.decode.decoders.problem", lambda: "no kernels were built")


def test_auto_without_kernels_is_torchvision_and_says_so(no_kernels):
    assert build_decoder("auto").name == "torchvision"
    notice = fallback_notice("auto")
    assert "no kernels were built" in notice
    assert "torchvision" in notice
    assert "libjpeg" in notice
    assert not fallback_notice("torchvision")


def test_with_kernels_there_is_nothing_to_say():
    if not DECODERS["native"].present:
        pytest.skip(DECODERS["native"].missing)
    assert build_decoder("auto").name == "native"
    assert not fallback_notice("auto")


def test_the_native_decoder_without_kernels_says_what_to_install(no_kernels):
    with pytest.raises(ConfigError, match=r"data\.decoder=native: no kernels were built.*libjpeg"):
        build_decoder("native")


def test_a_decoder_whose_module_is_missing_says_what_to_install(monkeypatch, no_kernels):
    monkeypatch.setattr("fastssd.data.decode.decoders.find_spec", lambda name: None)
    for name in ("torchvision", "auto"):
        with pytest.raises(ConfigError, match="pip install torchvision"):
            build_decoder(name)


@pytest.mark.parametrize("name", ["dali", "ffcv"])
def test_a_decoder_whose_extra_is_missing_names_the_extra(monkeypatch, name):
    def absent(module):
        raise ModuleNotFoundError(f"No module named {module!r}")  # what a missing parent raises

    monkeypatch.setattr("fastssd.data.decode.decoders.find_spec", absent)
    with pytest.raises(ConfigError, match=rf"data\.decoder={name}.*fastssd\[{name}\]"):
        build_decoder(name)


def test_ffcvs_evaluation_is_decoded_by_the_best_decoder(monkeypatch):
    monkeypatch.setattr("fastssd.data.decode.decoders.find_spec", lambda name: object())
    assert build_decoder("ffcv").name == build_decoder("auto").name
