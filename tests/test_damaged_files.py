"""Files of strangers: nothing beside them is read, nothing is allocated that they do not hold, every fault has a name."""

import csv
import io
import json
import shutil
import tarfile
import unicodedata
import zipfile

import h5py
import numpy as np
import pytest
from PIL import Image
from safetensors.numpy import save as foreign

from neurosim import data, escape, tensors
from neurosim.cli import main
from neurosim.data.images import read as read_images
from neurosim.data.published import _checked
from neurosim.describe.latex import character
from neurosim.errors import NeurosimError
from neurosim.evolved import KIND, load_evolved
from neurosim.export import to_csv
from neurosim.traces import PhaseSpan, Spikes, Traces
from neurosim.training.config import TrainConfig, read_toml
from neurosim.training.run import load as load_run
from neurosim.training.run import read_metrics, read_origin, read_result, save_weights
from neurosim.training.table import collect, latex, markdown, summarise
from neurosim.training.table import csv as table_csv

ROWS, CELLS = 50, 3


@pytest.fixture(scope="module")
def recording(tmp_path_factory):
    time = np.arange(ROWS) / 1000
    traces = Traces(
        time, {"p.u": np.ones((ROWS, 1, CELLS))}, {"p.u": "volt", "W": "1"}, [PhaseSpan("on", 0, 0.0, 0.05)],
        {"model": "m"}, {"p": Spikes(np.array([0.01]), np.array([0]), np.array([2]))},
        weights={"W": np.ones((2, 3, 4))}, weight_trials=np.array([0, 1]), spike_cells={"p": np.arange(CELLS)},
    )  # fmt: skip
    return traces.save(tmp_path_factory.mktemp("recording") / "good.h5")


def replaced(name, **keywords):
    """A change that puts another data set in the place of one, with its attributes."""

    def change(file, folder):
        attributes = dict(file[name].attrs)
        del file[name]
        made = file.create_dataset(name, **keywords)
        made.attrs.update(attributes)

    return change


def linked(name, link):
    def change(file, folder):
        if name in file:
            del file[name]
        file[name] = link(file, folder)

    return change


def external(file, folder):
    (folder / "secret").write_bytes(b"\0" * 8 * ROWS)
    replaced("time", shape=(ROWS,), dtype="f8", external=[(str(folder / "secret"), 0, 8 * ROWS)])(file, folder)


def virtual(file, folder):
    layout = h5py.VirtualLayout((ROWS,), "f8")
    layout[:] = h5py.VirtualSource(str(folder / "other.h5"), "time", (ROWS,))
    del file["time"]
    file.create_virtual_dataset("time", layout)


def set_attribute(item, name, value):
    return lambda file, folder: file[item].attrs.__setitem__(name, value)


def set_value(name, index, value):
    return lambda file, folder: file[name].__setitem__(index, value)


HOSTILE = {
    "external storage": (external, "'/time' is kept in another file"),
    "external link": (linked("p/u", lambda *_: h5py.ExternalLink("other.h5", "/u")), "'/p/u' is a link to another file"),
    "soft link": (linked("q", lambda *_: h5py.SoftLink("/p")), "'/q' is a soft link"),
    "circle": (linked("p/p", lambda file, _: file["p"]), "'/p/p' is there under another name too"),
    "virtual": (virtual, "'/time' is virtual"),
    "rows without storage": (lambda file, _: file["p/u"].resize(10**12, axis=0), "claims 24,000,000,000,000 bytes"),
    "filled in": (replaced("time", shape=(10**12,), dtype="f8", chunks=(1000,)), "8,000,000,000,000 bytes, and 0 are"),
    "compressed": (replaced("time", shape=(10**8,), dtype="f8", chunks=(10**6,), compression="gzip"), "is compressed"),
    "empty axis": (replaced("p/u", shape=(ROWS, 0, 10**12), dtype="f8"), "has the shape (50, 0, 1000000000000)"),
    "references": (replaced("phases/start", shape=(1,), dtype=h5py.ref_dtype), "'/phases/start' holds references"),
    "text for numbers": (replaced("time", data=np.full(ROWS, b"x")), "'time' holds values of the type |S1"),
    "whole numbers": (replaced("weights/W", data=np.ones((2, 3, 4), dtype=int)), "'weights/W' holds values of the type"),
    "a group": (lambda f, _: (f.__delitem__("time"), f.create_group("time")), "'time' should be a data set, and it is a"),
    "no group": (lambda f, _: (f.__delitem__("p"), f.__setitem__("p", [1.0])), "'p' should be a group of variables"),
    "missing": (lambda f, _: f["spikes/p"].__delitem__("cell"), "'spikes/p/cell' should be a data set, and there is none"),
    "unit": (set_attribute("p/u", "unit", 3.0), "the attribute 'unit' of '/p/u' is"),
    "unit not UTF-8": (set_attribute("/", "metadata", b"\xff"), "the attribute 'metadata' of '/' is not UTF-8"),
    "indices": (set_attribute("p/u", "indices", np.arange(9)), "has 3 columns and 'indices' of 9 cells"),
    "format": (set_attribute("/", "format", "three"), "the attribute 'format' is 'three'"),
    "metadata": (set_attribute("/", "metadata", "[" * 100_000), "metadata: its JSON is nested too deeply"),
    "metadata NaN": (set_attribute("/", "metadata", '{"dt": NaN}'), "metadata: it holds NaN"),
    "time NaN": (set_value("time", 3, np.nan), "'/time' holds NaN or infinity"),
    "time goes back": (set_value("time", 3, 0.0), "'time' goes back"),
    "trial below 0": (set_value("phases/trial", 0, -1), "'/phases/trial' holds -1"),
    "phase not UTF-8": (set_value("phases/name", 0, b"\xff"), "'phases/name' is not UTF-8"),
    "phase ends early": (set_value("phases/stop", 0, -1.0), "the phase 'on' of trial 0 ends before it starts"),
    "spike of nobody": (set_value("spikes/p/cell", 0, 7), "has spikes of cells that 'indices' does not name"),
}  # fmt: skip


