import json

import pytest

from fastssd.errors import DataError
from fastssd.evaluation.damaged_images import damage_file, read_damaged_images


def entry(sample, split="train", reason="it ends early"):
    return {
        "split": split,
        "sample": sample,
        "file": f"{split}/{sample}.jpg",
        "reason": reason,
        "replaced_by": sample + 1,
    }


def write(run, rank, *entries, end=""):
    lines = "".join(json.dumps(entry) + "\n" for entry in entries)
    damage_file(run, rank).write_text(lines + end, encoding="utf-8")


def test_a_run_without_damage_has_no_list(tmp_path):
    assert read_damaged_images(tmp_path) == []


def test_the_lists_of_all_processes_become_one_in_order_each_image_once(tmp_path):
    write(tmp_path, 0, entry(7), entry(2))
    write(tmp_path, 11, entry(5), entry(7, reason="another view of it"))
    write(tmp_path, 3, entry(1, split="extra"))

    found = read_damaged_images(tmp_path)

    assert found == [entry(1, split="extra"), entry(2), entry(5), entry(7)]


def test_a_line_that_a_kill_cut_short_is_left_out(tmp_path):
    write(tmp_path, 0, entry(2), end='{"split": "tr')

    assert read_damaged_images(tmp_path) == [entry(2)]


@pytest.mark.parametrize("line", ["nonsense", "[]", "{}", json.dumps(entry(2) | {"sample": "2"})])
def test_a_damaged_line_is_named(tmp_path, line):
    damage_file(tmp_path, 4).write_text(json.dumps(entry(2)) + "\n" + line + "\n", encoding="utf-8")

    with pytest.raises(DataError, match=r"damaged-images-4\.jsonl, line 2"):
        read_damaged_images(tmp_path)
