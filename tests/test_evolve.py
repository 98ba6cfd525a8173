"""`neurosim evolve`: the objective by oracle, the folder, what is resumed, what is refused."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tomllib
from pathlib import Path

import numpy as np
import pytest
import torch
from oracles import tdca as oracle

from neurosim import data, registry
from neurosim.cli import main
from neurosim.data.dataset import Dataset
from neurosim.errors import NeurosimError
from neurosim.evolved import load_evolved
from neurosim.training.evolution.classification import Classification, evaluate
from neurosim.training.evolution.config import EvolveConfig, resolved
from neurosim.training.evolution.lifetime import Learners, Life

SIZES = (64, 6, 5, 10)
SMALL = ["--set", "sizes=64,6,10", "--set", "hidden=5", "--set", "batch=16", "--steps", "3"]


def learners(dtype: str = "float64", **settings) -> Learners:
    return Learners(registry.model("tdca").circuit({"sizes": SIZES, "hidden": 4} | settings), dtype)


def candidates(found: Learners, count: int, seed: int = 0) -> torch.Tensor:
    theta = torch.as_tensor(found.theta(found.circuit.initial_weights(seed)))
    noise = torch.randn(count, len(theta), dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
    return theta + 0.1 * noise


def by_hand(found: Learners, theta: torch.Tensor, start: int, x: np.ndarray, y: np.ndarray, life: Life) -> oracle.Life:
    """The oracle's lifetime of one learner under one candidate."""
    weights = found.unpacked(theta)
    names = [f"pyr{l}" for l in range(1, len(SIZES))]
    top = {
        "V1": np.concatenate([weights["V1_pyr3"], weights["V1_target"]]),
        "e1": weights["e1"][0],
        "V2": weights["V2"],
        "e2": weights["e2"][0],
        "V3": np.concatenate([weights[f"V3_{n}"] for n in names], axis=1),
        "e3": np.concatenate([weights[f"e3_{n}"][0] for n in names]),
    }
    born = found.circuit.initial_weights(start)
    mine = {n: born[n][0] if n.startswith("b") else born[n] for n in found.plastic}
    source = oracle.tdca_source(top, None)
    rate = float(life.rate)
    return oracle.lifetime(
        oracle.mlp(SIZES), mine, x, y, life.steps, source, optimiser=life.optimiser, rate=rate, clip=life.clip
    )


@pytest.mark.parametrize("fitness", ["last", "mean"])
@pytest.mark.parametrize("tasks", [1, 3])
def test_fitness_is_minus_the_loss_of_the_oracles_lives(fitness, tasks):
    found, life = learners(), Life("adam", 0.03, 1.0, 4)
    objective = Classification(found, data.load("digits"), life, fitness=fitness, batch=12, tasks=tasks, seed=3)
    thetas = candidates(found, 3)
    measured = objective(thetas, 7)
    starts = [objective.start(7, m) for m in range(tasks)]
    assert len(set(starts)) == tasks
    for theta, value in zip(thetas, measured, strict=True):
        losses = []
        for m, start in enumerate(starts):
            fields = objective.samples(7, m)[0]
            lived = by_hand(found, theta, start, fields["image"].numpy(), fields["target"].numpy(), life)
            losses.append(lived.losses[-1] if fitness == "last" else np.mean(lived.losses))
        assert abs(float(value) + np.mean(losses)) < 1e-10
    alone = torch.cat([objective(theta[None], 7) for theta in thetas])  # all tasks at once
    assert (alone - measured).abs().max() < 1e-12
    objective.chunk = 2
    assert (objective(thetas, 7) - measured).abs().max() < 1e-12