@pytest.mark.parametrize("name", HOSTILE)
def test_recordings_name_and_claim_nothing_but_what_they_hold(recording, tmp_path, name):
    change, message = HOSTILE[name]
    path = tmp_path / "bad.h5"
    shutil.copy(recording, path)
    with h5py.File(path, "r+") as file:
        change(file, tmp_path)
    with pytest.raises(NeurosimError) as refused:
        Traces.load(path)
    assert message in str(refused.value) and str(path) in str(refused.value)


def test_texts_that_lead_nowhere_are_refused_and_not_read_for_ever(recording, tmp_path):
    content = bytearray(recording.read_bytes())
    first = content.index(b"GCOL\x01") + 16  # the first text of the heap: number, references, size
    content[first + 8 : first + 16] = b"\xff" * 8
    (tmp_path / "bad.h5").write_bytes(content)
    with pytest.raises(NeurosimError, match=r"bad\.h5' is damaged: the texts at byte"):
        Traces.load(tmp_path / "bad.h5")


# ---------------------------------------------------------------- run folders


@pytest.fixture
def folder(tmp_path):
    """A finished run, as far as tables and weights go."""
    run = tmp_path / "run"
    run.mkdir()
    (run / "config.toml").write_text(TrainConfig("ghost_units", name="=1+1|<b>", epochs=1).to_toml(), encoding="utf-8")
    result = {"test_accuracy": 0.5, "test_loss": 1.0, "seconds": 1.0, "seconds_per_epoch": 1.0}
    (run / "result.json").write_text(json.dumps(result))
    (run / "run.json").write_text("{}")
    (run / "metrics.jsonl").write_text('{"epoch": 1, "train_loss": 1.0}\n')
    save_weights(run, {"W1": np.ones((3, 2), dtype=np.float32)})
    return run


JSON = [
    (b"\xff\xfe", "is not UTF-8"),
    (b"[1]", "it holds a list; wanted a table"),
    (b"null", "it holds null; wanted a table"),
    (b"[" * 100_000, "nested too deeply"),
    (b'{"seed": NaN}', "it holds NaN"),
    (b'{"seed": 1e999}', "it holds 1e999"),
    (b'{"seed": "\\ud800"}', "surrogates not allowed"),
]


@pytest.mark.parametrize(("content", "message"), JSON)
@pytest.mark.parametrize(
    ("name", "read"), [("result.json", read_result), ("run.json", read_origin), ("metrics.jsonl", read_metrics)]
)
def test_json_of_another_kind(folder, name, read, content, message):
    (folder / name).write_bytes(content + b"\n")
    with pytest.raises(NeurosimError, match=f"{name}' is damaged: .*{message}"):
        read(folder)


