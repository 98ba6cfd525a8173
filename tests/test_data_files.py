"""CIFAR, STL-10, image folders, archives and the cache: files written here byte by byte, as the formats are described."""

from __future__ import annotations

import dataclasses
import hashlib
import io
import os
import pickle
import struct
import tarfile
import tracemalloc
import zlib

import numpy as np
import pytest
from PIL import Image

from neurosim import data
from neurosim.data import archive, cache, cifar, images, published, stl10
from neurosim.data.cifar import CifarBinary, CifarPython
from neurosim.data.published import PublishedSource

RANDOM = np.random.RandomState(5)


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("NEUROSIM_CACHE", str(tmp_path / "cache"))


def md5(content):
    return hashlib.md5(content, usedforsecurity=False).hexdigest()


def packed(files, mode="w:gz"):
    """A tar archive of names and contents; a `tarfile.TarInfo` in the place of a name is taken as it is."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode=mode) as tar:
        for name, content in files:
            member = name if isinstance(name, tarfile.TarInfo) else tarfile.TarInfo(name)
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
    return buffer.getvalue()


def flipped(content, at):
    return content[:at] + bytes([content[at] ^ 1]) + content[at + 1 :]


def refusal(call, *arguments):
    with pytest.raises(data.DataError) as caught:
        call(*arguments)
    return str(caught.value)


# ------------------------------------------------------------------------------------------------------ CIFAR

# Two training files of 3 and 2 images, a test file of 4: (planes, rows, columns), fine and coarse labels.
COUNTS = (3, 2, 4)
PIXELS = [RANDOM.randint(0, 256, (n, 3, 32, 32)).astype(np.uint8) for n in COUNTS]
FINE = [[7, 0, 9], [3, 3], [1, 2, 8, 9]]
COARSE = [[1, 0, 1], [1, 0], [0, 0, 1, 1]]


def binary_file(k, coarse):
    """One record after the other: label byte(s), then red, green and blue, each row by row."""
    content = b""
    for image, fine, group in zip(PIXELS[k], FINE[k], COARSE[k], strict=True):
        content += bytes([group, fine] if coarse else [fine])
        for plane in image:
            for row in plane:
                content += bytes(row.tolist())
    return content


# The pickle of a batch opcode by opcode, as Python 2 wrote it: protocol 2, texts and array contents as `str`, NumPy's
# function under its old name.
def short(text):
    return b"U" + bytes([len(text)]) + text.encode("latin1")


def number(k):
    return b"K" + bytes([k])


def python2_pickle(k, labels_key="labels"):
    pixels = PIXELS[k].tobytes()
    array = (
        b"cnumpy.core.multiarray\n_reconstruct\n" + b"cnumpy\nndarray\n" + number(0) + b"\x85" + short("b") + b"\x87R"
        b"(" + number(1) + number(len(FINE[k])) + b"M" + struct.pack("<H", 3072) + b"\x86"
        b"cnumpy\ndtype\n" + short("u1") + number(0) + number(1) + b"\x87R"
        b"(" + number(3) + short("|") + b"NNN" + b"J\xff\xff\xff\xff" * 2 + number(0) + b"tb"
        b"\x89" + b"T" + struct.pack("<i", len(pixels)) + pixels + b"tb"
    )  # fmt: skip
    labels = b"](" + b"".join(number(label) for label in FINE[k]) + b"e"
    return b"\x80\x02}(" + short("data") + array + short(labels_key) + labels + b"u."


BINARY_NAMES = ("a.bin", "b.bin", "t.bin")
PYTHON_NAMES = ("a", "b", "t")


def tiny_cifar(coarse=False, pickles=None):
    """A source of the tiny files, its checksums made from them; and the files of both forms."""
    binary = {name: binary_file(k, coarse) for k, name in enumerate(BINARY_NAMES)}
    key = "fine_labels" if coarse else "labels"
    pickles = pickles or {name: python2_pickle(k, key) for k, name in enumerate(PYTHON_NAMES)}
    # The test file first: the order in an archive is any.
    binary_archive = packed([(f"tiny-bin/{name}", content) for name, content in reversed(binary.items())])
    python_archive = packed([(f"tiny-py/{name}", content) for name, content in reversed(pickles.items())])
    source = PublishedSource(
        name="tiny", licence="none", train=4, validation=1, test=4, shape=(3, 32, 32), classes=10,
        forms=(
            CifarBinary(
                folder="tiny-bin", archive="tiny-bin.tar.gz", archive_md5=md5(binary_archive), records=COUNTS,
                files=dict.fromkeys(BINARY_NAMES), classes=(2, 10) if coarse else (10,),
            ),
            CifarPython(
                folder="tiny-py", archive="tiny-py.tar.gz", archive_md5=md5(python_archive), records=COUNTS,
                files={name: md5(content) for name, content in pickles.items()}, labels=key, classes=10,
            ),
        ),
    )  # fmt: skip
    return source, binary, pickles, binary_archive, python_archive


def write(folder, files):
    folder.mkdir(parents=True)
    for name, content in files.items():
        (folder / name).write_bytes(content)


def check_tiny_cifar(dataset):
    train, labels = np.concatenate(PIXELS[:2]), FINE[0] + FINE[1]
    for part, wanted_images, wanted_labels in (
        ("train", train[:4], labels[:4]),
        ("validation", train[4:], labels[4:]),  # the last of the training set
        ("test", PIXELS[2], FINE[2]),
    ):
        got_images, got_labels = dataset.split(part)
        assert got_images.dtype == np.float32 and got_labels.dtype == np.int64
        np.testing.assert_allclose(got_images.reshape(-1, 3, 32, 32), wanted_images / 255, rtol=1e-6)
        assert got_labels.tolist() == wanted_labels
    assert (dataset.shape, dataset.classes) == ((3, 32, 32), 10)


@pytest.mark.parametrize("coarse", [False, True], ids=["one label", "coarse and fine"])
@pytest.mark.parametrize("form", ["binary", "binary archive", "python", "python archive"])
def test_cifar_in_each_form(tmp_path, form, coarse):
    source, binary, pickles, binary_archive, python_archive = tiny_cifar(coarse)
    if form == "binary":
        write(tmp_path / "tiny-bin", binary)
    elif form == "python":
        write(tmp_path / "tiny-py", pickles)
    elif form == "binary archive":
        (tmp_path / "tiny-bin.tar.gz").write_bytes(binary_archive)
    else:
        (tmp_path / "tiny-py.tar.gz").write_bytes(python_archive)
    check_tiny_cifar(source.load(tmp_path))
    assert list((tmp_path / "cache").glob("*")) == [] or "archive" in form  # unpacked files are read straight
    check_tiny_cifar(source.load(tmp_path))


@pytest.mark.parametrize("protocol", range(6))
def test_batches_pickled_again_by_this_python(tmp_path, protocol):
    pickles = {
        name: pickle.dumps({"data": PIXELS[k].reshape(-1, 3072), "labels": FINE[k], "batch_label": "x"}, protocol)
        for k, name in enumerate(PYTHON_NAMES)
    }
    source, _, files, *_ = tiny_cifar(pickles=pickles)
    write(tmp_path / "tiny-py", files)
    check_tiny_cifar(source.load(tmp_path))


def test_binary_is_preferred_and_an_incomplete_folder_passed_over(tmp_path):
    source, binary, pickles, *_ = tiny_cifar()
    write(tmp_path / "tiny-py", pickles)
    write(tmp_path / "tiny-bin", binary)
    assert source.find(tmp_path) == tmp_path / "tiny-bin"
    (tmp_path / "tiny-bin" / "b.bin").unlink()
    assert source.find(tmp_path) == tmp_path / "tiny-py"
    (tmp_path / "tiny-py" / "t").unlink()
    message = refusal(source.load, tmp_path)
    assert f"{tmp_path / 'tiny-bin'} (missing: b.bin)" in message
    assert f"{tmp_path / 'tiny-py.tar.gz'} (no such file)" in message
    assert "neurosim data fetch tiny" in message and "--data-dir" in message


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda content: content[:-1], "b.bin is truncated: got 6,145 bytes, wanted 6,146"),
        (lambda content: content + b"!", "b.bin is too long: got 6,147 bytes, wanted 6,146"),
        (lambda content: b"\x0a" + content[1:], "b.bin has labels from 3 to 10; wanted 0 to 9"),
    ],
)
def test_damaged_binary_file(tmp_path, damage, message):
    source, binary, *_ = tiny_cifar()
    write(tmp_path / "tiny-bin", binary | {"b.bin": damage(binary["b.bin"])})
    text = refusal(source.load, tmp_path)
    assert message in text and "Fetch the file again" in text


def test_python_batch_is_checked_before_it_is_unpickled(tmp_path, monkeypatch):
    source, _, pickles, *_ = tiny_cifar()
    monkeypatch.setattr(cifar, "unpickle", lambda file: pytest.fail("unpickled"))
    for name, content in (("flip", flipped(pickles["b"], 3000)), ("cut", pickles["b"][:-1])):
        write(tmp_path / name / "tiny-py", pickles | {"b": content})
        assert (
            f"b fails its checksum: got {len(content):,} bytes of MD5 {md5(content)}, wanted MD5 {md5(pickles['b'])}"
            in refusal(source.load, tmp_path / name)
        )


@pytest.mark.parametrize("damage", [lambda c: flipped(c, len(c) // 2), lambda c: c[:-1]], ids=["flipped", "truncated"])
@pytest.mark.parametrize("form", [0, 1])
def test_damaged_cifar_archive(tmp_path, form, damage):
    source, _, _, *archives = tiny_cifar()
    content = damage(archives[form])
    (tmp_path / source.forms[form].archive).write_bytes(content)
    assert f"tar.gz fails its checksum: got MD5 {md5(content)}, wanted {md5(archives[form])}" in refusal(
        source.load, tmp_path
    )


def test_archive_that_lacks_a_file(tmp_path):
    source, binary, *_ = tiny_cifar()
    short_archive = packed([("tiny-bin/a.bin", binary["a.bin"])])
    source = dataclasses.replace(source, forms=(dataclasses.replace(source.forms[0], archive_md5=md5(short_archive)),))
    (tmp_path / "tiny-bin.tar.gz").write_bytes(short_archive)
    assert "lacks tiny-bin/b.bin, tiny-bin/t.bin" in refusal(source.load, tmp_path)


class Calls:
    """Pickles as a call of the function with the arguments."""

    def __init__(self, function, *arguments):
        self.call = (function, arguments)

    def __reduce__(self):
        return self.call


@pytest.mark.parametrize("protocol", [0, 2, 5])
def test_a_pickle_that_calls_a_function_is_refused_and_nothing_runs(tmp_path, protocol):
    marker = tmp_path / "marker"
    hostile = pickle.dumps({"data": Calls(os.system, f"touch {marker}"), "labels": []}, protocol)
    source, _, pickles, *_ = tiny_cifar(pickles={"a": hostile, "b": hostile, "t": hostile})
    write(tmp_path / "tiny-py", pickles)
    message = refusal(source.load, tmp_path)
    assert f"asks for '{os.system.__module__}.system'" in message and "nothing of it was run" in message
    assert not marker.exists()
    pickle.loads(hostile)  # the same bytes do run where they are let
    assert marker.exists()


def test_pickles_of_other_things_are_refused():
    def unpickle(thing):
        return cifar.unpickle(published.File("batch", pickle.dumps(thing, 2)))

    assert "asks for '__builtin__.eval'" in refusal(unpickle, Calls(eval, "1"))
    assert "asks for 'collections.OrderedDict'" in refusal(unpickle, __import__("collections").OrderedDict())
    assert "has the type 'O8'; wanted uint8" in refusal(unpickle, np.array([{}], dtype=object))
    assert "batch cannot be unpickled" in refusal(cifar.unpickle, published.File("batch", b"<!DOCTYPE html>"))
    assert unpickle({"data": np.arange(3, dtype=np.uint8), "x": b"\xff", "n": [1]})["x"] == "\xff"


NAMES = {
    "_reconstruct": "numpy.core.multiarray",
    "_frombuffer": "numpy._core.numeric",
    "ndarray": "numpy",
    "dtype": "numpy",
}


def named(name):
    return b"c" + NAMES[name].encode() + b"\n" + name.encode() + b"\n"


def pickled(thing):
    """The opcodes of a thing, without header and end; `bytes` are opcodes already."""
    if isinstance(thing, bytes):
        return thing
    if isinstance(thing, tuple):
        return b"(" + b"".join(map(pickled, thing)) + b"t"
    return pickle.dumps(thing, 2)[2:-1]


def called(name, *arguments):
    return named(name) + pickled(arguments) + b"R"


def built(thing, *state):
    return thing + pickled(state) + b"b"


EMPTY, U1 = called("_reconstruct", named("ndarray"), (0,), "b"), called("dtype", "u1", 0, 1)
OBJECT = U1 + pickled((3, "|", None, None, None, -1, -1, 63)) + b"b"  # what would make Python objects of the bytes


@pytest.mark.parametrize(
    ("hostile", "message"),
    [
        (called("ndarray", (1,), "O", "A" * 8), "calls 'numpy.ndarray'"),  # an object at an address of choice
        (called("ndarray", (1 << 33,), "u1"), "calls 'numpy.ndarray'"),  # 8 GiB
        (called("dtype", "O"), "has the type 'O'; wanted uint8"),
        (called("_reconstruct", named("dtype"), (0,), "b"), "an array with a class that no CIFAR batch has"),
        (called("_frombuffer", "A" * 8, "O", (1,), "C"), "an array with a type that no CIFAR batch has: 'O'"),
        (called("_frombuffer", "A" * 8, OBJECT, (1,), "C"), "an array of the shape (1,) with 8 bytes"),
        (called("_frombuffer", [65] * 8, U1, (8,), "C"), "TypeError"),
        (built(EMPTY, 1, (1,), "O", False, "A" * 8), "an array with a type that no CIFAR batch has"),
        (built(EMPTY, 1, (1 << 33,), U1, False, "A"), "an array of the shape (8589934592,) with 1 bytes"),
        (built(EMPTY, 1, (-1, -1), U1, False, "A"), "an array with a shape that no CIFAR batch has"),
        (built(EMPTY, 1, (1,), U1, False, "\u20ac"), "UnicodeEncodeError"),
        (built(EMPTY, None, {"_raw": "A"}), "ValueError"),  # attributes instead of a state
        (built(named("ndarray"), None, {"_call": 1}), "sets the state of a function"),
        (built(named("dtype"), None, {"_call": 1}), "sets the state of a function"),
        (named("ndarray") + b")\x81", "UnpicklingError"),  # a new object of the class
    ],
)  # fmt: skip
def test_arrays_that_no_batch_has_are_refused_and_not_made(hostile, message):
    """NumPy's own functions make arrays over forged pointers or of any size, if a pickle asks for them."""
    text = refusal(cifar.unpickle, published.File("batch", b"\x80\x02" + hostile + b"."))
    assert text.startswith("batch cannot be unpickled") and message in text
    cifar.unpickle(published.File("batch", pickle.dumps(PIXELS[0], 2)))  # nothing was changed for good