def test_samples_and_starts_follow_from_seed_and_generation():
    found, digits = learners(), data.load("digits")

    def objective(**keys) -> Classification:
        return Classification(found, digits, Life(steps=3), **({"batch": 16, "seed": 1} | keys))

    one, again = objective(), objective()
    assert torch.equal(one.samples(2, 0)[0]["image"], again.samples(2, 0)[0]["image"])
    for other in (one.samples(3, 0), one.samples(2, 1), objective(seed=2).samples(2, 0)):
        assert not torch.equal(one.samples(2, 0)[0]["image"], other[0]["image"])
    fresh = objective(fresh=True).samples(0, 0)
    assert len(fresh) == 3 and not torch.equal(fresh[0]["image"], fresh[1]["image"])
    assert len(one.samples(0, 0)) == 1
    assert {objective(fixed_start=True).start(g, m) for g in range(3) for m in range(3)} == {1}
    assert len(objective(batch=0).samples(0, 0)[0]["image"]) == len(digits.split("train")[1])
    rows = {tuple(row) for row in one.samples(0, 0)[0]["image"].tolist()}
    assert len(rows) == 16  # without repeats


def test_tasks_of_fewer_classes_relabel_them():
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 10, 400)
    images = np.repeat(labels[:, None], 64, axis=1) / 10.0  # a picture says its class
    parts = {
        f"{p}_{w}": v for p in ("train", "validation", "test") for w, v in (("images", images), ("labels", labels))
    }
    digits = data.load("digits")
    import dataclasses

    made: Dataset = dataclasses.replace(digits, **parts)
    found = learners(sizes=(64, 6, 4), hidden=4)
    objective = Classification(found, made, Life(steps=1), batch=40, classes=4)
    seen = set()
    for generation in range(6):
        fields = objective.samples(generation, 0)[0]
        pairs = {
            (round(float(x[0]) * 10), int(t.argmax())) for x, t in zip(fields["image"], fields["target"], strict=True)
        }
        assert len(pairs) == 4 and {new for _, new in pairs} == {0, 1, 2, 3}  # one to one
        assert fields["target"].sum(1).eq(1).all()
        seen |= {old for old, _ in pairs}
    assert len(seen) > 6  # other classes in other generations
    with pytest.raises(
        NeurosimError, match="Tasks of 10 classes out of the 10 of digits, and 'tdca' has 4 output cells"
    ):
        Classification(found, made, Life(steps=1))


def test_evaluation_is_the_life_of_each_learner_alone():
    found, digits, life = learners(), data.load("digits"), Life("sgd", 0.3, 1.0, 3)
    weights = found.unpacked(candidates(found, 1)[0])
    seeds = [5, 6]
    together = evaluate(found, weights, digits, life, batch=32, seeds=seeds, splits=("validation",), curve="validation")
    assert len(together["curve"]) == 4
    assert together["curve"][-1] == together["validation_accuracy"]
    # the same samples for both: those of the first seed
    drawn = Classification(found, digits, life, batch=32, seed=5).samples(0, 0)[0]
    images, labels = digits.split("validation")
    theta = torch.as_tensor(found.theta(weights))
    for k, seed in enumerate(seeds):
        lived = by_hand(found, theta, seed, drawn["image"].numpy(), drawn["target"].numpy(), life)
        acts = oracle.forward(oracle.mlp(SIZES), lived.weights, images.astype(float))
        wanted = oracle.one_hot(labels, 10)
        assert abs(oracle.nll(acts, wanted) - together["validation_loss"][k]) < 1e-10
        assert oracle.accuracy(acts, wanted) == pytest.approx(together["validation_accuracy"][k])


# ---------------------------------------------------------------- the command


def evolve(*arguments: str) -> int:
    return main(["evolve", "tdca", *SMALL, *arguments])


def rows(folder: Path) -> str:
    return (folder / "metrics.jsonl").read_text()


@pytest.mark.parametrize("strategy", ["pepg", "cmaes", "meta_gradient"])
def test_a_run_writes_credits_that_train(tmp_path, capsys, strategy):
    out = tmp_path / "credits"
    assert evolve("--strategy", strategy, "--population", "5", "--generations", "2", "--out", str(out)) == 0
    said = capsys.readouterr().out
    assert "test" in said and "evolved.safetensors" in said
    found, result = load_evolved(out), json.loads((out / "result.json").read_text())
    assert found.facts["generations"] == result["generations"] == 2
    assert result["searched"] == sum(w.size for w in found.weights.values())
    assert found.facts["life"] == {"optimiser": "adam", "rate": 0.03, "clip": 1.0, "steps": 3}
    assert len(result["test_accuracy"]) == 10
    # the centre of the last generation, not the best candidate
    from neurosim.training.evolution import load

    theta = load(out).theta
    built = Learners(registry.model("tdca").circuit({"credits": str(out)}))
    assert np.array_equal(built.theta(found.weights), theta)
    arguments = ["train", "tdca", "--credits", str(out), "--epochs", "1", "--out", str(tmp_path / "run")]
    assert main(arguments) == 0
    config = tomllib.loads((tmp_path / "run" / "config.toml").read_text())
    assert (config["settings"]["sizes"], config["learning_rate"], config["clip"]) == ([64, 6, 10], 0.03, 1.0)


