import pytest

from fastssd.tables.journal import (
    Journal,
    read_journals,
    remove_journals,
    replace_journals,
)

SUMS = {"logits": "0123abcd"}


def test_blocks_of_all_processes_are_read_back(tmp_path):
    for rank in (0, 1):
        with Journal(tmp_path, rank) as journal:
            journal.note(rank, SUMS)
            journal.note(rank + 2, {"logits": f"{rank:08x}"})
    found = read_journals(tmp_path, 4)
    assert found == {0: SUMS, 1: SUMS, 2: {"logits": "00000000"}, 3: {"logits": "00000001"}}


@pytest.mark.parametrize("length", range(0, 100, 7))
def test_a_line_that_a_kill_has_cut_does_not_hide_the_others(tmp_path, length):
    with Journal(tmp_path, 0) as journal:
        journal.note(0, SUMS)
        journal.note(1, SUMS)
    path = tmp_path / "blocks-00000.jsonl"
    content = path.read_bytes()
    one = len(content) // 2
    path.write_bytes(content[: min(length, len(content))])
    found = read_journals(tmp_path, 2)
    assert set(found) == {block for block in (0, 1) if length >= (block + 1) * one - 1}


@pytest.mark.parametrize(
    "line",
    [
        "",
        "null",
        "[]",
        '{"block": 0}',
        '{"block": "0", "crc32": {}}',
        '{"block": 9, "crc32": {}}',
        '{"block": 0, "crc32": {"logits": 1}}',
        '{"block": 0, "crc32": []}',
        "\ufffd",
        "[" * 9999,
    ],
)
def test_lines_that_say_nothing_are_passed_over(tmp_path, line):
    (tmp_path / "blocks-00000.jsonl").write_text(f'{line}\n{{"block": 1, "crc32": {{}}}}\n')
    assert read_journals(tmp_path, 2) == {1: {}}


def test_one_journal_takes_the_place_of_all(tmp_path):
    for rank in range(3):
        with Journal(tmp_path, rank) as journal:
            journal.note(rank, SUMS)
    replace_journals(tmp_path, {2: SUMS})
    assert read_journals(tmp_path, 3) == {2: SUMS}
    assert len(list(tmp_path.iterdir())) == 1
    remove_journals(tmp_path)
    assert not list(tmp_path.iterdir())
