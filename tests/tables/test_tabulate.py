import threading

import numpy as np
import pytest
import torch

from fastssd.core.processes import Processes
from fastssd.data.draws import Draws, pack_view
from fastssd.errors import DataError, FastssdError
from fastssd.models.backbones import build_backbone
from fastssd.models.heads import LinearHead
from fastssd.models.networks import FrozenNetwork
from fastssd.models.seeding import seeded
from fastssd.tables import tabulate
from fastssd.tables.reader import Reader
from fastssd.tables.rows import DistinctDraws, EveryView
from fastssd.tables.stores import FeaturesStore, LogitsStore
from fastssd.training.batches import finished

NUM_VIEWS = 2


@pytest.fixture(autouse=True)
def small_blocks(monkeypatch):
    """A block holds two batches."""
    monkeypatch.setattr(tabulate, "_BLOCK_BATCHES", 2)


@pytest.fixture
def frozen():
    with seeded(0, "a test"):
        head = LinearHead(64, 10)
    return FrozenNetwork(build_backbone("resnet8", seed=0), head, batchnorm="frozen")


@pytest.fixture
def run(context):
    """Return what makes a context whose batches are small, as one process of several."""

    def make(**share):
        return context("evaluation.batch_size=16", **share)

    return make


def reader_of(made, stream="distill"):
    return made.reader(made.train, made.augmentation(stream, seed=0))


def about(stream="distill", **more):
    """Return what the rows depend on besides the network."""
    return {"decoder": "torchvision", "seed": 0, "identity": {"draws": stream}, **more}


@pytest.fixture
def table_of(run, frozen, tmp_path):
    """Return what makes a table of every view's logits in a folder."""

    def make(
        made=None, *, folder="table", stream="distill", views=NUM_VIEWS, dtype="float16", **more
    ):
        made = made or run()
        return tabulate.tabulated(
            tmp_path / folder,
            LogitsStore(frozen, made.num_classes, dtype),
            EveryView(len(made.train), views),
            reader=reader_of(made, stream),
            about=about(stream, **more),
        )

    return make


def directly(frozen, made, draws, stream, ask=None):
    """Return (B, C) logits, each draw alone in its batch."""
    augmentation = made.augmentation(stream, seed=0)
    fetch = made.fetch(made.train, augmentation, None)
    rows = [draws[np.array([i])] for i in range(len(draws))]
    frozen.eval()
    ask = ask or frozen
    return torch.cat([ask(finished(row, fetch(row), augmentation).images) for row in rows])


