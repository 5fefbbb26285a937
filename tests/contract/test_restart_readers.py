"""Files rewritten with restart markers, read by the programs of others."""

import io

import numpy as np
import pytest
from PIL import Image

from fastssd.data.convert import convert
from fastssd.data.dataset import open_dataset
from fastssd.data.decode.decoders import DECODERS, build_decoder
from fastssd.data.sources.sources import open_source

HEIGHT, WIDTH = 75, 113
KINDS = [
    {"subsampling": 0},
    {"subsampling": 1},
    {"subsampling": 2},
    {"subsampling": 2, "progressive": True},
    {"subsampling": 0, "restart_marker_blocks": 3},
    {"mode": "L"},
]

pytestmark = pytest.mark.kernels


def photo(seed):
    random = np.random.default_rng(seed)
    small = random.integers(0, 256, (9, 13, 3)).astype(np.uint8)
    large = Image.fromarray(small).resize((WIDTH, HEIGHT), Image.Resampling.BICUBIC)
    noisy = np.asarray(large) + random.normal(0, 6, (HEIGHT, WIDTH, 3))
    return Image.fromarray(noisy.clip(0, 255).astype(np.uint8))


@pytest.fixture(scope="module")
def datasets(tmp_path_factory):
    """The same files kept and rewritten, as opened training splits, and where they are."""
    root = tmp_path_factory.mktemp("restart")
    (root / "source" / "a").mkdir(parents=True)
    for number, options in enumerate(KINDS):
        options = dict(options)
        image = photo(number).convert(options.pop("mode", "RGB"))
        image.save(root / "source" / "a" / f"{number}.jpg", quality=90, **options)
    for format in ("ffcv", "webdataset"):
        for jpeg in ("keep", "restart"):
            convert(
                open_source(str(root / "source")),
                root / f"{format}-{jpeg}",
                format=format,
                jpeg=jpeg,
            )
    return root


def images(path):
    split = open_dataset(path).split("train")
    return [split.storage.read(sample) for sample in range(len(split))]


@pytest.mark.parametrize("format", ["ffcv", "webdataset"])
def test_pillow_sees_the_same_pixels_in_other_bytes(datasets, format):
    kept, rewritten = (images(datasets / f"{format}-{jpeg}") for jpeg in ("keep", "restart"))

    for old, new in zip(kept, rewritten, strict=True):
        before, after = (Image.open(io.BytesIO(image.data.tobytes())) for image in (old, new))
        assert old.data.tobytes() != new.data.tobytes()
        assert (before.mode, before.size) == (after.mode, after.size)
        assert np.array_equal(np.asarray(before), np.asarray(after))


@pytest.mark.parametrize("decoder", list(DECODERS))
def test_every_decoder_gives_the_same_crops(datasets, decoder):
    if not DECODERS[decoder].present:
        pytest.skip(f"{decoder} is not installed")
    kept, rewritten = (images(datasets / f"ffcv-{jpeg}") for jpeg in ("keep", "restart"))
    boxes = np.array([[[7 * i, 3 * i, 40, 50], [0, 0, WIDTH, HEIGHT]] for i in range(len(kept))])

    before, after = (build_decoder(decoder).decode(each, boxes, 24) for each in (kept, rewritten))

    # Ours scales while it decodes where the output is small; progressive files round otherwise.
    assert np.abs(before.astype(int) - after).max() <= (decoder == "native")


@pytest.mark.filterwarnings("ignore")  # ffcv's own
def test_ffcvs_loader_sees_the_same_pixels(datasets):
    pytest.importorskip("ffcv", reason="ffcv is not installed", exc_type=ImportError)
    from ffcv.fields.decoders import SimpleRGBImageDecoder
    from ffcv.loader import Loader, OrderOption
    from ffcv.pipeline.compiler import Compiler

    Compiler.set_enabled(False)  # compiling takes longer than all else
    try:
        seen = []
        for jpeg in ("keep", "restart"):
            loader = Loader(
                str(datasets / f"ffcv-{jpeg}" / "train.beton"),
                batch_size=len(KINDS),
                num_workers=1,
                order=OrderOption.SEQUENTIAL,
                drop_last=False,
                pipelines={"image": [SimpleRGBImageDecoder()], "label": None},
            )
            ((pixels,),) = list(loader)
            seen.append(np.array(pixels))
    finally:
        Compiler.set_enabled(True)

    assert seen[0].shape == (len(KINDS), HEIGHT, WIDTH, 3)
    assert seen[0].std() > 20
    assert np.array_equal(*seen)


def test_dalis_reader_sees_the_same_pixels(datasets):
    pytest.importorskip("nvidia.dali", reason="nvidia-dali is not installed")
    from nvidia.dali import fn, pipeline_def, types

    @pipeline_def(batch_size=len(KINDS), num_threads=1, device_id=None)
    def reader(folder):
        content = fn.readers.webdataset(
            paths=[str(folder / "train-000000.tar")],
            index_paths=[str(folder / "train-000000.idx")],
            ext=["jpg"],
        )
        return fn.decoders.image(content, device="cpu", output_type=types.RGB)

    seen = []
    for jpeg in ("keep", "restart"):
        pipeline = reader(datasets / f"webdataset-{jpeg}")
        pipeline.build()
        (decoded,) = pipeline.run()
        seen.append([np.asarray(decoded[i]) for i in range(len(KINDS))])

    for before, after in zip(*seen, strict=True):
        assert before.shape == (HEIGHT, WIDTH, 3)
        assert np.array_equal(before, after)