def test_the_state_of_a_pickled_type_means_nothing():
    got = cifar.unpickle(published.File("batch", b"\x80\x02" + built(EMPTY, 1, (2, 4), OBJECT, False, "A" * 8) + b"."))
    assert got.array.dtype == np.uint8 and got.array.tolist() == [[65] * 4] * 2


@pytest.mark.parametrize("protocol", range(6))
def test_columns_first(protocol):
    for array in (np.asfortranarray(PIXELS[0][0]), PIXELS[0].T):
        got = cifar.unpickle(published.File("batch", pickle.dumps(array, protocol))).array
        np.testing.assert_array_equal(got, array)
        assert got.dtype == np.uint8 and got.shape == array.shape


@pytest.mark.parametrize(
    "batch",
    [
        [1],
        {"labels": FINE[0]},
        {"data": PIXELS[0].reshape(3, 3072)},
        {"data": PIXELS[0].reshape(3, 3072), "labels": FINE[0][:2]},
        {"data": PIXELS[0].reshape(3, 3072), "labels": ["7", 0, 9]},
        {"data": PIXELS[0], "labels": FINE[0]},
    ],
)
def test_a_pickle_that_is_no_batch(tmp_path, batch):
    content = pickle.dumps(batch, 2)
    source, _, pickles, *_ = tiny_cifar(pickles={"a": content, "b": content, "t": content})
    write(tmp_path / "tiny-py", pickles)
    assert "a is no CIFAR batch: wanted a dict with 'data', uint8 of (3, 3072)" in refusal(source.load, tmp_path)