def test_the_test_set_is_read_at_the_end_only(tmp_path):
    out = tmp_path / "credits"
    assert evolve("--population", "3", "--generations", "40", "--minutes", "0.0001", "--out", str(out)) == 0
    assert "test_accuracy" not in json.loads((out / "result.json").read_text())
    done = len(rows(out).splitlines())
    assert done < 40
    assert main(["evolve", "--resume", str(out), "--generations", str(done + 1)]) == 0
    result = (out / "result.json").read_text()
    assert "test_accuracy" in json.loads(result)
    assert main(["evolve", "--resume", str(out)]) == 0  # at its end: nothing is read again
    assert (out / "result.json").read_text() == result
    assert len(rows(out).splitlines()) == done + 1


#: Runs a command line, and kills itself without warning after so many generations.
DYING = """
import os, signal, sys
from neurosim.cli import main
from neurosim.training.evolution import loop
keep, left = loop._keep, [int(sys.argv[1])]
def kept(*arguments):
    keep(*arguments)
    left[0] -= 1
    if left[0] == 0:
        os.kill(os.getpid(), signal.SIGKILL)
loop._keep = kept
sys.exit(main(sys.argv[2:]))
"""


def test_a_killed_evolution_goes_on_bit_for_bit(tmp_path):
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    command = ["evolve", "tdca", *SMALL, "--population", "5", "--generations", "7", "--set", "test=false"]

    def child(generations: int, *arguments: str) -> int:
        environment = {**os.environ, "OMP_NUM_THREADS": "1"}
        return subprocess.run([sys.executable, "-c", DYING, str(generations), *arguments], env=environment).returncode

    assert child(-1, *command, "--out", str(whole)) == 0
    assert child(2, *command, "--out", str(killed)) == -signal.SIGKILL
    assert child(3, "evolve", "--resume", str(killed)) == -signal.SIGKILL
    assert len(rows(killed).splitlines()) == 5
    assert child(-1, "evolve", "--resume", str(killed)) == 0
    for name in ("metrics.jsonl", "result.json"):
        assert (killed / name).read_bytes() == (whole / name).read_bytes(), name
    one, other = load_evolved(whole), load_evolved(killed)  # safetensors writes its header's entries in any order
    assert (one.settings, one.facts) == (other.settings, other.facts)
    assert {n: w.tobytes() for n, w in one.weights.items()} == {n: w.tobytes() for n, w in other.weights.items()}


def killed_before_the_end(monkeypatch, *arguments: str) -> None:
    """A command that dies after its last generation, before results are written."""
    from neurosim.training.evolution import run

    def dies(*arguments):
        raise MemoryError("killed")

    with monkeypatch.context() as patch:
        patch.setattr(run, "finish", dies)
        assert main(["evolve", *arguments]) == 1


def test_results_of_fewer_generations_are_not_taken_for_those_at_the_end(tmp_path, monkeypatch):
    out = tmp_path / "credits"
    assert evolve("--population", "3", "--generations", "1", "--out", str(out)) == 0
    killed_before_the_end(monkeypatch, "--resume", str(out), "--generations", "2")
    assert json.loads((out / "result.json").read_text())["generations"] == 1
    assert main(["evolve", "--resume", str(out)]) == 0
    assert json.loads((out / "result.json").read_text())["generations"] == load_evolved(out).facts["generations"] == 2


