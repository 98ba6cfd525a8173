"""Data sets: published counts and statistics as oracle; damaged files by the text of their refusal."""

from __future__ import annotations

import gzip
import hashlib
import os
import struct
import subprocess
import sys

import numpy as np
import pytest

from neurosim import data
from neurosim.data import digits, idx
from neurosim.errors import NeurosimError

# ----------------------------------------------------------------------------------------------------- digits

# Per class, from the description that UCI publishes with the test part (optdigits.names).
UCI_COUNTS = [178, 182, 177, 183, 181, 182, 181, 179, 174, 180]


def test_digits_are_the_published_ones():
    images, labels = digits.read()
    assert images.shape == (1797, 64) and images.dtype == np.uint8
    assert images.min() == 0 and images.max() == 16
    assert np.bincount(labels).tolist() == UCI_COUNTS


def test_digits_equal_scikit_learns_copy():
    datasets = pytest.importorskip("sklearn.datasets", reason="scikit-learn is not installed (it is only an oracle)")
    images, labels = digits.read()
    expected = datasets.load_digits()
    np.testing.assert_array_equal(images, expected.data)
    np.testing.assert_array_equal(labels, expected.target)


def test_digits_sizes_types_and_range():
    dataset = data.load("digits")
    assert (dataset.name, dataset.shape, dataset.classes) == ("digits", (8, 8), 10)
    for part, size in (("train", 1437 - 143), ("validation", 143), ("test", 360)):
        images, labels = dataset.split(part)
        assert images.shape == (size, 64) and images.dtype == np.float64
        assert labels.shape == (size,) and labels.dtype == np.int64
        assert images.min() == 0.0 and images.max() == 1.0
        np.testing.assert_array_equal(images * 16, np.round(images * 16))


def test_digits_parts_are_disjoint_and_cover_everything():
    images, labels = digits.read()
    parts = digits.split_indices(labels)
    np.testing.assert_array_equal(np.sort(np.concatenate(parts)), np.arange(1797))
    dataset = data.load("digits")
    for part, rows in zip(data.SPLITS, parts, strict=True):
        got_images, got_labels = dataset.split(part)
        np.testing.assert_array_equal(got_images, images[rows] / 16)
        np.testing.assert_array_equal(got_labels, labels[rows])


def test_digits_parts_are_stratified():
    dataset = data.load("digits")
    for part in data.SPLITS:
        _, labels = dataset.split(part)
        share = np.array(UCI_COUNTS) * len(labels) / 1797
        # Largest remainder is off by less than 1; train is what two such roundings leave.
        assert np.abs(np.bincount(labels, minlength=10) - share).max() < (2 if part == "train" else 1)


def test_digits_order_is_mixed():
    """Classes do not come in blocks: neighbours share a class about once in ten, by chance."""
    dataset = data.load("digits")
    for part in data.SPLITS:
        _, labels = dataset.split(part)
        assert np.mean(labels[1:] == labels[:-1]) < 0.2
    assert len(set(dataset.train_labels[:100].tolist())) == 10


def test_digits_are_the_same_whatever_the_global_seed():
    np.random.seed(1)
    first = data.load("digits")
    np.random.seed(2)
    state = np.random.get_state()[1].copy()
    second = data.load("digits")
    np.testing.assert_array_equal(np.random.get_state()[1], state)
    for part in data.SPLITS:
        for a, b in zip(first.split(part), second.split(part), strict=True):
            np.testing.assert_array_equal(a, b)


def test_digits_split_is_frozen():
    """Frozen value: every result rests on this split. It must not change with NumPy, machine or release."""
    parts = digits.split_indices(digits.read()[1])
    text = ",".join(str(row) for part in parts for row in part)
    assert hashlib.md5(text.encode(), usedforsecurity=False).hexdigest() == "0fc6038bb24062b5d64b5c53c9b52be3"