def test_sizes_of_the_published_files():
    """Bytes of the binary files as published; the sources must ask for just these."""
    for source, sizes in ((cifar.CIFAR10, [30_730_000] * 6), (cifar.CIFAR100, [153_700_000, 30_740_000])):
        form = source.forms[0]
        assert isinstance(form, CifarBinary)
        assert [n * (len(form.classes) + 3072) for n in form.records] == sizes
        assert sum(form.records[:-1]) == source.train + source.validation and form.records[-1] == source.test


# ----------------------------------------------------------------------------------------------------- STL-10

STL_TRAIN = RANDOM.randint(0, 256, (3, 3, 96, 96)).astype(np.uint8)
STL_TEST = RANDOM.randint(0, 256, (2, 3, 96, 96)).astype(np.uint8)


def column_major(pictures):
    """Plane by plane, column by column."""
    return b"".join(
        bytes(plane[:, column].tolist()) for picture in pictures for plane in picture for column in range(96)
    )


STL_FILES = {
    "train_X.bin": column_major(STL_TRAIN),
    "train_y.bin": bytes([1, 10, 2]),
    "test_X.bin": column_major(STL_TEST),
    "test_y.bin": bytes([3, 10]),
}


def tiny_stl(files=STL_FILES):
    content = packed(
        [("stl10_binary/unlabeled_X.bin", b"\0" * 5000)] + [(f"stl10_binary/{k}", v) for k, v in files.items()]
    )
    form = stl10.Stl10Binary(
        folder="stl10_binary", archive="stl10_binary.tar.gz", archive_md5=md5(content),
        files={name: md5(file) for name, file in files.items()}, train=3, test=2,
    )  # fmt: skip
    source = dataclasses.replace(stl10.STL10, forms=(form,), train=2, validation=1, test=2)
    return source, content