def test_an_evolution_that_overwrites_leaves_no_credits_of_the_one_before(tmp_path, monkeypatch):
    out = tmp_path / "credits"
    assert evolve("--population", "3", "--generations", "1", "--out", str(out)) == 0
    again = ["tdca", *SMALL, "--population", "3", "--generations", "1", "--seed", "7", "--out", str(out), "--overwrite"]
    killed_before_the_end(monkeypatch, *again)
    assert not (out / "evolved.safetensors").exists() and not (out / "result.json").exists()
    assert main(["evolve", "--resume", str(out)]) == 0
    assert load_evolved(out).facts["seed"] == 7


def test_what_is_refused_changes_no_folder(tmp_path, capsys):
    out = tmp_path / "credits"
    assert evolve("--population", "4", "--out", str(out)) == 1 and not (out.exists() and list(out.iterdir()))
    assert evolve("--population", "3", "--minutes", "-1", "--out", str(out)) == 1
    assert not (out.exists() and list(out.iterdir()))
    assert evolve("--population", "3", "--generations", "2", "--out", str(out)) == 0  # the folder is not in the way
    files = {path.name: path.read_bytes() for path in out.iterdir()}
    capsys.readouterr()
    for arguments, message in (
        (["--generations", "1"], "generations = 1, and the evolution in"),
        (["--set", "sigma=5", "--population", "9"], "leave --set, --population out"),
        (["--seed", "0"], "leave --seed out"),
        (["--overwrite"], "leave --overwrite out"),
    ):
        assert main(["evolve", "--resume", str(out), *arguments]) == 1
        assert message in capsys.readouterr().err
        assert {path.name: path.read_bytes() for path in out.iterdir()} == files
    (out / "result.json").write_text("{")
    assert main(["evolve", "--resume", str(out)]) == 1
    assert "result.json' is damaged" in capsys.readouterr().err


def test_a_resumed_evolution_knows_its_command_and_its_data(tmp_path, monkeypatch):
    from neurosim.training.evolution import run

    out, folder, asked = tmp_path / "credits", tmp_path / "sets", []
    folder.mkdir()
    load = data.load
    monkeypatch.setattr(run.data, "load", lambda name, directory=None: asked.append(directory) or load(name))
    begin = ["--population", "3", "--generations", "1", "--data-dir", str(folder), "--out", str(out)]
    assert evolve(*begin) == 0
    assert main(["evolve", "--resume", str(out), "--generations", "2"]) == 0
    assert asked == [str(folder), str(folder)]
    origin = json.loads((out / "run.json").read_text())
    assert origin["generations"] == 2 and "--data-dir" in origin["command"] and "--resume" not in origin["command"]


def test_every_process_knows_the_end(tmp_path, monkeypatch):
    """A second one would wait for ever for the first, which reads what is written."""
    from neurosim.training.evolution import run

    out = tmp_path / "credits"
    assert evolve("--population", "3", "--generations", "1", "--out", str(out)) == 0
    monkeypatch.setenv("RANK", "1")
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setattr(run, "evolve", None)
    assert run.run(run.kept(out), out, resume=True) == {}


def test_credits_that_go_on_from_a_file_keep_its_net(tmp_path):
    first, second = tmp_path / "first", tmp_path / "second"
    short = ["--population", "3", "--generations", "1"]
    assert evolve(*short, "--set", "ratio=2", "--set", "kernel=exp", "--set", "width=0.7", "--out", str(first)) == 0
    begin = ["evolve", "tdca", "--set", f"credits={first}", "--set", "batch=16", "--steps", "2", *short]
    assert main([*begin, "--out", str(second)]) == 0
    told = load_evolved(second).settings
    wanted = {"sizes": (64, 6, 10), "hidden": 5, "ratio": 2, "kernel": "exp", "width": 0.7}
    assert {k: told[k] for k in wanted} == wanted
    circuits = [registry.model("tdca").circuit({"credits": str(folder)}) for folder in (first, second)]
    assert np.array_equal(*(c.initial_weights(0)["D_pyr1"] for c in circuits))