def content(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def some_of(rows, step=23) -> Draws:
    return rows.draws(np.arange(0, len(rows), step))


@pytest.mark.parametrize(("dtype", "tolerance"), [("float32", 1e-5), ("float16", 2e-2)])
def test_a_table_of_every_view_holds_what_the_network_says_of_each(
    run, frozen, table_of, tmp_path, dtype, tolerance
):
    made = run()
    table = table_of(made, dtype=dtype)

    some = some_of(table.rows)
    expected = directly(frozen, made, some, "distill")
    found = table.read(some)["table.logits"]
    torch.testing.assert_close(found.float(), expected, atol=tolerance, rtol=0)
    other_stream = directly(frozen, made, some, "features")
    assert (expected - other_stream).abs().max() > 0.05  # it would have told them apart
    assert np.load(tmp_path / "table/logits.npy", mmap_mode="r").dtype == dtype
    assert sorted(content(tmp_path / "table")) == ["logits.npy", "manifest.json"]


def test_a_table_of_distinct_draws_holds_what_the_network_says_of_each(run, frozen, tmp_path):
    made = run()
    draws = Draws(np.array([7, 3, 7, 7, 0]), pack_view([0, 1, 1, 0, 4], [0, 0, 2, 0, 1]))
    store, rows = LogitsStore(frozen, made.num_classes, "float32"), DistinctDraws(draws)

    table = tabulate.tabulated(
        tmp_path / "table", store, rows, reader=reader_of(made, "balance"), about=about("balance")
    )

    assert np.load(tmp_path / "table/logits.npy", mmap_mode="r").shape == (4, 10)
    expected = directly(frozen, made, draws, "balance")
    torch.testing.assert_close(table.read(draws)["table.logits"], expected, atol=1e-5, rtol=0)


def test_a_table_of_features_holds_what_the_classifier_is_applied_to(run, frozen, tmp_path):
    made = run()
    rows = EveryView(len(made.train), NUM_VIEWS)
    store = FeaturesStore(frozen, "float32")

    def make():
        return tabulate.tabulated(
            tmp_path / "table", store, rows, reader=reader_of(made), about=about()
        )

    table = make()

    some = some_of(rows)
    expected = directly(frozen, made, some, "distill")
    features = table.read(some)["table.features"]
    assert features.shape == (len(some), frozen.backbone.width)
    torch.testing.assert_close(frozen.head(features), expected, atol=1e-5, rtol=0)
    # Any other classifier on the same backbone reads the same table.
    with torch.no_grad():
        frozen.head.weight.mul_(2)
    make()


class Killed(BaseException):
    pass


def killed_after(table_of, run, number, **kwargs):
    """Make a table up to a batch, as a killed process leaves it."""
    left = [number]

    def ask():
        left[0] -= 1
        if not left[0]:
            raise Killed

    with pytest.raises(Killed):
        table_of(run(processes=Processes(interrupted=ask)), **kwargs)


def test_a_killed_pass_goes_on_at_its_first_unfinished_block_with_the_same_bits(
    run, table_of, tmp_path, monkeypatch
):
    table_of(folder="straight")
    asked, answers = [], Reader.answers

    def counted(self, *args):
        for draws, answer in answers(self, *args):
            asked.append(len(draws))
            yield draws, answer

    monkeypatch.setattr(Reader, "answers", counted)
    for batches in (5, 1, 4):  # two blocks, none, two blocks; 342 rows are 11 blocks of 32
        killed_after(table_of, run, batches)
        assert not (tmp_path / "table/manifest.json").exists()
    asked.clear()

    table_of()

    assert sum(asked) == 342 - 4 * 32
    assert content(tmp_path / "table") == content(tmp_path / "straight")


@pytest.mark.parametrize("torn", ["journal", "block", "file", "unfinished"])
def test_what_a_kill_or_the_disk_has_spoilt_of_an_unfinished_table_is_made_again(
    run, table_of, tmp_path, torn
):
    table_of(folder="straight")
    killed_after(table_of, run, 7)
    folder = tmp_path / "table"
    if torn == "journal":
        path = folder / "blocks-00000.jsonl"
        path.write_bytes(path.read_bytes()[:-9])
        table_of()
    elif torn == "block":
        damage(folder / "logits.npy", 128 + 40 * 20)
        with pytest.warns(UserWarning, match=r"logits\.npy: block 1 \(rows 32 to 63\) is damaged"):
            table_of()
    elif torn == "file":
        (folder / "logits.npy").write_bytes(b"half")
        with pytest.warns(UserWarning, match=r"logits\.npy: not the header .* made again"):
            table_of()
    else:
        (folder / "unfinished.json").unlink()  # killed before it was written
        table_of()
    assert content(folder) == content(tmp_path / "straight")


def damage(path, position):
    with path.open("rb+") as file:
        file.seek(position)
        byte = file.read(1)[0]
        file.seek(position)
        file.write(bytes([byte ^ 1]))


def test_damaged_blocks_of_a_finished_table_are_named_and_made_again(table_of, tmp_path):
    table_of()
    expected = content(tmp_path / "table")
    for row in (0, 100, 341):
        damage(tmp_path / "table/logits.npy", 128 + row * 20)
    with pytest.warns(UserWarning, match="is damaged") as warnings:
        table_of()
    blocks = sorted(int(str(each.message).split("block ")[1].split()[0]) for each in warnings)
    assert blocks == [0, 3, 10]
    assert content(tmp_path / "table") == expected


@pytest.mark.parametrize("harm", ["missing", "cut"])
def test_a_finished_table_whose_file_is_gone_is_made_again(table_of, tmp_path, harm):
    table_of()
    expected = content(tmp_path / "table")
    path = tmp_path / "table/logits.npy"
    if harm == "missing":
        path.unlink()
    else:
        path.write_bytes(expected["logits.npy"][:-1])
    with pytest.warns(UserWarning, match=r"logits\.npy"):
        table_of()
    assert content(tmp_path / "table") == expected


def test_a_finished_table_is_not_made_again(table_of, tmp_path, monkeypatch):
    table_of()
    monkeypatch.setattr(Reader, "answers", lambda *args: pytest.fail("asked again"))
    table_of()


def in_processes(run, number, make):
    """Call `make(context)` for every rank at once; threads stand in for processes."""
    meet = threading.Barrier(number, timeout=60)
    shared, failures = {}, []

    def processes(rank):
        def reduce(values):
            shared[rank] = values
            meet.wait()
            total = sum(shared[other] for other in range(number))
            meet.wait()
            return total

        return Processes(is_main=rank == 0, reduce=reduce, barrier=lambda: meet.wait() and None)

    def work(made):
        try:
            make(made)
        except BaseException as error:
            failures.append(error)
            meet.abort()

    contexts = [
        run(rank=rank, num_processes=number, processes=processes(rank)) for rank in range(number)
    ]
    threads = [threading.Thread(target=work, args=(made,)) for made in contexts]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return failures


@pytest.mark.parametrize("number", [2, 3])
def test_processes_fill_disjoint_parts_that_make_the_whole_table(run, table_of, tmp_path, number):
    whole = table_of(folder="whole", dtype="float32")
    failures = in_processes(run, number, lambda made: table_of(made, dtype="float32"))
    assert not failures
    one, other = (np.load(tmp_path / name / "logits.npy") for name in ("whole", "table"))
    np.testing.assert_allclose(one, other, atol=1e-5)  # their batches are of other sizes
    assert len(whole.rows) == len(other)
    assert sorted(content(tmp_path / "table")) == ["logits.npy", "manifest.json"]


def test_a_pass_of_one_process_is_finished_by_three_and_the_other_way_round(
    run, table_of, tmp_path
):
    table_of(folder="whole", dtype="float32")
    killed_after(table_of, run, 7, dtype="float32")
    begun = np.load(tmp_path / "table/logits.npy")[: 3 * 32]
    assert not in_processes(run, 3, lambda made: table_of(made, dtype="float32"))
    one, other = (np.load(tmp_path / name / "logits.npy") for name in ("whole", "table"))
    np.testing.assert_array_equal(begun, other[: 3 * 32])
    np.testing.assert_allclose(one, other, atol=1e-5)

    for row in (5, 330):
        damage(tmp_path / "table/logits.npy", 128 + row * 40)
    with pytest.warns(UserWarning, match="is damaged"):
        table_of(dtype="float32")
    other = np.load(tmp_path / "table/logits.npy")
    np.testing.assert_allclose(one, other, atol=1e-5)


def test_hosts_that_share_no_directory_are_told_so(run, frozen, table_of, tmp_path):
    def separately(made):
        folder = tmp_path / f"host{made.workers.rank}"
        folder.mkdir(exist_ok=True)
        if made.workers.rank:  # as if it were rank 0's, on another disk
            store = LogitsStore(frozen, made.num_classes, "float16")
            rows = EveryView(len(made.train), NUM_VIEWS)
            wanted = tabulate.wanted_manifest(store, rows, about())
            manifest = {"block_rows": 32, **wanted}
            tabulate._begin(tabulate.table_files(folder, manifest), manifest, {})
        table_of(made, folder=folder.name)

    failures = in_processes(run, 2, separately)
    messages = [str(failure) for failure in failures if isinstance(failure, DataError)]
    assert any("must share its output directory" in message for message in messages)


@pytest.mark.parametrize("is_finished", [True, False])
@pytest.mark.parametrize(
    ("other", "difference"),
    [
        ({"seed": 1}, "seed is 0, not 1"),
        ({"dtype": "float32"}, "columns.logits is ['float16', 10], not ['float32', 10]"),
        ({"stream": "balance"}, "identity.draws is 'distill', not 'balance'"),
        ({"views": NUM_VIEWS + 1}, "num_rows is 342, not 513; rows.views is 2, not 3"),
        ({"decoder": "native"}, "decoder is 'torchvision', not 'native'"),
    ],
)
def test_a_table_of_other_settings_is_refused_naming_them(
    run, table_of, tmp_path, other, difference, is_finished
):
    if is_finished:
        table_of()
    else:
        killed_after(table_of, run, 5)
    before = content(tmp_path / "table")
    with pytest.raises(DataError) as refusal:
        table_of(**other)
    assert difference in str(refusal.value)
    assert str(tmp_path / "table") in str(refusal.value)
    assert content(tmp_path / "table") == before


def test_a_table_of_another_network_is_refused(frozen, table_of, tmp_path):
    table_of()
    with torch.no_grad():
        frozen.head.bias[0] += 1e-3
    with pytest.raises(DataError, match=r"weights is"):
        table_of()


def test_another_library_version_warns_and_asks_the_network_again(
    frozen, table_of, tmp_path, monkeypatch
):
    table_of()
    versions = {"torch": "99.0", "numpy": "1", "fastssd": "1", "torchvision": "1"}
    monkeypatch.setattr(tabulate, "library_versions", lambda decoder: versions)
    with pytest.warns(UserWarning, match=r"torch .*, now 99\.0.* largest difference"):
        table_of()
    # As if the other library said something else altogether.
    frozen.register_forward_hook(lambda module, images, logits: logits * 1.5 + 0.1)
    with (
        pytest.warns(UserWarning, match="largest difference"),
        pytest.raises(DataError, match="not what its network says now"),
    ):
        table_of()


@pytest.mark.parametrize(
    ("factor", "dtype", "message", "exit_code"),
    [
        (1e9, "float16", r"of logits is not finite in float16: set tables\.dtype", 2),
        (float("nan"), "float32", "of logits is not finite in float32: .* has diverged", 1),
    ],
)
def test_answers_that_do_not_fit_are_refused(frozen, table_of, factor, dtype, message, exit_code):
    with torch.no_grad():
        frozen.head.weight.mul_(factor)
    with pytest.raises(FastssdError, match=message) as refused:
        table_of(dtype=dtype)
    assert refused.value.exit_code == exit_code


def test_a_fingerprint_depends_on_every_name_and_value():
    layer = torch.nn.BatchNorm2d(3)
    before = tabulate.fingerprint(layer)
    assert tabulate.fingerprint(torch.nn.BatchNorm2d(3)) == before
    layer.running_var[1] += 1e-6
    assert tabulate.fingerprint(layer) != before
    assert tabulate.fingerprint(torch.nn.Sequential(torch.nn.BatchNorm2d(3))) != before
