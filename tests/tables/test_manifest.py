import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fastssd.errors import DataError
from fastssd.tables.files import Column
from fastssd.tables.manifest import (
    check_manifest,
    columns_of,
    found_manifest,
    read_manifest,
    version_changes,
    write_manifest,
)

CONTENT = {
    "store": "logits",
    "columns": {"logits": ["float16", 3]},
    "num_rows": 6,
    "block_rows": 4,
    "seed": 0,
    "network": {"weights": "abc", "precision": "no"},
    "versions": {"torch": "2.0", "numpy": "2.1"},
    "checksums": {"logits": ["00000000", "00000001"]},
}


@pytest.fixture
def path(tmp_path):
    write_manifest(tmp_path / "manifest.json", CONTENT)
    return tmp_path / "manifest.json"


def test_what_was_written_is_read_back(path):
    assert read_manifest(path) == CONTENT
    assert columns_of(CONTENT) == [Column("logits", "float16", 3)]
    assert found_manifest(path.parent) == (CONTENT, True)


def test_an_unfinished_table_has_no_checksums_and_none_at_all_no_manifest(tmp_path):
    assert found_manifest(tmp_path) == (None, False)
    content = {key: value for key, value in CONTENT.items() if key != "checksums"}
    write_manifest(tmp_path / "unfinished.json", content)
    assert found_manifest(tmp_path) == (content, False)


@settings(max_examples=200, deadline=None)
@given(data=st.data())
def test_a_flipped_bit_is_refused_or_changes_nothing(tmp_path_factory, data):
    path = tmp_path_factory.mktemp("table") / "manifest.json"
    write_manifest(path, CONTENT)
    content = bytearray(path.read_bytes())
    position = data.draw(st.integers(0, len(content) - 1))
    content[position] ^= 1 << data.draw(st.integers(0, 7))
    path.write_bytes(content)
    try:
        found = read_manifest(path)
    except DataError as error:
        message = str(error)
    else:
        assert found == CONTENT  # as a space that became another
        return
    assert str(path) in message
    assert "delete the table's folder" in message


@pytest.mark.parametrize("text", ["", "[1, 2]", '{"classes": 3}', "\x00", "[" * 99_999, "NaN"])
def test_what_is_no_manifest_is_refused_naming_it(path, text):
    path.write_text(text)
    with pytest.raises(DataError, match=r"manifest\.json"):
        read_manifest(path)


@pytest.mark.parametrize(
    "change",
    [
        {"columns": {"../../logits": ["float16", 3]}},
        {"columns": {"logits": ["O", 3]}},
        {"columns": {"logits": ["float16", -3]}},
        {"columns": 3},
        {"block_rows": 0},
        {"block_rows": "4"},
        {"num_rows": None},
        {"versions": []},
        {"checksums": {"logits": ["00000000"]}},
        {"checksums": {}},
    ],
)
def test_a_manifest_that_is_whole_but_makes_no_sense_is_refused(path, change):
    write_manifest(path, {**CONTENT, **change})
    with pytest.raises(DataError, match="no table"):
        read_manifest(path)


def test_a_table_of_something_else_is_refused_naming_what_differs(path):
    other = {**CONTENT, "versions": {"torch": "9"}, "block_rows": 9, "checksums": {}}
    check_manifest(path.parent, CONTENT, other)
    other = {**CONTENT, "seed": 1, "network": {"weights": "abd", "precision": "no"}, "k": 5}
    with pytest.raises(
        DataError, match=r"seed is 0, not 1; network\.weights is 'abc', not 'abd'; k is None, not 5"
    ):
        check_manifest(path.parent, CONTENT, other)


def test_other_library_versions_are_told_apart():
    now = {**CONTENT, "versions": {"torch": "2.0", "numpy": "3.0"}}
    assert version_changes(CONTENT, CONTENT) == []
    assert version_changes(CONTENT, now) == ["numpy 2.1, now 3.0"]


def test_a_manifest_is_plain_json(path):
    assert json.loads(path.read_text())["seed"] == 0