@pytest.mark.parametrize("place", ["folder", "archive"])
def test_stl10_columns_become_rows_and_labels_start_at_0(tmp_path, place):
    source, content = tiny_stl()
    if place == "folder":
        write(tmp_path / "stl10_binary", STL_FILES)
    else:
        (tmp_path / "stl10_binary.tar.gz").write_bytes(content)
    dataset = source.load(tmp_path)
    assert dataset.shape == (3, 96, 96)
    for part, pictures, labels in (
        ("train", STL_TRAIN[:2], [0, 9]),
        ("validation", STL_TRAIN[2:], [1]),
        ("test", STL_TEST, [2, 9]),
    ):
        got_images, got_labels = dataset.split(part)
        np.testing.assert_allclose(got_images.reshape(-1, 3, 96, 96), pictures / 255, rtol=1e-6)
        assert got_labels.tolist() == labels


def test_damaged_stl10(tmp_path):
    source, _ = tiny_stl()
    for name, content in (("flip", flipped(STL_FILES["test_X.bin"], 100)), ("cut", STL_FILES["test_X.bin"][:-1])):
        write(tmp_path / name / "stl10_binary", STL_FILES | {"test_X.bin": content})
        assert "test_X.bin fails its checksum" in refusal(source.load, tmp_path / name)
    wrong = STL_FILES | {"train_y.bin": bytes([0, 1, 2])}
    write(tmp_path / "zero" / "stl10_binary", wrong)
    assert "has labels from 0 to 2; wanted 1 to 10" in refusal(tiny_stl(wrong)[0].load, tmp_path / "zero")


# ---------------------------------------------------------------------------------------------- image folders


def picture(pixels, suffix=".png"):
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, {".png": "PNG", ".bmp": "BMP", ".jpg": "JPEG", ".gif": "GIF"}[suffix])
    return buffer.getvalue()


# 12 training images and 4 of the test set, 5 rows of 4 columns, RGB; "b" sorts after "a-b" although "-" is before "/".
SQUARES = {
    f"{part}/{label}/{k}{'.png' if k % 2 else '.bmp'}": RANDOM.randint(0, 256, (5, 4, 3)).astype(np.uint8)
    for part, count in (("train", 4), ("test", 2))
    for label in ("a", "a-b", "b")
    for k in range(count)
}
SQUARE_FILES = {name: picture(pixels, name[-4:]) for name, pixels in SQUARES.items()}


def write_images(place, files=SQUARE_FILES):
    for name, content in files.items():
        (place / name).parent.mkdir(parents=True, exist_ok=True)
        (place / name).write_bytes(content)
    return place


