"""Tables of run folders. Oracles: means, sd and intervals worked out by hand, with t(0.975) = 4.303 for 2 degrees of freedom and 12.706 for 1.

With 2 degrees of freedom the distribution of t has a closed form: two-sided p = 1 - |t|/sqrt(t^2 + 2).
"""

from __future__ import annotations

import csv
import json
import math

import pytest

from neurosim.cli import main
from neurosim.errors import NeurosimError
from neurosim.training import TrainConfig, table

#: Differences of the circuit to backprop, in points: -1, 0, -2.
CIRCUIT, BACKPROP = (0.90, 0.92, 0.94), (0.91, 0.92, 0.96)
T2, T1 = 4.302653, 12.706205


def fabricate(root, name, seed, accuracy=None, seconds=1.0, data="digits", result=None, **keys):
    """A run folder as the trainer leaves it; without an accuracy it is unfinished."""
    folder = root / f"{name}-{data}-{seed}"
    folder.mkdir(parents=True)
    config = TrainConfig("ghost_units", {"sizes": (64, 8, 10)}, name=name, data=data, seed=seed, **keys)
    (folder / "config.toml").write_text(config.to_toml())
    (folder / "run.json").write_text(json.dumps({"versions": {"neurosim": "1.2.3", "torch": "2.0"}}))
    if accuracy is not None:
        result = {
            "test_accuracy": accuracy, "test_loss": 1 - accuracy, "validation_accuracy": accuracy, "seconds": 10 * seconds,
            "seconds_per_epoch": seconds,
        }  # fmt: skip
    if result is not None:
        (folder / "result.json").write_text(json.dumps(result))
    return folder


@pytest.fixture
def runs(tmp_path):
    """Three seeds of two methods; the circuit takes 2, 3 and 10 times as long; seed 3 failed, seed 4 is unfinished."""
    for seed, (own, other, seconds) in enumerate(zip(CIRCUIT, BACKPROP, (2.0, 3.0, 10.0), strict=True)):
        fabricate(tmp_path, "ghost_units", seed, own, seconds)
        fabricate(tmp_path, "backprop", seed, other, 1.0, method="backprop")
    fabricate(tmp_path, "ghost_units", 3, result={"failed": "NaN in step 7"})
    fabricate(tmp_path, "ghost_units", 4)
    return tmp_path


def test_mean_sd_and_interval(runs):
    backprop, circuit = table.summarise(table.collect([runs]))
    assert (backprop.method, circuit.method, circuit.data, circuit.n) == ("backprop", "ghost_units", "digits", 3)
    half = T2 * 2 / math.sqrt(3)  # the sd of 90, 92, 94 is 2
    assert (circuit.mean, circuit.sd) == (pytest.approx(92), pytest.approx(2))
    assert (circuit.low, circuit.high) == (pytest.approx(92 - half, rel=1e-6), pytest.approx(92 + half, rel=1e-6))
    assert backprop.mean == pytest.approx(93) and backprop.sd == pytest.approx(math.sqrt(7))  # deviations -2, -1, 3


def test_failed_and_unfinished_seeds_are_listed(runs):
    _, circuit = table.summarise(table.collect([runs]))
    assert (circuit.failed, circuit.unfinished) == ((3,), (4,))


def test_cost(runs):
    backprop, circuit = table.summarise(table.collect([runs]))
    assert (circuit.seconds, circuit.time_ratio) == (30.0, 3.0)  # medians of 20, 30, 100 and of 2, 3, 10
    assert (backprop.seconds, backprop.time_ratio) == (10.0, 1.0)


def test_paired_difference(runs):
    backprop, circuit = table.summarise(table.collect([runs]))
    assert (circuit.pairs, circuit.better, backprop.pairs) == (3, 0, 0)
    half = T2 * 1 / math.sqrt(3)  # the sd of -1, 0, -2 is 1
    assert circuit.difference == pytest.approx(-1)
    assert circuit.difference_low == pytest.approx(-1 - half, rel=1e-6)
    assert circuit.difference_high == pytest.approx(-1 + half, rel=1e-6)
    t = math.sqrt(3)
    assert circuit.p == pytest.approx(1 - t / math.sqrt(t**2 + 2))


def test_only_seeds_that_both_finished_are_paired(tmp_path):
    for seed in (0, 1):
        fabricate(tmp_path, "a", seed, 0.5 + 0.1 * seed)
    for seed in (1, 2):
        fabricate(tmp_path, "backprop", seed, 0.5, method="backprop")
    _, own = table.summarise(table.collect([tmp_path]))
    assert (own.n, own.pairs, own.better, own.difference) == (2, 1, 1, pytest.approx(10))
    assert (own.p, own.difference_low) == (None, None)
    assert "too few seeds" in table.markdown([own], table.collect([tmp_path]))


def test_two_pairs_have_an_interval_and_no_p(tmp_path):
    for seed, (own, other) in enumerate([(0.5, 0.4), (0.7, 0.4)]):
        fabricate(tmp_path, "a", seed, own)
        fabricate(tmp_path, "backprop", seed, other, method="backprop")
    _, own = table.summarise(table.collect([tmp_path]))
    half = T1 * math.sqrt(200) / math.sqrt(2)  # differences 10 and 30: sd sqrt(200)
    assert (own.difference, own.p) == (pytest.approx(20), None)
    assert own.difference_high == pytest.approx(20 + half, rel=1e-6)


def test_differences_without_spread_have_no_p(tmp_path):
    for seed in range(3):
        fabricate(tmp_path, "a", seed, 0.5 + 0.125 * seed)
        fabricate(tmp_path, "backprop", seed, 0.25 + 0.125 * seed, method="backprop")
    rows = table.collect([tmp_path])
    summaries = table.summarise(rows)
    assert summaries[1].p is None and "same difference in all" in table.markdown(summaries, rows)