def test_digits_do_not_need_scikit_learn():
    code = (
        "import sys; sys.modules.update(sklearn=None)\n"
        "from neurosim import data; print(len(data.load('digits').test_labels))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == "360"


# --------------------------------------------------------------------------------------------- names, Dataset


def test_unknown_name_suggests_the_nearest():
    known = ("digits", "mnist", "fashion_mnist", "cifar10", "cifar10_jpeg", "cifar100", "stl10")
    assert data.names() == known
    with pytest.raises(
        data.DataError, match=rf"no data set 'mnits'.*Did you mean 'mnist'\?.*{', '.join(known)}, images:PATH"
    ):
        data.load("mnits")
    assert issubclass(data.DataError, NeurosimError)


def test_unknown_split_suggests_the_nearest():
    with pytest.raises(data.DataError, match=r"no split 'valid'.*Did you mean 'validation'\?"):
        data.load("digits").split("valid")


@pytest.mark.parametrize(
    ("images", "labels", "message"),
    [
        ((2, 5), [0, 1], r"train_images has shape \(2, 5\); wanted \(N, 4\)"),
        ((2, 4), [0], r"train_labels has shape \(1,\); wanted one label for each of the 2 images"),
        ((2, 4), [0, 3], r"train_labels run from 0 to 3; wanted 0 to 2 for 3 classes"),
    ],
)
def test_a_dataset_that_does_not_fit_together_is_refused(images, labels, message):
    empty = (np.zeros((0, 4)), np.zeros(0, dtype=np.int64))
    with pytest.raises(data.DataError, match=message):
        data.Dataset("mine", np.zeros(images), np.array(labels), *empty, *empty, shape=(2, 2), classes=3)


# ----------------------------------------------------------------------------------------------- one IDX file


def idx_bytes(array):
    """The IDX format written from its description, independently of the reader."""
    array = np.asarray(array, dtype=np.uint8)
    return struct.pack(f">BBBB{array.ndim}I", 0, 0, 8, array.ndim, *array.shape) + array.tobytes()


def md5(content):
    return hashlib.md5(content, usedforsecurity=False).hexdigest()


CUBE = np.arange(24, dtype=np.uint8).reshape(2, 3, 4) * 10
# The same file by hand: magic, 2, 3, 4, then the values.
CUBE_BYTES = bytes.fromhex("00000803 00000002 00000003 00000004") + bytes(range(0, 240, 10))


@pytest.mark.parametrize("name", ["cube", "cube.gz"])
@pytest.mark.parametrize("pack", [bytes, gzip.compress], ids=["plain", "gzip"])
def test_idx_is_read_and_gzip_is_told_by_its_bytes_not_its_name(tmp_path, name, pack):
    assert idx_bytes(CUBE) == CUBE_BYTES
    path = tmp_path / name
    path.write_bytes(pack(CUBE_BYTES))
    got = idx.read_idx(path, shape=(2, 3, 4), md5=md5(CUBE_BYTES))
    assert got.dtype == np.uint8
    np.testing.assert_array_equal(got, CUBE)


def refusal(tmp_path, content, **wanted):
    path = tmp_path / "some-images-idx3-ubyte"
    path.write_bytes(content)
    with pytest.raises(data.DataError) as caught:
        idx.read_idx(path, **wanted)
    message = str(caught.value)
    assert str(path) in message
    assert "Fetch the file again" in message
    return message


def damaged_gzip():
    packed = bytearray(gzip.compress(CUBE_BYTES, mtime=0))
    packed[-8] ^= 1  # its CRC
    return bytes(packed)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "truncated: got 0 bytes"),
        (CUBE_BYTES[:10], "truncated: got 10 bytes, wanted a header of 16"),
        (CUBE_BYTES[:-5], "truncated: got 19 values, wanted 2 x 3 x 4 = 24"),
        (gzip.compress(CUBE_BYTES, mtime=0)[:-12], "truncated: its gzip stream stops before its end"),
        (gzip.compress(CUBE_BYTES[:-5], mtime=0), "truncated: got 19 values, wanted 2 x 3 x 4 = 24"),
        (damaged_gzip(), "damaged: its gzip stream cannot be unpacked"),
        (CUBE_BYTES + b"!", "too long: it goes on after the 2 x 3 x 4 = 24 values wanted"),
        (b"<!DOCTYPE html>", "starts with 3C 21 44 4F, wanted 00 00 08 03"),
        (idx_bytes([1, 2, 3]), "starts with 00 00 08 01, wanted 00 00 08 03"),
        (b"\0\0\x0d\x03" + CUBE_BYTES[4:], "starts with 00 00 0D 03, wanted 00 00 08 03"),
        (idx_bytes(CUBE[:1]), "holds 1 x 3 x 4 values, wanted 2 x 3 x 4"),
        (CUBE_BYTES[:-1] + b"!", f"wanted {md5(CUBE_BYTES)}"),
    ],
)
def test_idx_refusals_name_file_got_wanted_and_mend(tmp_path, content, message):
    assert message in refusal(tmp_path, content, shape=(2, 3, 4), md5=md5(CUBE_BYTES))


def test_idx_checksum_refusal_states_both_sums(tmp_path):
    wrong = CUBE_BYTES[:-1] + b"!"
    assert f"fails its checksum: got MD5 {md5(wrong)}, wanted {md5(CUBE_BYTES)}" in refusal(
        tmp_path, gzip.compress(wrong), md5=md5(CUBE_BYTES)
    )


