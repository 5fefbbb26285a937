import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from fastssd.errors import DataError
from fastssd.models.heads import build_head
from fastssd.tables.class_mass import Balancing, soft_labels
from fastssd.tables.files import Column, TableFiles
from fastssd.tables.stores import top_rows

CLASSES, ROWS, T = 6, 50, 2.0
LOGITS = 3 * torch.randn(ROWS, CLASSES, generator=torch.Generator().manual_seed(0))
SCALE = torch.linspace(0.5, 2, CLASSES)


def files_of(directory, columns, values):
    files = TableFiles(directory / "table", columns, num_rows=ROWS, block_rows=16)
    files.create()
    for block in range(files.num_blocks):
        rows = files.rows(block)
        files.write(block, {name: each[rows.start : rows.stop] for name, each in values.items()})
    return files


def balancing_of(directory, **tensors):
    save_file({f"network.{name}": each for name, each in tensors.items()}, directory / "weights")
    return Balancing(directory / "weights")


def described(soft):
    """Return class share, mean entropy and mean kept mass of (rows, C) float64 soft labels."""
    entropy = -(soft * np.log(soft)).sum(axis=1).mean()
    return soft.mean(axis=0), entropy, np.sort(soft)[:, ::-1].cumsum(axis=1).mean(axis=0)


def softmax(logits):
    powers = np.exp(logits.double().numpy() / T)
    return powers / powers.sum(axis=1, keepdims=True)


def check(found, soft):
    share, entropy, mass = described(soft)
    np.testing.assert_allclose(found.class_share, share, atol=1e-6)
    assert found.entropy == pytest.approx(entropy, abs=1e-5)
    np.testing.assert_allclose(found.kept_mass, mass, atol=1e-6)
    assert found.num_rows == ROWS


def labels_of(files, store, balancing):
    manifest = {"store": store, "classes": CLASSES, "temperature": T}
    return soft_labels(files, manifest, balancing, temperature=T, num_rows=999, seed=0)


def test_logits_tell_of_the_soft_labels_before_and_after_balancing(tmp_path):
    files = files_of(tmp_path, [Column("logits", "float32", CLASSES)], {"logits": LOGITS.numpy()})
    balancing = balancing_of(tmp_path, **{"scale.scale": SCALE})
    found = labels_of(files, "logits", balancing)
    check(found["before"], softmax(LOGITS))
    check(found["after"], softmax(LOGITS * SCALE))
    k = found["after"].k_for(0.9)
    mass = described(softmax(LOGITS * SCALE))[2]
    assert mass[k - 1] >= 0.9 > mass[k - 2]
    assert labels_of(files, "logits", Balancing(tmp_path / "none")).keys() == {"before"}


@pytest.mark.parametrize("kind", ["linear", "cosine"])
def test_features_tell_of_them_through_the_frozen_classifier(tmp_path, kind):
    head = build_head(kind, 9, CLASSES).requires_grad_(False)
    features = torch.randn(ROWS, 9, generator=torch.Generator().manual_seed(1))
    files = files_of(tmp_path, [Column("features", "float32", 9)], {"features": features.numpy()})
    state = {f"frozen.head.{name}": value for name, value in head.state_dict().items()}
    balancing = balancing_of(tmp_path, **{"scale.scale": SCALE}, **state)
    found = labels_of(files, "features", balancing)
    check(found["before"], softmax(head(features)))
    check(found["after"], softmax(head(features) * SCALE))
    assert labels_of(files, "features", Balancing(tmp_path / "none")) == {}


@pytest.mark.parametrize("k", [2, CLASSES])
def test_top_logits_tell_of_the_soft_labels_that_stage_three_learns_from(tmp_path, k):
    rows = top_rows(LOGITS, k, T, torch.uint16, torch.float32)
    columns = [Column("ids", "uint16", k), Column("logits", "float32", k)]
    columns.append(Column("rest", "float32", 1))
    files = files_of(tmp_path, columns, {name: each.numpy() for name, each in rows.items()})
    soft = softmax(LOGITS)
    kept = np.zeros_like(soft, dtype=bool)
    np.put_along_axis(kept, rows["ids"].long().numpy(), True, axis=1)
    rest = np.where(kept, 0, soft).sum(axis=1, keepdims=True) / max(CLASSES - k, 1)
    soft = np.where(kept, soft, rest)
    found = labels_of(files, "topk", Balancing(tmp_path / "none"))["after"]
    share, entropy, mass = described(soft)
    np.testing.assert_allclose(found.class_share, share, atol=1e-6)
    assert found.entropy == pytest.approx(entropy, abs=1e-5)
    np.testing.assert_allclose(found.kept_mass[:k], mass[:k], atol=1e-6)
    assert (found.kept_mass[k:] == 0).all()


def test_damaged_weights_are_named(tmp_path):
    (tmp_path / "weights").write_bytes(b"nothing")
    with pytest.raises(DataError, match="weights"):
        Balancing(tmp_path / "weights")