def test_a_loss_is_better_where_it_is_less(runs):
    _, circuit = table.summarise(table.collect([runs]), metric="test_loss")
    assert circuit.mean == pytest.approx(0.08) and circuit.difference == pytest.approx(0.01)
    assert circuit.better == 0


# ---------------------------------------------------------------- as text


def test_markdown(runs, capsys):
    fabricate(runs, "ghost_units", 0, 0.8, data="mnist", epochs=3)
    assert main(["table", str(runs)]) == 0
    text = capsys.readouterr().out
    lines = [line for line in text.splitlines() if line.startswith("|")]
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]
    assert ["method", "digits", "mnist"] in rows
    assert ["ghost_units", "92.00 ± 2.00 [87.03, 96.97] n=3, 1 failed, 1 unfinished", "80.00 n=1"] in rows
    assert ["ghost_units", "digits", "3", "1 (seed 3)", "1 (seed 4)", "30.0", "3.00"] in rows
    assert ["ghost_units", "digits", "3", "-1.00", "[-3.48, +1.48]", "0.225", "0 of 3"] in rows
    assert {len(line) for line in lines[:4]} == {len(lines[0])}  # columns aligned
    assert "over the finished seeds" in text
    assert "- all: model=ghost_units, batch_size=32, sizes=64,8,10\n" in text
    assert "- ghost_units on mnist: method=circuit, epochs=3\n" in text
    assert "- versions: neurosim 1.2.3, torch 2.0\n" in text


def test_latex(runs):
    rows = table.collect([runs])
    text = table.latex(table.summarise(rows), rows)
    assert r"ghost\_units & 92.00 $\pm$ 2.00 [87.03, 96.97] n=3, 1 failed, 1 unfinished \\" in text
    assert r"ghost\_units & digits & 3 & $-$1.00 & [$-$3.48, $+$1.48] & 0.225 & 0 of 3 \\" in text
    assert text.count(r"\toprule") == text.count(r"\bottomrule") == text.count(r"\end{tabular}") == 3
    body = [line for line in text.splitlines() if not line.startswith("%")]
    assert all(line.count("%") == line.count(r"\%") and line.count("_") == line.count(r"\_") for line in body)


def test_csv(runs, tmp_path, capsys):
    file = tmp_path / "table.csv"
    assert main(["table", str(runs), "--format", "csv", "--to", str(file)]) == 0
    assert capsys.readouterr().out == f"wrote {file}\n"
    backprop, circuit = csv.DictReader(file.read_text().splitlines())
    assert (circuit["metric"], circuit["method"], circuit["n"]) == ("test_accuracy", "ghost_units", "3")
    assert float(circuit["mean"]) == pytest.approx(92) and float(circuit["difference"]) == pytest.approx(-1)
    assert (circuit["failed"], circuit["unfinished"], backprop["p"], backprop["failed"]) == ("3", "4", "", "")


def test_without_a_baseline_there_is_no_comparison(tmp_path):
    fabricate(tmp_path, "a", 0, 0.5)
    rows = table.collect([tmp_path])
    text = table.markdown(table.summarise(rows), rows)
    assert "Difference" not in text and "time /" not in text and "--baseline NAME" in text


def test_no_seed_finished(tmp_path):
    fabricate(tmp_path, "a", 0)
    rows = table.collect([tmp_path])
    assert "| a      | – n=0, 1 unfinished |" in table.markdown(table.summarise(rows), rows)


# ---------------------------------------------------------------- errors


def test_several_settings_under_one_name_are_refused(runs):
    fabricate(runs, "ghost_units", 9, 0.9, epochs=7, dt="2*ms")
    with pytest.raises(
        NeurosimError, match=r"Several settings are called 'ghost_units' on digits: .* differ in epochs, dt\."
    ):
        table.collect([runs])


def test_the_same_run_twice_is_refused(runs):
    fabricate(runs / "again", "backprop", 1, 0.9, method="backprop")
    with pytest.raises(NeurosimError, match=r"'backprop' on digits has seed 1 twice: .*backprop-digits-1 and"):
        table.collect([runs])
    assert len(table.collect([runs / "again", runs / "again"])) == 1  # the same folder named twice is no harm


def test_runs_that_left_the_test_set_alone(tmp_path, capsys):
    result = {"validation_accuracy": 0.75, "seconds": 1.0, "seconds_per_epoch": 1.0}
    fabricate(tmp_path, "a", 0, result=result, test=False)
    assert main(["table", str(tmp_path)]) == 1
    error = capsys.readouterr().err
    assert "result.json has no test_accuracy" in error and "It has validation_accuracy: choose one" in error
    assert main(["table", str(tmp_path), "--metric", "validation_accuracy"]) == 0
    assert "75.00 n=1" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--baseline", "backprob"], "There is no baseline 'backprob'. Did you mean 'backprop'?"),
        (["--metric", "accuracy"], "There is no metric 'accuracy'. Did you mean 'test_accuracy'?"),
        (["--format", "html"], "There is no format 'html'"),
    ],
)
def test_unknown_words(runs, capsys, arguments, message):
    assert main(["table", str(runs), *arguments]) == 1
    assert message in capsys.readouterr().err


def test_folders_without_runs(tmp_path):
    with pytest.raises(NeurosimError, match="No run folder"):
        table.collect([tmp_path])
    with pytest.raises(NeurosimError, match="There is no folder"):
        table.collect([tmp_path / "none"])
