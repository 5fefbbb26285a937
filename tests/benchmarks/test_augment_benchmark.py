"""The augmentation benchmark: it runs, and refuses to measure images that are wrong."""

import importlib.util
import json
from pathlib import Path

import pytest
import torch

SCRIPT = Path(__file__).resolve().parents[2] / "benchmarks" / "augment.py"


@pytest.fixture(scope="module")
def script():
    spec = importlib.util.spec_from_file_location("augment_benchmark", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(autouse=True)
def same_threads():
    threads = torch.get_num_threads()
    yield
    torch.set_num_threads(threads)


def part_of(script, images):
    recipe = script.build_recipe("imagenet", images.shape[1])
    return script.Part("query recipe", recipe, images, len(images))


def noise(batch, side):
    generator = torch.Generator().manual_seed(0)
    shape = (batch, side, side, 3)
    return torch.randint(0, 256, shape, generator=generator, dtype=torch.uint8)


def test_a_quick_run_writes_rates_of_every_way_for_every_recipe(script, tmp_path, monkeypatch):
    monkeypatch.setattr(script, "kornia", None)  # an extra that tests do not need

    code = script.main(["--quick", "--repeats", "1", "--json", str(tmp_path / "found.json")])

    assert code == 0
    found = json.loads((tmp_path / "found.json").read_text())
    assert found["environment"]["largest_difference"] < script.TOLERANCE
    rows = {row["name"]: row for row in found["rows"]}
    for section in ("query recipe", "key recipe", "CIFAR recipe"):
        for way in ("fastssd", "fastssd on PyTorch's operations", script.PER_IMAGE):
            assert rows[f"{way}, {section}"]["value"] > 0
            assert rows[f"{way}, {section}"]["unit"] == "images/s"
    assert rows["fastssd, key recipe"]["against"] == f"{script.PER_IMAGE}, key recipe"


def test_wrong_images_of_ours_stop_the_run(script, monkeypatch):
    right = script.Augmentation.apply

    def wrong(self, *arguments):
        views = right(self, *arguments)
        views.query[3, 0, 5, 5] += 1e-3
        return views

    part = part_of(script, noise(8, 16))
    assert script.check(part) < script.TOLERANCE
    monkeypatch.setattr(script.Augmentation, "apply", wrong)

    with pytest.raises(SystemExit, match=r"off by 0\.001"):
        script.check(part)


@pytest.mark.parametrize(
    "change", [lambda x: x[:, :, ::2], torch.Tensor.double, lambda x: 0 * x, lambda x: 9 + x]
)
def test_a_peer_that_makes_other_images_stops_the_run(script, change):
    part = part_of(script, noise(64, 16))
    reference = script.ours(part)()
    script.check_alike("peer", script.torchvision_per_image(part)(), reference)

    with pytest.raises(SystemExit, match="peer makes other images"):
        script.check_alike("peer", change(reference), reference)
