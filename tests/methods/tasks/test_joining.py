import pytest
import torch

from fastssd.methods.tasks.joining import joined


def images(count, channels_last):
    found = torch.arange(count * 3 * 4 * 4.0).view(count, 3, 4, 4)
    return found.to(memory_format=torch.channels_last) if channels_last else found


@pytest.mark.parametrize("channels_last", [False, True])
@pytest.mark.parametrize("before", [0, 3])
def test_neighbours_in_memory_are_joined_without_a_copy(channels_last, before):
    whole = images(before + 10, channels_last)
    first, second = whole[before : before + 5], whole[before + 5 :]

    both = joined(first, second)

    assert torch.equal(both, torch.cat([first, second]))
    assert both.data_ptr() == first.data_ptr()
    assert both.is_contiguous(
        memory_format=torch.channels_last if channels_last else torch.contiguous_format
    )


@pytest.mark.parametrize(
    "pair",
    [
        (slice(5, 10), slice(0, 5)),  # the other way round
        (slice(0, 4), slice(5, 9)),  # with a gap
        (slice(0, 5), slice(0, 5)),
        (slice(0, 10, 2), slice(1, 10, 2)),
    ],
)
def test_others_are_joined_by_a_copy(pair):
    whole = images(10, channels_last=True)
    first, second = (whole[rows] for rows in pair)

    both = joined(first, second)

    assert torch.equal(both, torch.cat([first, second]))
    assert both.data_ptr() != first.data_ptr()


def test_different_pieces_of_memory_keep_channels_last():
    first, second = images(4, channels_last=True), images(4, channels_last=True)

    both = joined(first, second)

    assert torch.equal(both, torch.cat([first, second]))
    assert both.is_contiguous(memory_format=torch.channels_last)


def test_augmented_views_of_the_rotation_task_lie_one_behind_the_other(context):
    made = context()
    augmentation = made.augmentation("features", seed=0, rotate=True)
    samples = torch.arange(6).numpy()
    parameters = augmentation.parameters(samples, samples * 0)
    tensors = {name: torch.from_numpy(values) for name, values in parameters.items()}
    pixels = torch.randint(0, 256, (1, 6, 8, 8, 3), dtype=torch.uint8)

    views = augmentation.apply(pixels, tensors)

    both = joined(views.query, views.rotated)
    assert torch.equal(both, torch.cat([views.query, views.rotated]))
    if augmentation.executor(torch.device("cpu")).startswith("native"):
        assert both.data_ptr() == views.query.data_ptr()
