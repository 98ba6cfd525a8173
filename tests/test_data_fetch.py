"""Downloads from a server of our own on localhost that breaks off, ignores Range, or sends other bytes."""

from __future__ import annotations

import dataclasses
import gzip
import hashlib
import http.server
import io
import os
import tarfile
import threading

import numpy as np
import pytest

from neurosim import data
from neurosim.cli import main
from neurosim.data import fetching, idx
from neurosim.data.cifar import CifarBinary
from neurosim.data.published import PublishedSource


class Server:
    """Serves `files`; what it was asked for stands in `asked` as (path, Range)."""

    def __init__(self):
        self.files: dict[str, bytes] = {}
        self.asked: list[tuple[str, str | None]] = []
        self.ranges = True  # whether Range is understood
        self.status = 200
        self.stop_after: int | None = None  # break the connection after so many bytes
        self.length = True  # whether Content-Length is sent
        server = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self):
                server.answer(self)

            def log_message(self, *_):
                pass

        self.httpd = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.httpd.server_address[1]}/folder"
        self.thread = threading.Thread(target=self.httpd.serve_forever, kwargs={"poll_interval": 0.01})
        self.thread.start()

    def answer(self, handler):
        wanted = handler.headers.get("Range")
        self.asked.append((handler.path, wanted))
        content = self.files.get(handler.path.removeprefix("/folder/"))
        if self.status != 200 or content is None:
            handler.send_error(self.status if self.status != 200 else 404)
            return
        start = int(wanted.removeprefix("bytes=").removesuffix("-")) if wanted and self.ranges else 0
        if start >= len(content):
            handler.send_response(416)
            handler.send_header("Content-Range", f"bytes */{len(content)}")
            handler.send_header("Content-Length", "0")
            handler.end_headers()
            return
        handler.send_response(206 if wanted and self.ranges else 200)
        if wanted and self.ranges:
            handler.send_header("Content-Range", f"bytes {start}-{len(content) - 1}/{len(content)}")
        if self.length:
            handler.send_header("Content-Length", str(len(content) - start))
        handler.end_headers()
        stop = len(content) if self.stop_after is None else start + self.stop_after
        handler.wfile.write(content[start:stop])
        handler.close_connection = True

    def close(self):
        self.httpd.shutdown()
        self.httpd.server_close()
        self.thread.join()


@pytest.fixture
def server():
    server = Server()
    yield server
    server.close()


def md5(content):
    return hashlib.md5(content, usedforsecurity=False).hexdigest()


RECORDS = np.random.RandomState(2).randint(0, 256, (5, 3073)).astype(np.uint8)
RECORDS[:, 0] = [3, 1, 4, 1, 5]


def cifar_archive():
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as tar:
        for name, content in (("train.bin", RECORDS[:3].tobytes()), ("test.bin", RECORDS[3:].tobytes())):
            member = tarfile.TarInfo(f"tiny-bin/{name}")
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
    return buffer.getvalue()


ARCHIVE = cifar_archive()
NAME = "tiny.tar.gz"