def pictures_of(dataset, parts):
    """Set of (label, pixels) of a data set."""
    pairs = (zip(*dataset.split(part), strict=True) for part in parts)
    return {
        (int(label), np.round(image.reshape(dataset.shape) * 255).astype(np.uint8).tobytes())
        for pair in pairs
        for image, label in pair
    }


def check_squares(dataset):
    assert dataset.shape == (3, 5, 4) and dataset.classes == 3
    assert [len(dataset.split(part)[1]) for part in data.SPLITS] == [11, 1, 6]
    for parts, prefix in ((("train", "validation"), "train"), (("test",), "test")):
        assert pictures_of(dataset, parts) == {
            (["a", "a-b", "b"].index(name.split("/")[1]), pixels.transpose(2, 0, 1).tobytes())
            for name, pixels in SQUARES.items()
            if name.startswith(prefix)
        }


def same(one, other):
    for part in data.SPLITS:
        for a, b in zip(one.split(part), other.split(part), strict=True):
            np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("suffix", [".tar", ".tar.gz", ".tar.xz"])
def test_folder_and_archive_give_the_same_images(tmp_path, suffix):
    folder = data.load(f"images:{write_images(tmp_path / 'set')}")
    check_squares(folder)
    path = tmp_path / f"set{suffix}"
    files = [(f"./{name}", content) for name, content in SQUARE_FILES.items()]
    path.write_bytes(packed(files[::-1], "w:" + suffix[5:]))
    same(folder, data.load(f"images:{path}"))


def test_order_is_one_fixed_shuffle(tmp_path):
    """By class and file name, then the permutations of the legacy generator with seed 0: train first, then test."""
    dataset = data.load(f"images:{write_images(tmp_path / 'set')}")
    random = np.random.RandomState(0)
    assert np.concatenate([dataset.train_labels, dataset.validation_labels]).tolist() == [
        k // 4 for k in random.permutation(12)
    ]
    assert dataset.test_labels.tolist() == [k // 2 for k in random.permutation(6)]


def test_grey_images_have_no_channels(tmp_path):
    files = {
        f"{part}/x/{k}.png": picture(np.full((2, 3), 10 * k, np.uint8)) for part in ("train", "test") for k in range(10)
    }
    dataset = data.load(f"images:{write_images(tmp_path / 'grey', files)}")
    assert dataset.shape == (2, 3)
    np.testing.assert_allclose(np.sort(dataset.test_images[:, 0]) * 255, np.arange(0, 100, 10), rtol=1e-6)


def test_jpeg_is_decoded(tmp_path):
    flat = np.full((8, 8, 3), (200, 100, 50), np.uint8)
    files = {f"{part}/x/{k}.JPG": picture(flat, ".jpg") for part in ("train", "test") for k in range(10)}
    dataset = data.load(f"images:{write_images(tmp_path / 'jpeg', files)}")
    np.testing.assert_allclose(dataset.test_images[0].reshape(3, 64).T * 255, np.tile([200, 100, 50], (64, 1)), atol=3)


def test_path_is_absolute_or_from_here_or_in_the_data_directory(tmp_path, monkeypatch):
    write_images(tmp_path / "here" / "mine")
    write_images(tmp_path / "there" / "theirs")
    (tmp_path / "here").joinpath("mine", ".hidden").write_bytes(b"")
    monkeypatch.chdir(tmp_path / "here")
    monkeypatch.setenv("NEUROSIM_DATA", str(tmp_path / "there"))
    check_squares(data.load("images:mine"))
    check_squares(data.load("images:theirs"))
    monkeypatch.delenv("NEUROSIM_DATA")
    assert "there is no theirs. Wanted after 'images:' a folder" in refusal(data.load, "images:theirs")
    check_squares(data.load("images:theirs", tmp_path / "there"))
    assert "'images:': there is no" in refusal(data.load, "images:")


@pytest.mark.parametrize(
    ("extra", "message"),
    [
        ({"train/a/9.png": picture(np.zeros((4, 4, 3), np.uint8))}, "'train/a/9.png' is 4 x 4 RGB and"),
        ({"train/a/9.png": picture(np.zeros((5, 4), np.uint8))}, "'train/a/9.png' is 4 x 5 grey and"),
        ({"train/a/9.png": picture(np.zeros((5, 4, 4), np.uint8))}, "has the mode RGBA; wanted L (grey) or RGB"),
        ({"train/a/9.png": b"nothing"}, "'train/a/9.png' cannot be decoded"),
        ({"train/a/9.png": SQUARE_FILES["train/a/1.png"][:-60]}, "'train/a/9.png' cannot be decoded"),
        ({"train/a/9.png": picture(np.zeros((5, 4, 3), np.uint8), ".gif")}, "'train/a/9.png' cannot be decoded"),
        ({"train/a/9.gif": b""}, "'train/a/9.gif' does not belong there. Wanted train/<class>/<image>"),
        ({"train/a/more/9.png": b""}, "'train/a/more/9.png' does not belong there"),
        ({"train/9.png": b""}, "'train/9.png' does not belong there"),
        ({"test/c/0.png": SQUARE_FILES["train/a/1.png"]}, "the test set has the class 'c', the training set has only a, a-b, b"),
    ],
)  # fmt: skip
def test_images_that_do_not_fit(tmp_path, extra, message):
    files = SQUARE_FILES | extra
    assert message in refusal(data.load, f"images:{write_images(tmp_path / 'set', files)}")
    (tmp_path / "set.tar").write_bytes(packed(list(files.items()), "w:"))
    assert message in refusal(data.load, f"images:{tmp_path / 'set.tar'}")


def test_hidden_files_and_what_lies_beside_are_passed_over(tmp_path):
    extra = {"README": b"", "more/x/1.png": b"", "train/list.txt": b"", "train/a/.DS_Store": b"", "test/.x/1.png": b""}
    check_squares(data.load(f"images:{write_images(tmp_path / 'set', SQUARE_FILES | extra)}"))


def test_too_few_images(tmp_path):
    few = {name: content for name, content in SQUARE_FILES.items() if name.startswith("train")}
    message = refusal(data.load, f"images:{write_images(tmp_path / 'set', few)}")
    assert "has 12 training and 0 test images; wanted at least 10 and 1. Wanted train/<class>/<image>" in message


def test_absurd_sizes_are_refused_before_they_are_decoded(tmp_path, monkeypatch):
    """A PNG of a few bytes whose header claims 60,000 x 60,000 pixels; then limits on file, archive and set."""
    chunks = ((b"IHDR", struct.pack(">IIBBBBB", 60_000, 60_000, 8, 2, 0, 0, 0)), (b"IDAT", zlib.compress(b"\0")))
    bomb = b"\x89PNG\r\n\x1a\n"
    for kind, content in chunks:
        bomb += struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))
    assert "is absurdly large" in refusal(
        data.load, f"images:{write_images(tmp_path / 'bomb', {'train/a/0.png': bomb, 'test/a/0.png': bomb})}"
    )
    place = write_images(tmp_path / "set")
    monkeypatch.setattr(images, "_MAX_PIXELS", 19)
    assert "has 4 x 5 pixels; wanted at most 19. Scale it down" in refusal(data.load, f"images:{place}")
    monkeypatch.setattr(images, "_MAX_PIXELS", 20)
    monkeypatch.setattr(images, "_MAX_TOTAL", 100)
    assert "wanted a smaller set" in refusal(data.load, f"images:{place}")
    monkeypatch.setattr(images, "_MAX_FILE", 10)
    assert "bytes; wanted at most 10" in refusal(data.load, f"images:{place}")
    (tmp_path / "set.tar").write_bytes(packed(list(SQUARE_FILES.items()), "w:"))
    assert "bytes; wanted at most 10" in refusal(data.load, f"images:{tmp_path / 'set.tar'}")
    monkeypatch.setattr(archive, "_MAX_UNPACKED", 600)
    assert "unpacks to more than" in refusal(data.load, f"images:{tmp_path / 'set.tar'}")


