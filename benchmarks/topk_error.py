r"""What the k largest logits keep of a teacher of 8,142 classes, and what the gradient loses.

The teacher is made, from a real network's features: stage I of the views study (ResNet-8) turns the
CIFAR-10 images into features; 8,142 of them are prototypes, every image belongs to the class of its
nearest prototype (so class sizes are uneven), and a linear classifier learns these classes. Since
nobody knows how sure iNaturalist's teacher will be, its logits are also scaled so that the mean
largest probability on held-out images is 0.1 to 0.9 at T = 1.

    python benchmarks/topk_error.py FOLDER --study runs/views --json docs/results/topk.json

For every k: the mass of the k largest classes at the distillation temperature (mean and the 5th
percentile over images), and the error of the gradient that the soft loss sends into the student's
logits when the rest of the mass is spread evenly over the other classes, relative to the length of
the true gradient, for a student that says the same everywhere (training begins) and for one halfway
between that and the teacher.
"""

import argparse
import json
import subprocess
import sys
from pathlib import Path

import torch
from torch import Tensor
from views_trial import Images, all_of, network

from fastssd.core.counter_rng import generator
from fastssd.core.files import write_atomically
from fastssd.data.dataset import open_dataset
from fastssd.training.checkpoints import load_weights

CLASSES, TEMPERATURE = 8142, 2.0
KEPT = (5, 10, 16, 32, 64, 128, 256, 512, 1024, 2048)
SURE = (0.1, 0.3, 0.5, 0.7, 0.9)


def main() -> int:
    """Measure, print, write."""
    options = _parser().parse_args()
    features = _features(options.folder, options.study)
    logits, accuracy = taught(features["train"], features["test"])
    rows = [{"teacher": "as trained", **error_of(logits[:2000], k)} for k in KEPT]
    for sure in SURE:
        scaled = logits[:2000] * scale_for(logits[:2000], sure)
        rows += [
            {"teacher": f"largest probability {sure:.1f}", **error_of(scaled, k)} for k in KEPT
        ]
    content = {
        "classes": CLASSES,
        "temperature": TEMPERATURE,
        "accuracy": accuracy,
        "largest_probability": float(logits.softmax(1).amax(1).mean()),
        "rows": rows,
    }
    print(f"accuracy {accuracy:.1f} %, largest probability {content['largest_probability']:.2f}")
    for row in rows:
        print(
            f"{row['teacher']:24} k {row['k']:5}: mass {row['mass']:.3f} "
            f"(5 %: {row['mass_5']:.3f}), "
            f"gradient error {row['error_begin']:.3f} / {row['error_half']:.3f}"
        )
    if options.json:
        options.json.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(options.json, json.dumps(content, indent=1) + "\n")
    return 0


def error_of(logits: Tensor, k: int) -> dict[str, float]:
    """Return mass and relative gradient errors of (B, C) teacher logits cut to k."""
    truth = (logits.double() / TEMPERATURE).softmax(1)
    values, places = truth.topk(k, dim=1)
    mass = values.sum(1)
    cut = ((1 - mass) / (CLASSES - k))[:, None].expand_as(truth).scatter(1, places, values)
    # The gradient of T^2 CE(softmax(s / T), p) in s is T (softmax(s / T) - p).
    wrong = (cut - truth).norm(dim=1)
    half = (logits.double() / (2 * TEMPERATURE)).softmax(1)
    return {
        "k": k,
        "mass": float(mass.mean()),
        "mass_5": float(mass.quantile(0.05)),
        "error_begin": float((wrong / (1 / CLASSES - truth).norm(dim=1)).mean()),
        "error_half": float((wrong / (half - truth).norm(dim=1)).mean()),
    }


def scale_for(logits: Tensor, sure: float) -> float:
    """Return the factor that brings the mean largest probability at T = 1 to `sure`."""
    low, high = 1e-3, 1e3
    for _ in range(40):
        middle = (low * high) ** 0.5
        if (logits * middle).softmax(1).amax(1).mean() < sure:
            low = middle
        else:
            high = middle
    return high


def taught(train: Tensor, test: Tensor) -> tuple[Tensor, float]:
    """Return a linear classifier's logits of `test`, and its accuracy there in percent."""
    random = generator(0, "prototypes", 0)
    prototypes = train[torch.from_numpy(random.choice(len(train), CLASSES, replace=False))]
    labels = torch.cat([torch.cdist(part, prototypes).argmin(1) for part in train.split(2000)])
    truth = torch.cat([torch.cdist(part, prototypes).argmin(1) for part in test.split(2000)])
    weight = torch.zeros(CLASSES, train.shape[1], requires_grad=True)
    bias = torch.zeros(CLASSES, requires_grad=True)
    optimizer = torch.optim.SGD([weight, bias], lr=1.0, momentum=0.9)
    num_steps = 20 * len(train) // 512
    for step in range(num_steps):
        optimizer.param_groups[0]["lr"] = 1.0 * (1 - step / num_steps)
        rows = torch.from_numpy(random.integers(0, len(train), 512))
        loss = torch.nn.functional.cross_entropy(train[rows] @ weight.T + bias, labels[rows])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    with torch.no_grad():
        logits = test @ weight.T + bias
    return logits, 100 * float((logits.argmax(1) == truth).float().mean())


@torch.no_grad()
def _features(folder: Path, study: Path) -> dict[str, Tensor]:
    """Return the normalised features of all images, by split."""
    path = study / "whole"
    if not path.exists():
        command = [sys.executable, "tools/convert_dataset.py", str(folder), str(path)]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    dataset = open_dataset(path)
    backbone, classifier, _ = network(0, "features", len(dataset.classes))
    weights = study / "seed-0" / "features.safetensors"
    load_weights(weights, torch.nn.ModuleList([backbone, classifier]))
    backbone.eval()
    features = {}
    for name in ("train", "test"):
        split = dataset.split(name)
        images, draws = Images(split, seed=0, stream="test"), all_of(split)
        parts = [
            backbone(images.views(draws[start : start + 500]).query)
            for start in range(0, len(draws), 500)
        ]
        features[name] = torch.cat(parts)
    mean, std = features["train"].mean(0), features["train"].std(0)
    return {name: (values - mean) / std for name, values in features.items()}


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description=__doc__.splitlines()[0], formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", type=Path, help="train/CLASS/* and test/CLASS/* of CIFAR-10")
    parser.add_argument("--study", type=Path, required=True, help="output of views_study.py")
    parser.add_argument("--json", type=Path, help="write the result here")
    return parser


if __name__ == "__main__":
    sys.exit(main())