@pytest.mark.parametrize(
    ("name", "read", "content", "message"),
    [
        ("result.json", read_result, {"test_loss": 1.0, "seconds": 2.0}, "it lacks seconds_per_epoch"),
        ("result.json", read_result, {"seconds": 1.0, "seconds_per_epoch": 1.0}, "it has none of test_accuracy"),
        ("result.json", read_result, {"failed": 3}, "failed = 3; wanted a text"),
        ("run.json", read_origin, {"versions": {"torch": 2}}, "versions.torch = 2; wanted a text"),
        ("run.json", read_origin, {"data_dir": 5}, "data_dir = 5; wanted a text"),
        ("metrics.jsonl", read_metrics, {"epoch": "1"}, "line 1: epoch = '1'; wanted a whole number"),
        ("metrics.jsonl", read_metrics, {"train_loss": [1]}, r"line 1: train_loss = \[1\]; wanted"),
    ],
)
def test_json_with_other_keys(folder, name, read, content, message):
    (folder / name).write_text(json.dumps(content) + "\n")
    with pytest.raises(NeurosimError, match=f"{name}' is damaged: {message}"):
        read(folder)


def test_every_changed_byte_of_weights_is_refused(folder):
    path = folder / "weights.safetensors"
    whole = path.read_bytes()
    np.testing.assert_array_equal(load_run(folder).weights["W1"], np.ones((3, 2)))
    for k in range(len(whole)):
        path.write_bytes(whole[:k] + bytes([whole[k] ^ 4]) + whole[k + 1 :])
        with pytest.raises(NeurosimError, match=r"weights\.safetensors' (is|has format)"):
            load_run(folder)


def test_weights_of_another_program_have_no_checksum_and_are_finite(folder):
    path = folder / "weights.safetensors"
    path.write_bytes(foreign({"W1": np.full((3, 2), 2.0)}))
    np.testing.assert_array_equal(load_run(folder).weights["W1"], np.full((3, 2), 2.0))
    path.write_bytes(foreign({"W1": np.array([[1.0, np.inf]])}))
    with pytest.raises(NeurosimError, match="'W1' holds NaN or infinity"):
        load_run(folder)


@pytest.mark.parametrize(
    ("state", "weights", "message"),
    [
        ({}, 1.0, "holds no evolved weights"),
        ({"kind": KIND, "model": "tdca"}, 1.0, "it lacks settings, facts"),
        ({"kind": KIND, "model": "tdca", "settings": [], "facts": {}}, 1.0, r"settings = \[\]; wanted a table"),
        ({"kind": KIND, "model": "tdca", "settings": {}, "facts": {}}, np.nan, "'V' holds NaN or infinity"),
    ],
)
def test_evolved_weights_without_their_keys(tmp_path, state, weights, message):
    path = tensors.save(tmp_path / "evolved.safetensors", {"V": np.array([weights])}, state)
    with pytest.raises(NeurosimError, match=message):
        load_evolved(path)


def test_experiment_files_may_begin_with_a_mark_and_are_checked(tmp_path):
    path = tmp_path / "x.toml"
    path.write_bytes(b'\xef\xbb\xbfmodel = "ghost_units"\n')
    assert read_toml(path) == {"model": "ghost_units"}
    path.write_bytes(b"a = " + b"[" * 100_000)
    with pytest.raises(NeurosimError, match="nested too deeply"):
        read_toml(path)
    for wrong in ("variables = 1.0", "variables = [1.0]", "phases = 7"):
        path.write_text(f'model = "ghost_units"\n[recorder]\n{wrong}\n')
        with pytest.raises(NeurosimError, match="wanted a list of names"):
            TrainConfig.from_toml(path)


# ---------------------------------------------------------------- data


def npy(shape: str, kind: str = "<f8", body: bytes = b"") -> bytes:
    header = f"{{'descr': '{kind}', 'fortran_order': False, 'shape': {shape}, }}\n".encode()
    return b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header + body


@pytest.mark.parametrize(
    ("members", "message"),
    [
        ({"images.npy": b"not an array"}, "is not an array of NumPy"),
        ({"images.npy": npy("(1000000, 1000000)")}, "claims the shape (1000000, 1000000)"),
        ({"images.npy": npy("(-1, 1)")}, "claims the shape (-1, 1)"),
        ({"images.npy": npy("(2, 3)", body=b"\0" * 40)}, "and holds 40 bytes"),
        ({"images.npy": npy("(1, 1)", "|O", b"\0" * 8)}, "holds values of the type object"),
        ({"images.npy": npy("(" * 500)}, "is not an array of NumPy"),
        ({}, "holds nothing"),
    ],
)
def test_stimuli_that_are_no_arrays(tmp_path, capsys, members, message):
    path = tmp_path / "x.npz"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as file:
        for name, content in members.items():
            file.writestr(name, content)
    assert main(["simulate", "ghost_units", "--stimuli", str(path), "--out", str(tmp_path / "out")]) == 1
    assert message in (said := capsys.readouterr().err) and str(path) in said