# --------------------------------------------------------------------------------------------------- archives


def special(name, kind, target=""):
    member = tarfile.TarInfo(name)
    member.type, member.linkname = kind, target
    return member


@pytest.mark.parametrize(
    ("member", "message"),
    [
        ("/etc/passwd", "member '/etc/passwd' has an absolute path"),
        ("../outside.png", "member '../outside.png' leads outside of the archive"),
        ("train/../../outside.png", "member 'train/../../outside.png' leads outside of the archive"),
        (special("train/a/link.png", tarfile.SYMTYPE, "/etc/passwd"), "'train/a/link.png' is a link, a device"),
        (special("train/a/hard.png", tarfile.LNKTYPE, "train/a/0.bmp"), "'train/a/hard.png' is a link, a device"),
        (special("train/a/device.png", tarfile.CHRTYPE), "'train/a/device.png' is a link, a device"),
        (special("train/a/pipe.png", tarfile.FIFOTYPE), "'train/a/pipe.png' is a link, a device"),
    ],
)
def test_unsafe_members_are_refused_by_name(tmp_path, member, message):
    path = tmp_path / "set.tar"
    path.write_bytes(packed([*SQUARE_FILES.items(), (member, b"")], "w:"))
    before = sorted(tmp_path.rglob("*"))
    assert message in refusal(data.load, f"images:{path}")
    assert sorted(tmp_path.rglob("*")) == before


def test_an_image_that_is_in_the_archive_twice(tmp_path):
    path = tmp_path / "set.tar"
    path.write_bytes(packed([*SQUARE_FILES.items(), ("./train/a/0.bmp", SQUARE_FILES["train/a/0.bmp"])], "w:"))
    assert "'train/a/0.bmp' is there twice" in refusal(data.load, f"images:{path}")


@pytest.mark.parametrize("mode", ["gz", "xz"])
def test_every_flipped_byte_of_a_compressed_archive_is_found(tmp_path, mode):
    """Also in the last bytes, behind the last member: the check sum of the stream stands there."""
    content = packed([("train/a/0.txt", b"0123456789" * 30), ("b", b"x")], f"w:{mode}")
    path = tmp_path / "set.tar"
    wanted = [("train/a/0.txt", b"0123456789" * 30), ("b", b"x")]
    for at in range(len(content)):
        path.write_bytes(flipped(content, at))
        try:
            got = list(archive.members(path, lambda name: True, 1000))
        except data.DataError as error:
            assert str(path) in str(error)
        else:  # a bit of the gzip header that means nothing (time, system)
            assert got == wanted and mode == "gz" and at < 10
    for cut in range(1, len(content)):
        path.write_bytes(content[:cut])
        assert str(path) in refusal(lambda: list(archive.members(path, lambda name: True, 1000)))