def test_idx_false_header_asks_for_no_memory(tmp_path):
    huge = b"\0\0\x08\x04" + b"\xff" * 16
    assert "claims 4,294,967,295 x" in (said := refusal(tmp_path, huge)) and "wanted at most" in said


def test_idx_missing_file(tmp_path):
    with pytest.raises(data.DataError, match="nowhere cannot be read: No such file"):
        idx.read_idx(tmp_path / "nowhere")


# --------------------------------------------------------------------------------------- four files, tiny set

RANDOM = np.random.RandomState(3)
TINY_ARRAYS = (
    RANDOM.randint(0, 256, (7, 2, 3)),
    np.arange(7) % 3,
    RANDOM.randint(0, 256, (4, 2, 3)),
    np.arange(4) % 3,
)
TINY_FILES = dict(zip(idx.FILES, map(idx_bytes, TINY_ARRAYS), strict=True))
TINY = idx.IdxSource(
    name="tiny",
    folder="Tiny",
    md5=tuple(map(md5, TINY_FILES.values())),
    licence="none",
    train=5,
    validation=2,
    test=4,
    shape=(2, 3),
    classes=3,
)


def write_tiny(place, rename=str, pack=bytes):
    place.mkdir(parents=True, exist_ok=True)
    for name, content in TINY_FILES.items():
        (place / rename(name)).write_bytes(pack(content))


@pytest.mark.parametrize("place", ["Tiny/raw", "Tiny", "."])
@pytest.mark.parametrize(
    ("rename", "pack"),
    [
        (str, bytes),
        (lambda name: name + ".gz", gzip.compress),
        (lambda name: name.replace("-idx", ".idx"), bytes),
        (lambda name: name.replace("-idx", ".idx") + ".gz", gzip.compress),
    ],
    ids=["plain", "gzip", "dotted", "dotted gzip"],
)
def test_layouts_and_spellings(tmp_path, place, rename, pack):
    write_tiny(tmp_path / place, rename, pack)
    dataset = TINY.load(tmp_path)
    images, labels, test_images, test_labels = TINY_ARRAYS
    for part, wanted_images, wanted_labels in (
        ("train", images[:5], labels[:5]),
        ("validation", images[5:], labels[5:]),  # the last of the training set
        ("test", test_images, test_labels),
    ):
        got_images, got_labels = dataset.split(part)
        assert got_images.dtype == np.float32 and got_labels.dtype == np.int64
        np.testing.assert_allclose(got_images, wanted_images.reshape(-1, 6) / 255, rtol=1e-6)
        np.testing.assert_array_equal(got_labels, wanted_labels)
    assert dataset.shape == (2, 3) and dataset.classes == 3


def test_first_complete_place_wins(tmp_path):
    write_tiny(tmp_path)
    (tmp_path / "Tiny" / "raw").mkdir(parents=True)
    (tmp_path / "Tiny" / "raw" / idx.FILES[0]).write_bytes(b"alone")
    assert TINY.find(tmp_path) == tmp_path


def test_missing_files_are_listed_by_place(tmp_path):
    write_tiny(tmp_path / "Tiny" / "raw")
    (tmp_path / "Tiny" / "raw" / idx.FILES[3]).unlink()
    with pytest.raises(data.DataError) as caught:
        TINY.load(tmp_path)
    message = str(caught.value)
    assert f"{tmp_path / 'Tiny' / 'raw'} (missing: {idx.FILES[3]})" in message
    assert f"{tmp_path / 'Tiny'} (none of its 4 files)" in message
    assert f"{tmp_path} (none of its 4 files)" in message
    assert "--data-dir" in message and "NEUROSIM_DATA" in message


# --------------------------------------------------------------------------------------------- data directory


def test_no_directory_names_the_two_ways(monkeypatch):
    monkeypatch.delenv("NEUROSIM_DATA", raising=False)
    with pytest.raises(
        data.DataError, match=r"'mnist'.*no data directory was given.*--data-dir.*NEUROSIM_DATA.*'digits'"
    ):
        data.load("mnist")
    monkeypatch.setenv("NEUROSIM_DATA", "")
    with pytest.raises(data.DataError, match="no data directory was given"):
        data.load("mnist")