def test_files_of_holes_are_refused_before_they_are_read(tmp_path):
    path = tmp_path / "data_batch_1.bin"
    with path.open("wb") as file:
        file.truncate(40 << 30)
    with pytest.raises(data.DataError, match="has 42,949,672,960 bytes; wanted at most"):
        _checked(path, None)


def picture(grey: int) -> bytes:
    content = io.BytesIO()
    Image.new("L", (2, 2), grey).save(content, "PNG")
    return content.getvalue()


def test_classes_whose_accents_are_composed_or_not_are_one(tmp_path):
    """As a folder and as an archive; two images of one name in both spellings are two."""
    composed, apart = (unicodedata.normalize(form, "café") for form in ("NFC", "NFD"))
    files = {f"train/{composed}/{k}.png": picture(k) for k in range(6)}
    files |= {f"train/{apart}/{k}.png": picture(10 + k) for k in range(6)} | {f"test/{apart}/0.png": picture(99)}
    with tarfile.open(tmp_path / "set.tar", "w") as archive:
        for name, content in files.items():
            (tmp_path / "set" / name).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / "set" / name).write_bytes(content)
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    for place in (tmp_path / "set", tmp_path / "set.tar"):
        arrays, names = read_images(place)
        assert names == (composed,) and set(arrays.train_labels) == {0}
        assert sorted(arrays.train_images[:, 0, 0]) == [*range(6), *range(10, 16)]


# ---------------------------------------------------------------- names stay text


def test_names_in_tables(folder):
    """Markdown: no column, no element. CSV: no formula, while numbers stay. LaTeX: no command."""
    rows = collect([folder])
    summaries = summarise(rows)
    text = markdown(summaries, rows)
    assert r"| =1+1\|&lt;b> " in text and "<b>" not in text
    (line,) = csv.DictReader(io.StringIO(table_csv(summaries, rows)))
    assert line["method"] == "'=1+1|<b>" and float(line["mean"]) == 50.0
    assert r"=1+1\textbar{}\textless{}b\textgreater{}" in latex(summaries, rows)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a|b", r"a\|b"),
        ("a\nb\r\n| c", r"a b \| c"),
        ("<script>", "&lt;script>"),
        ("</td><!-- x", "&lt;/td>&lt;!-- x"),
        ("`code`", r"\`code\`"),
        (r"a\|b", r"a\\\|b"),
        ("[x](javascript:y)", r"[x]\(javascript:y)"),
        ("&lt;b&gt;", "&amp;lt;b&amp;gt;"),
        ("p < 0.001, <0.001, tau = 10*ms, W_1", "p < 0.001, <0.001, tau = 10*ms, W_1"),
    ],
)
def test_markdown(text, expected):
    assert escape.markdown(text) == expected


def test_spreadsheets_compute_no_name(tmp_path):
    for text in ("=1+1", "+1", "-1", "@SUM(A1)", "\t=1"):
        assert escape.csv_cell(text) == f"'{text}"
    for cell in (-1.5, -3, "pyr1.u", "a=1", None):
        assert escape.csv_cell(cell) == cell
    times = np.array([0.0, 0.1])
    traces = Traces(
        times, {"=cmd.u": np.full((2, 1, 1), -2.0)}, {"=cmd.u": "1"}, [PhaseSpan("@x", 0, 0.0, 0.2)], {},
        {"-p": Spikes(times[1:], np.array([0]), np.array([0]))},
    )  # fmt: skip
    values, phases, spikes = (list(csv.reader(path.open())) for path in to_csv(traces, tmp_path / "t.csv"))
    assert values[0][1] == "'=cmd.u[0] (1)" and values[1] == ["0.0", "-2.0"]
    assert phases[1][0] == "'@x" and spikes[1][0] == "'-p"


def test_control_characters_leave_latex_on_its_line():
    assert escape.one_line("a\n\x1b[2Jb") == "a [2Jb"
    assert character("\\") == r"\textbackslash{}"


@pytest.mark.parametrize("encoding", ["latin-1", "ascii"])
def test_describe_on_a_terminal_without_its_characters(monkeypatch, encoding):
    terminal = io.TextIOWrapper(io.BytesIO(), encoding=encoding)
    monkeypatch.setattr("sys.stdout", terminal)
    assert main(["describe", "ghost_units"]) == 0
    terminal.flush()
    assert r"357\u2013362" in terminal.buffer.getvalue().decode(encoding)  # pages of a reference