def test_plain_archive_that_ends_early_or_whose_header_is_damaged(tmp_path):
    """tarfile itself takes both for the end of the archive, and says nothing."""
    content = packed([("a", b"x" * 600), ("b", b"y" * 600), ("c", b"z")], "w:")
    path = tmp_path / "set.tar"

    def read():
        return [name for name, _ in archive.members(path, lambda name: True, 1000)]

    path.write_bytes(content)
    assert read() == ["a", "b", "c"]
    for cut in (1, 512, 700, 1536, 1600, 3072, 3600, 4096):
        path.write_bytes(content[:cut])
        assert "set.tar is damaged" in refusal(read)
    path.write_bytes(flipped(content, 1536 + 3))  # in the name of "b"
    assert "no end mark of a tar archive at byte 1,536" in refusal(read)


def pax(**records):
    """A pax header's content: each record begins with its own length, here always of three digits."""
    lines = [f" {key.replace('_', '.')}={value}\n" for key, value in records.items()]
    return b"".join(f"{len(line) + 3:03d}{line}".encode() for line in lines)


@pytest.mark.parametrize("mode", ["w:", "w:gz", "w:xz"])
@pytest.mark.parametrize("kind", [tarfile.XHDTYPE, tarfile.XGLTYPE, tarfile.GNUTYPE_LONGNAME, tarfile.GNUTYPE_LONGLINK])
def test_a_header_of_any_size_is_not_read(tmp_path, kind, mode):
    """tarfile reads it whole, before it hands out a member."""
    path = tmp_path / "set.tar"
    path.write_bytes(packed([("a", b"x"), (special("name", kind), b"a" * (24 << 20)), ("b", b"y")], mode))
    tracemalloc.start()
    message = refusal(lambda: list(archive.members(path, lambda name: True, 1000)))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert f"{path}: the headers at byte 1,536 go on for 25,165,824 bytes; wanted at most 65,536" in message
    assert peak < 10 << 20  # xz itself needs 8 MiB


def test_headers_are_bounded_together(tmp_path):
    """Headers on headers of one member, and those for all members that follow."""
    path = tmp_path / "set.tar"

    def read(*files):
        path.write_bytes(packed([*files, ("b", b"y")], "w:"))
        return list(archive.members(path, lambda name: True, 1000))

    name = special("name", tarfile.GNUTYPE_LONGNAME)
    assert read((name, b"n" * 4000)) == [("n" * 4000, b"y")]
    assert [short for short, _ in read(*[(f"{n:03d}" * 80, b"x") for n in range(300)])][:1] == ["000" * 80]
    assert "the headers at byte" in refusal(read, *[(name, b"n")] * 100)
    for_all = special("name", tarfile.XGLTYPE)
    each = [[(for_all, b"30000 %d=" % n + b"v" * 29992 + b"\n"), (f"{n}", b"x")] for n in range(3)]
    assert len(read(*each[0], *each[1])) == 3
    assert "the headers for all members have more than 65,536 bytes" in refusal(read, *each[0], *each[1], *each[2])


def test_forged_sizes_in_headers(tmp_path):
    """Below zero they would read the archive whole, or lead back and never end; and some are no numbers at all."""
    path = tmp_path / "set.tar"

    def read(kind, size, content=b""):
        member = special("a", kind)
        member.size = size
        header = bytearray(member.tobuf(tarfile.GNU_FORMAT))
        if kind == tarfile.GNUTYPE_SPARSE:
            header[483:495] = b"00000000001\0"  # the size that the member shall have
            header[148:156] = b" " * 8
            header[148:156] = b"%06o\0 " % sum(header)
        start = packed([("0", b"x")], "w:")[:1024]
        rest = packed([("b", b"y")], "w:")
        path.write_bytes(start + bytes(header) + content + bytes(-len(content) % 512) + rest)
        return list(archive.members(path, lambda name: name == "b", 1000))

    assert "go on for -1,024 bytes" in refusal(read, tarfile.XHDTYPE, -1024)
    assert "go on for -1,024 bytes" in refusal(read, tarfile.GNUTYPE_LONGNAME, -1024)
    assert f"{path} is damaged: byte 1,536 leads back to 1,023" in refusal(read, tarfile.GNUTYPE_SPARSE, -512)
    assert "unpacks to more than 4 GiB" in refusal(read, tarfile.GNUTYPE_SPARSE, 1 << 50)
    content = pax(size="x", GNU_sparse_map="1,x")
    assert f"{path} is damaged or no tar archive (ValueError" in refusal(read, tarfile.XHDTYPE, len(content), content)


# ------------------------------------------------------------------------------------------------------ cache


@pytest.fixture
def decoded(monkeypatch):
    """Counts the images that are decoded."""
    calls, real = [], images._decode
    monkeypatch.setattr(images, "_decode", lambda *given: calls.append(given[0]) or real(*given))
    return calls