def test_credits_of_maps_train(tmp_path):
    out = tmp_path / "credits"
    conv = ["--set", "architecture=conv", "--set", "sizes=1,2,10", "--set", "pixels=8", "--set", "ratio=4"]
    more = ["--set", "hidden=3", "--set", "batch=16", "--steps", "1", "--population", "3", "--generations", "1"]
    assert main(["evolve", "tdca", *conv, *more, "--out", str(out)]) == 0
    train = [
        "train",
        "tdca",
        "--credits",
        str(out),
        "--epochs",
        "1",
        "--samples",
        "128",
        "--out",
        str(tmp_path / "run"),
    ]
    assert main(train) == 0


def test_one_candidate_on_tasks_of_whole_classes():
    """Their numbers of samples differ; a candidate alone has the same fitness as beside another."""
    found = learners(sizes=(64, 6, 5))
    objective = Classification(found, data.load("digits"), Life(steps=2), batch=0, classes=5, tasks=3)
    assert len({len(objective.samples(0, m)[0]["image"]) for m in range(3)}) > 1
    thetas = candidates(found, 2)
    together = objective(thetas, 0)
    assert torch.allclose(objective(thetas[:1], 0), together[:1], atol=1e-12)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--set", "strategy=none"], "strategy = None; wanted one of pepg, cmaes, meta_gradient"),
        (["--set", "fitness=0.3"], "fitness = 0.3; wanted one of last, mean"),
        (["--set", "data=none"], "data = None; wanted a text"),
        (["--set", "messenger=no"], "messenger = 'no'; wanted true or false"),
        (["--set", "credits=5"], "There is no file '5' of evolved weights"),
        (["--set", "ratoi=4"], "There is no setting of tdca or of its evolution 'ratoi'. Did you mean 'ratio'?"),
        (["--strategy", "pegp"], "There is no strategy 'pegp'. Did you mean 'pepg'?"),
        (["--population", "4"], "population = 4 is even; wanted an odd one"),
        (["--set", "batch=100000"], "batch = 100000; wanted at most the 1294 training samples"),
        (["--set", "sizes=32,6,10"], "32"),
        (["--set", "sizes=64,6,9"], "Tasks of 10 classes out of the 10 of digits, and 'tdca' has 9 output cells"),
        (["--set", "optimiser=adamw"], "There is no optimiser 'adamw'. Did you mean 'adam'?"),
        (["--set", "learning_rate=-1"], "learning_rate = -1; wanted a number above 0"),
        (["--set", "fitness=best"], "There is no fitness 'best'"),
        (["--set", "credits=bp"], "has no weights to evolve"),
        (["--set", "kappa=0.1"], "depends on itself"),
        (["--set", "fresh=1"], "fresh = 1; wanted true or false"),
        (["--steps", "0"], "steps = 0; wanted a whole number of at least 1"),
        (["--data", "digitz"], "digitz"),
        (["--resume", "nowhere"], "leave 'tdca' out"),
    ],
)
def test_bad_input_is_refused(tmp_path, capsys, arguments, message):
    assert evolve(*arguments, "--out", str(tmp_path / "out")) == 1
    assert message in capsys.readouterr().err


def test_what_cannot_be_evolved_or_trained_says_so(tmp_path, capsys):
    assert main(["evolve", "ghost_units", "--out", str(tmp_path / "a")]) == 1
    assert "'ghost_units' with these settings has no weights to evolve" in capsys.readouterr().err
    assert main(["train", "tdca", "--out", str(tmp_path / "b")]) == 1
    assert "are to be found by evolution" in capsys.readouterr().err
    assert main(["evolve"]) == 1
    assert "Wanted a model, or --resume DIR" in capsys.readouterr().err
    assert main(["evolve", "--resume", str(tmp_path / "c")]) == 1
    assert "holds no evolution" in capsys.readouterr().err


def test_resolved_takes_the_models_sizes_for_the_data_set():
    config = resolved("tdca", {"ratio": 4, "batch": 0}, data="mnist", strategy="meta_gradient", generations=None)
    assert config.settings["sizes"] == (784, 100, 100, 100, 10) and config.settings["ratio"] == 4
    assert (config.batch, config.tasks, config.fitness, config.generations) == (0, 4, "mean", 600)
    with pytest.raises(NeurosimError, match="generations = 0"):
        EvolveConfig("tdca", generations=0)
