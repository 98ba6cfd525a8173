"""HDF5 files of strangers: nothing beside the file is read, and no more memory is taken than the file holds.

HDF5 lets a file name other files (external links, external storage, virtual data sets), and claim data sets of any size:
chunks that were never written are filled in, compressed ones expand a thousandfold. neurosim writes none of this, so it is
refused. What is left has a sound bound: no data set claims more bytes than are stored for it, and all of them no more than
the file has.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import h5py
from h5py import h5a, h5d, h5l, h5o, h5s, h5t  # pyright: ignore[reportAttributeAccessIssue] (compiled, without types)

from neurosim.errors import NeurosimError
from neurosim.reading import damaged

#: Bytes at the beginning of a file in which heaps of texts are looked for.
_SEARCHED = 16 << 20
_LINKS = {h5l.TYPE_SOFT: "a soft link", h5l.TYPE_EXTERNAL: "a link to another file"}
_PLAIN = (h5t.INTEGER, h5t.FLOAT, h5t.STRING, h5t.ENUM)
_KINDS = {
    h5t.REFERENCE: "references", h5t.COMPOUND: "compounds", h5t.VLEN: "lists of several lengths", h5t.ARRAY: "arrays",
    h5t.OPAQUE: "opaque bytes", h5t.BITFIELD: "bit fields", h5t.TIME: "times of HDF5",
}  # fmt: skip


def check(file: h5py.File, path: Path, nwb: bool = False) -> None:
    """Refuse a file that reaches beyond itself, or claims what it does not hold.

    NWB has soft links within the file, and references; recordings have neither.

    Raises
    ------
    NeurosimError
        The file, the object in it, and the fault.
    """
    _check_heaps(path)
    size, stored = os.stat(path).st_size, 0
    for where, item in _objects(file, path, nwb):
        _check_attributes(item, where, path, nwb)
        if isinstance(item, h5py.Dataset):
            stored += _stored(item, where, path, nwb, bool(file.swmr_mode))
            if stored > size:
                raise damaged(path, f"its data sets up to '{where}' claim {stored:,} bytes, and the file has {size:,}")


def _check_heaps(path: Path) -> None:
    """Refuse a heap of texts whose parts lead nowhere: HDF5 would read it for ever.

    A heap ("GCOL", version, size) has parts of a number, a count of references and a size; part 0 is what is free. Those
    of texts that neurosim writes lie at the beginning.
    """
    with open(path, "rb") as file:
        head = file.read(_SEARCHED)
    start = head.find(b"GCOL\x01")
    while start >= 0:
        size = int.from_bytes(head[start + 8 : start + 16], "little")
        at, end = start + 16, start + size
        while size <= len(head) and at + 16 <= min(end, len(head)):
            number = int.from_bytes(head[at : at + 2], "little")
            length = int.from_bytes(head[at + 8 : at + 16], "little")
            step = 16 + -(-length // 8) * 8 if number else length
            if step < 16 or at + step > end:
                raise damaged(path, f"the texts at byte {start:,} are broken")
            at += step
        start = head.find(b"GCOL\x01", start + 1)


def whole_rows(data: h5py.Dataset) -> int:
    """Rows that are stored: of a file that is being written perhaps fewer than the data set has."""
    cells = 1
    for n in data.shape[1:]:
        cells *= n
    each = cells * data.dtype.itemsize
    return min(len(data), data.id.get_storage_size() // each) if each else len(data)


def _objects(file: h5py.File, path: Path, nwb: bool) -> Iterator[tuple[str, Any]]:
    """Every group and data set, the root first; each object once."""
    seen = {h5o.get_info(file.id).addr}
    groups: list[tuple[str, h5py.Group]] = [("/", file)]
    yield "/", file
    while groups:
        above, group = groups.pop()
        for name in group:
            if not isinstance(name, str):
                raise damaged(path, f"the name {name!r} in '{above}' is not UTF-8")
            where = f"{above.rstrip('/')}/{name}"
            kind = group.id.links.get_info(name.encode()).type
            if kind != h5l.TYPE_HARD:
                if nwb and kind == h5l.TYPE_SOFT:
                    continue  # it stays in this file: links to others are refused where they stand
                what = _LINKS.get(kind, "a link of an unknown kind")
                raise NeurosimError(f"'{path}' is not read: '{where}' is {what}. {_CURE}")
            about = h5o.get_info(group.id, name.encode())
            if about.addr in seen:
                raise NeurosimError(f"'{path}' is not read: '{where}' is there under another name too. {_CURE}")
            seen.add(about.addr)
            item = group[name]
            if isinstance(item, h5py.Group):
                groups.append((where, item))
            elif not isinstance(item, h5py.Dataset):
                raise damaged(path, f"'{where}' is neither a group nor a data set")
            yield where, item


_CURE = "Wanted a file as neurosim writes it, which names nothing but itself."


def _stored(data: h5py.Dataset, where: str, path: Path, nwb: bool, growing: bool) -> int:
    """Bytes of a data set, which it really holds."""
    layout = data.id.get_create_plist()
    if layout.get_external_count():
        raise NeurosimError(
            f"'{path}' is not read: the data set '{where}' is kept in another file, "
            f"'{os.fsdecode(layout.get_external(0)[0])}'. {_CURE}"
        )
    if layout.get_layout() == h5d.VIRTUAL:
        raise NeurosimError(f"'{path}' is not read: the data set '{where}' is virtual, made of other files. {_CURE}")
    if layout.get_nfilters():
        raise NeurosimError(
            f"'{path}' is not read: the data set '{where}' is compressed or filtered, so its size cannot be told. "
            "`h5repack -f NONE IN OUT` unpacks it."
        )
    kind = data.id.get_type()
    _check_type(kind, f"the data set '{where}'", path, nwb)
    space = data.id.get_space()
    count = space.get_simple_extent_npoints() if space.get_simple_extent_type() != h5s.NULL else 0
    stored = data.id.get_storage_size()
    claimed = count * kind.get_size()
    if growing:
        return min(claimed, stored)
    if claimed > stored:
        raise damaged(
            path, f"the data set '{where}' of {data.shape} claims {claimed:,} bytes, and {stored:,} are stored"
        )
    return claimed


def _check_attributes(item: Any, where: str, path: Path, nwb: bool) -> None:
    size = os.stat(path).st_size
    for k in range(h5a.get_num_attrs(item.id)):
        attribute = h5a.open(item.id, index=k)
        name = attribute.name.decode(errors="replace")
        _check_type(attribute.get_type(), f"the attribute '{name}' of '{where}'", path, nwb)
        if attribute.get_storage_size() > size:
            raise damaged(path, f"the attribute '{name}' of '{where}' claims more than the file has")


def _check_type(kind: h5t.TypeID, what: str, path: Path, nwb: bool) -> None:
    number = kind.get_class()
    if not nwb and number not in _PLAIN:
        held = _KINDS.get(number, "values of another kind")
        raise damaged(path, f"{what} holds {held}; wanted numbers or text")
