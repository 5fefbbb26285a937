import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from fastssd.tables.stores import ids_dtype, k_of_bytes, top_rows


def randn(*shape, seed=0):
    return 3 * torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 1000),
    classes=st.integers(1, 30),
    temperature=st.floats(0.5, 8),
    data=st.data(),
)
def test_top_rows_are_the_largest_logits_and_the_mass_of_the_others(
    seed, classes, temperature, data
):
    k = data.draw(st.integers(1, classes))
    logits = randn(4, classes, seed=seed)

    rows = top_rows(logits, k, temperature, torch.uint16, torch.float32)

    powers = np.exp(logits.double().numpy() / temperature)
    soft = powers / powers.sum(axis=1, keepdims=True)
    for image in range(4):
        kept = sorted(np.argsort(-logits[image].numpy())[:k].tolist())
        assert rows["ids"][image].tolist() == kept
        assert rows["logits"][image].tolist() == logits[image, kept].tolist()
        rest = np.delete(soft[image], kept).sum()
        assert rows["rest"][image].item() == pytest.approx(rest, abs=1e-6)
    if k == classes:
        assert (rows["rest"] == 0).all()


def test_types_are_as_small_as_the_classes_allow():
    rows = top_rows(randn(2, 9), 3, 2.0, torch.uint16, torch.float16)
    assert (rows["ids"].dtype, rows["logits"].dtype) == (torch.uint16, torch.float16)
    assert rows["rest"].shape == (2, 1)
    assert [ids_dtype(classes) for classes in (8142, 65536, 65537)] == ["uint16", "uint16", "int32"]


@given(
    table_bytes=st.integers(0, 10**9),
    num_rows=st.integers(1, 10**6),
    num_classes=st.sampled_from([10, 8142, 100_000]),
    dtype=st.sampled_from(["float16", "float32"]),
)
def test_as_many_logits_are_kept_as_there_is_room_for(table_bytes, num_rows, num_classes, dtype):
    k = k_of_bytes(table_bytes, num_rows=num_rows, num_classes=num_classes, dtype=dtype)

    def size(k):
        each = np.dtype(dtype).itemsize + np.dtype(ids_dtype(num_classes)).itemsize
        return num_rows * (4 + k * each)

    assert k <= num_classes
    if k >= 1:
        assert size(k) <= table_bytes
    if k < num_classes:
        assert size(k + 1) > table_bytes