@pytest.fixture
def tiny(server, monkeypatch, tmp_path):
    """A data set of one archive, known to `load` and `fetch`, served by the server."""
    monkeypatch.setenv("NEUROSIM_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("NEUROSIM_DATA", raising=False)
    form = CifarBinary(
        folder="tiny-bin", archive=NAME, archive_md5=md5(ARCHIVE), records=(3, 2), classes=(10,),
        files={"train.bin": None, "test.bin": None},
    )  # fmt: skip
    source = PublishedSource(
        name="tiny", licence="", train=2, validation=1, test=2, shape=(3, 32, 32), classes=10, forms=(form,)
    )
    monkeypatch.setitem(data._SOURCES, "tiny", source)
    monkeypatch.setitem(fetching.ADDRESSES, "tiny", fetching.Address(source, server.url))
    server.files[NAME] = ARCHIVE
    return tmp_path / "data"


def refusal(*arguments):
    with pytest.raises(data.DataError) as caught:
        data.fetch(*arguments)
    return str(caught.value)


def test_what_is_fetched_is_found_by_load(server, tiny, capsys):
    assert data.fetch("tiny", tiny) == [tiny / NAME]
    assert os.listdir(tiny) == [NAME]
    error = capsys.readouterr().err
    assert f"the address {server.url}/ is from general knowledge and has never been tried" in error
    assert f"fetching {server.url}/{NAME}" in error
    dataset = data.load("tiny", tiny)
    assert dataset.train_labels.tolist() == [3, 1] and dataset.test_labels.tolist() == [1, 5]
    np.testing.assert_allclose(dataset.test_images * 255, RECORDS[3:, 1:], rtol=1e-6)


def test_four_idx_files(server, monkeypatch, tmp_path):
    """Compressed anew by a mirror: the MD5 is that of the unzipped bytes."""
    arrays = [RECORDS[:3, :6].reshape(3, 2, 3), RECORDS[:3, 0], RECORDS[3:, :6].reshape(2, 2, 3), RECORDS[3:, 0]]
    contents = [
        bytes([0, 0, 8, array.ndim]) + b"".join(n.to_bytes(4, "big") for n in array.shape) + array.tobytes()
        for array in arrays
    ]
    source = idx.IdxSource(
        name="tiny", folder="Tiny", md5=tuple(map(md5, contents)), licence="", train=2, validation=1, test=2, shape=(2, 3),
    )  # fmt: skip
    monkeypatch.setitem(data._SOURCES, "tiny", source)
    monkeypatch.setitem(fetching.ADDRESSES, "tiny", fetching.Address(source, "https://nowhere.invalid/"))
    for level, (name, content) in enumerate(zip(idx.FILES, contents, strict=True)):
        server.files[f"{name}.gz"] = gzip.compress(content, level)
    assert data.fetch("tiny", tmp_path, server.url) == [tmp_path / "Tiny" / "raw" / f"{name}.gz" for name in idx.FILES]
    assert data.load("tiny", tmp_path).train_labels.tolist() == [3, 1]


def test_a_whole_file_is_left_alone_and_a_damaged_one_fetched_again(server, tiny, capsys):
    data.fetch("tiny", tiny)
    server.asked.clear()
    data.fetch("tiny", tiny)
    assert server.asked == [] and f"{tiny / NAME} is there and whole" in capsys.readouterr().err
    (tiny / NAME).write_bytes(ARCHIVE[:-1])
    data.fetch("tiny", tiny)
    assert (tiny / NAME).read_bytes() == ARCHIVE


def test_a_broken_connection_is_resumed(server, tiny):
    server.stop_after = 1000
    message = refusal("tiny", tiny)
    assert f"broke after 1,000 of {len(ARCHIVE):,} bytes" in message and "run the command again" in message
    assert (tiny / f"{NAME}.part").read_bytes() == ARCHIVE[:1000] and not (tiny / NAME).exists()
    refusal("tiny", tiny)
    server.stop_after = None
    data.fetch("tiny", tiny)
    assert [asked for _, asked in server.asked] == [None, "bytes=1000-", "bytes=2000-"]
    assert (tiny / NAME).read_bytes() == ARCHIVE and os.listdir(tiny) == [NAME]


def test_a_server_that_ignores_range_starts_again(server, tiny):
    server.stop_after = 1000
    refusal("tiny", tiny)
    server.stop_after, server.ranges = None, False
    data.fetch("tiny", tiny)
    assert server.asked[-1][1] == "bytes=1000-"
    assert (tiny / NAME).read_bytes() == ARCHIVE


@pytest.mark.parametrize("beginning", [ARCHIVE, ARCHIVE + b"more"], ids=["whole", "too long"])
def test_a_part_behind_which_nothing_follows(server, tiny, beginning):
    tiny.mkdir()
    (tiny / f"{NAME}.part").write_bytes(beginning)
    data.fetch("tiny", tiny)
    assert len(server.asked) == (1 if beginning == ARCHIVE else 2)
    assert (tiny / NAME).read_bytes() == ARCHIVE


def test_wrong_bytes_are_deleted(server, tiny):
    wrong = ARCHIVE[:-1] + b"!"
    server.files[NAME] = wrong
    message = refusal("tiny", tiny)
    assert f"got {len(wrong):,} bytes with MD5 {md5(wrong)}, wanted {md5(ARCHIVE)}" in message and "--url" in message
    assert os.listdir(tiny) == []


def test_without_content_length_the_checksum_decides(server, tiny):
    server.length = False
    data.fetch("tiny", tiny)
    assert (tiny / NAME).read_bytes() == ARCHIVE


@pytest.mark.parametrize("status", [403, 404, 500])
def test_http_errors(server, tiny, status):
    server.status = status
    message = refusal("tiny", tiny)
    assert f"{server.url}/{NAME} answers with HTTP status {status}" in message and "--url" in message


def test_no_network(server, tiny):
    # A port that was just given back: nobody listens there.
    gone = Server()
    gone.close()
    message = refusal("tiny", tiny, gone.url)
    assert "cannot be reached" in message and "Is there a network?" in message and str(tiny) in message


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="/dev/full is needed: a file on a disk that is full")
def test_full_disk(server, tiny):
    tiny.mkdir()
    (tiny / f"{NAME}.part").symlink_to("/dev/full")
    message = refusal("tiny", tiny)
    assert "cannot be written: No space left on device" in message and "--data-dir" in message


def test_folder_that_cannot_be_made(server, tiny):
    tiny.write_bytes(b"a file")
    assert "cannot be written: File exists" in refusal("tiny", tiny)


def test_what_cannot_be_fetched(tiny, tmp_path):
    assert "no data set to fetch 'cifar10_jpeg'" in refusal("cifar10_jpeg", tmp_path)
    assert "no data directory was given" in refusal("tiny")
    assert "wanted the address of a folder, http:// or https://" in refusal("tiny", tmp_path, "file:///etc")


def test_the_table_of_addresses():
    names = {"mnist", "fashion_mnist", "cifar10", "cifar100", "stl10"}
    assert names == set(fetching.ADDRESSES)
    for name, address in fetching.ADDRESSES.items():
        assert address.source is data._SOURCES[name]
        assert address.url.startswith("https://") and address.url.endswith("/")
    tried = dataclasses.replace(fetching.ADDRESSES["mnist"], tried=True)
    assert tried.tried and not any(address.tried for address in fetching.ADDRESSES.values())


@pytest.mark.parametrize("order", ["before", "after"])
def test_command_line(server, tiny, capsys, order):
    folder = ["--data-dir", str(tiny)]
    given = ["data", *folder, "fetch", "tiny"] if order == "before" else ["data", "fetch", "tiny", *folder]
    assert main(given) == 0
    assert capsys.readouterr().out == f"{tiny / NAME}\n"
    assert main(["data", *folder]) == 0
    listed = capsys.readouterr().out
    assert "tiny             2 train, 1 validation, 2 test" in listed and "not yet decoded" in listed
    assert "images:PATH" in listed
    server.status = 404
    (tiny / NAME).unlink()
    assert main([*given, "--url", f"{server.url}/"]) == 1
    assert "error: " in capsys.readouterr().err