@pytest.mark.parametrize("kind", ["folder", "archive"])
def test_second_load_decodes_nothing_until_the_source_changes(tmp_path, decoded, kind, capsys):
    place = tmp_path / "set"
    if kind == "archive":
        place.write_bytes(packed(list(SQUARE_FILES.items())))
    else:
        write_images(place)
    first = data.load(f"images:{place}")
    assert len(decoded) == 18
    decoded.clear()
    same(first, data.load(f"images:{place}"))
    assert decoded == []
    files = SQUARE_FILES | {"train/a/9.png": SQUARE_FILES["train/a/1.png"]}
    if kind == "archive":
        place.write_bytes(packed(list(files.items())))
    else:
        write_images(place, files)
    assert len(data.load(f"images:{place}").train_labels) == 12
    assert len(decoded) == 19
    assert len(list((tmp_path / "cache").iterdir())) == 1  # the old one is replaced
    if kind == "archive":
        os.utime(place, ns=(1, 1))  # same size, another time
        data.load(f"images:{place}")
        assert len(decoded) == 38
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize(
    "damage", [lambda c: flipped(c, len(c) - 100), lambda c: c[:-7], lambda c: flipped(c, 20), lambda c: b""]
)
def test_damaged_cache_is_made_again_with_a_line(tmp_path, decoded, capsys, damage):
    place = write_images(tmp_path / "set")
    first = data.load(f"images:{place}")
    (file,) = (tmp_path / "cache").iterdir()
    file.write_bytes(damage(file.read_bytes()))
    decoded.clear()
    same(first, data.load(f"images:{place}"))
    assert len(decoded) == 18
    error = capsys.readouterr().err
    assert error.count("\n") == 1 and f"the cache {file} is damaged; decoding {place} again" in error
    decoded.clear()
    same(first, data.load(f"images:{place}"))
    assert decoded == [] and capsys.readouterr().err == ""


def test_cache_that_cannot_be_written_costs_a_line_only(tmp_path, monkeypatch, capsys):
    (tmp_path / "file").write_bytes(b"")
    monkeypatch.setenv("NEUROSIM_CACHE", str(tmp_path / "file" / "cache"))
    check_squares(data.load(f"images:{write_images(tmp_path / 'set')}"))
    error = capsys.readouterr().err
    assert error.count("\n") == 1 and "could not be kept in" in error and "NEUROSIM_CACHE" in error


def test_where_the_cache_lies(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    assert cache.directory() == tmp_path / "cache"
    monkeypatch.setenv("NEUROSIM_CACHE", "~/mine")
    assert cache.directory() == tmp_path / "home" / "mine"
    monkeypatch.delenv("NEUROSIM_CACHE")
    assert cache.directory() == tmp_path / "xdg" / "neurosim"
    monkeypatch.delenv("XDG_CACHE_HOME")
    assert cache.directory() == tmp_path / "home" / ".cache" / "neurosim"


def test_status_does_not_decode(tmp_path, monkeypatch, decoded):
    names = [f"{part}/{label}/{k}.png" for part, n in (("train", 10), ("test", 1)) for label in "ab" for k in range(n)]
    files = [(name, picture(RANDOM.randint(0, 256, (2, 2, 3)).astype(np.uint8))) for name in names]
    source = dataclasses.replace(
        images.CIFAR10_JPEG, train=18, validation=2, test=2, shape=(3, 2, 2), classes=2, names=("a", "b")
    )
    monkeypatch.setitem(data._SOURCES, "cifar10_jpeg", source)
    path = tmp_path / source.archive
    path.write_bytes(packed(files, "w:xz"))

    def row():
        return {row.name: row for row in data.status(tmp_path)}["cifar10_jpeg"]

    assert row().found and row().where == str(path) and "not yet decoded" in row().remark and decoded == []
    assert len(data.load("cifar10_jpeg", tmp_path).train_labels) == 18
    assert row().found and row().remark == ""
    path.write_bytes(packed(files[1:], "w:xz"))
    assert "not yet decoded" in row().remark
    message = refusal(data.load, "cifar10_jpeg", tmp_path)
    assert "{'a': (9, 1), 'b': (10, 1)}; wanted (3, 2, 2), {'a': (10, 1), 'b': (10, 1)}" in message
    path.unlink()
    assert not row().found and "cifar10-jpeg.tar.xz (no such file)" in row().problem


# --------------------------------------------------------------------------------------------- the real files


@pytest.mark.slow
@pytest.mark.skipif(not os.environ.get("NEUROSIM_DATA"), reason="NEUROSIM_DATA is not set: the real archive is needed")
def test_real_cifar10_jpeg(decoded):
    dataset = data.load("cifar10_jpeg")
    assert len(decoded) == 60_000
    assert [dataset.split(part)[0].shape for part in data.SPLITS] == [(45_000, 3072), (5_000, 3072), (10_000, 3072)]
    train = np.concatenate([dataset.train_images, dataset.validation_images]).reshape(50_000, 3, 1024)
    assert np.bincount(np.concatenate([dataset.train_labels, dataset.validation_labels])).tolist() == [5000] * 10
    assert np.bincount(dataset.test_labels).tolist() == [1000] * 10
    assert np.bincount(dataset.validation_labels).min() > 400  # the classes are mixed
    for channel, (mean, sd) in enumerate(((0.4913, 0.2452), (0.4821, 0.2428), (0.4465, 0.2606))):
        assert train[:, channel].mean(dtype=np.float64) == pytest.approx(mean, abs=6e-5)
        assert train[:, channel].std(dtype=np.float64) == pytest.approx(sd, abs=6e-5)
    same(dataset, data.load("cifar10_jpeg"))
    assert len(decoded) == 60_000