def test_absent_directory_says_where_it_came_from(tmp_path, monkeypatch):
    monkeypatch.setenv("NEUROSIM_DATA", str(tmp_path / "environment"))
    with pytest.raises(data.DataError, match=r"environment \(from NEUROSIM_DATA\) is not a directory"):
        data.load("mnist")
    with pytest.raises(data.DataError, match=r"argument \(from --data-dir\) is not a directory"):
        data.load("mnist", data_dir=tmp_path / "argument")


def test_data_dir_wins_over_the_environment(tmp_path, monkeypatch):
    (tmp_path / "environment").mkdir()
    write_tiny(tmp_path / "argument")
    monkeypatch.setenv("NEUROSIM_DATA", str(tmp_path / "environment"))
    monkeypatch.setitem(data._SOURCES, "tiny", TINY)
    assert len(data.load("tiny", data_dir=str(tmp_path / "argument")).train_labels) == 5
    with pytest.raises(data.DataError, match=r"Data set 'tiny' is not in .*environment"):
        data.load("tiny")


def test_status_tells_found_missing_and_refused(tmp_path, monkeypatch):
    monkeypatch.delenv("NEUROSIM_DATA", raising=False)
    write_tiny(tmp_path / "Tiny" / "raw")
    monkeypatch.setitem(data._SOURCES, "tiny", TINY)
    rows = {row.name: row for row in data.status(tmp_path)}
    assert list(rows) == [*data.names()] and rows["tiny"].name == data.names()[-1]
    assert rows["digits"].found and rows["digits"].licence.startswith("CC BY 4.0")
    loaded = data.load("digits")
    assert [len(loaded.split(part)[1]) for part in data.SPLITS] == [
        rows["digits"].train,
        rows["digits"].validation,
        rows["digits"].test,
    ]
    assert not rows["mnist"].found and rows["mnist"].where == "" and "is not in" in rows["mnist"].problem
    assert rows["tiny"].found and rows["tiny"].where == str(tmp_path / "Tiny" / "raw") and rows["tiny"].problem == ""

    (tmp_path / "Tiny" / "raw" / idx.FILES[1]).write_bytes(b"no labels")
    row = {row.name: row for row in data.status(tmp_path)}["tiny"]
    assert not row.found and row.where == str(tmp_path / "Tiny" / "raw") and idx.FILES[1] in row.problem
    assert not {row.name: row for row in data.status()}["tiny"].found


# --------------------------------------------------------------------------------------------- the real files

real = pytest.mark.skipif(
    not os.environ.get("NEUROSIM_DATA"),
    reason="NEUROSIM_DATA is not set: the real MNIST and FashionMNIST files are needed",
)

PUBLISHED = {
    # name: mean and sd of the training pixels; images per class, train and test.
    "mnist": (
        (0.1307, 0.3081),
        [5923, 6742, 5958, 6131, 5842, 5421, 5918, 6265, 5851, 5949],
        [980, 1135, 1032, 1010, 982, 892, 958, 1028, 974, 1009],
    ),
    "fashion_mnist": ((0.2860, 0.3530), [6000] * 10, [1000] * 10),
}


@real
@pytest.mark.parametrize("name", PUBLISHED)
def test_real_files_have_the_published_counts_and_statistics(name):
    (mean, sd), train_counts, test_counts = PUBLISHED[name]
    dataset = data.load(name)
    assert (dataset.name, dataset.shape, dataset.classes) == (name, (28, 28), 10)
    for part, size in (("train", 55_000), ("validation", 5_000), ("test", 10_000)):
        images, labels = dataset.split(part)
        assert images.shape == (size, 784) and images.dtype == np.float32
        assert images.min() == 0 and images.max() == 1
        assert labels.shape == (size,) and labels.dtype == np.int64
    labels = np.concatenate([dataset.train_labels, dataset.validation_labels])
    assert np.bincount(labels).tolist() == train_counts
    assert np.bincount(dataset.test_labels).tolist() == test_counts
    images = np.concatenate([dataset.train_images, dataset.validation_images])
    assert images.mean(dtype=np.float64) == pytest.approx(mean, abs=5e-5)
    assert images.std(dtype=np.float64) == pytest.approx(sd, abs=5e-5)


@real
def test_real_status_finds_both():
    rows = {row.name: row for row in data.status()}
    for name in PUBLISHED:
        assert rows[name].found, rows[name].problem


@real
def test_a_set_under_another_sets_name_is_recognised(tmp_path):
    """MNIST's files where FashionMNIST's are wanted: same shapes, told apart by the checksum only."""
    for path in idx.MNIST.find(data._directory("mnist", None)).iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    with pytest.raises(data.DataError, match=r"fails its checksum.*that is train-images-idx3-ubyte of mnist"):
        data.load("fashion_mnist", data_dir=tmp_path)
