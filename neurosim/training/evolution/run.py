"""`neurosim evolve`: a folder in which evolved weights are found.

``config.json``            the configuration
``metrics.jsonl``          one line per generation, the same whenever the evolution is repeated
``timing.jsonl``           seconds of each generation
``checkpoint.safetensors`` written after each generation: what a stopped or killed evolution goes on from
``run.json``               the exact command that began it, folder of the data, versions, and how many generations are wanted by now
``evolved.safetensors``    the weights at the end, or where time was up: `--credits` of `neurosim train tdca`
``result.json``            newborn learners that evolution has not seen, taught for one life each
"""

from __future__ import annotations

import contextlib
import json
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch
from annotated_types import MinLen

from neurosim import data, registry
from neurosim.backends.settings import own_settings
from neurosim.backends.torch.workers import is_first
from neurosim.data import SPLITS
from neurosim.errors import NeurosimError
from neurosim.evolved import NAME, Evolved
from neurosim.files import check_owner, locked, user_path, write_whole
from neurosim.reading import damaged, of_types, read_table
from neurosim.simulation import versions
from neurosim.stimuli import check_short
from neurosim.training import checkpoint
from neurosim.training.evolution.classification import UNSEEN, Classification, evaluate
from neurosim.training.evolution.config import EvolveConfig
from neurosim.training.evolution.lifetime import Learners, Life
from neurosim.training.evolution.loop import CONFIG, MEND, Evolution, check_minutes, evolve, load
from neurosim.training.evolution.strategy import Strategy
from neurosim.training.run import ORIGIN, read_origin

RESULT = "result.json"


def life_of(config: EvolveConfig) -> Life:
    """A learner's life in a configuration."""
    return Life(config.optimiser, config.learning_rate, config.clip, config.steps)


def strategy_of(config: EvolveConfig, theta: torch.Tensor) -> Strategy:
    """The strategy that a configuration names, at theta."""
    rate: dict[str, Any] = {} if config.rate is None else {"rate": config.rate}
    if config.strategy == "meta_gradient":
        from neurosim.training.evolution.meta_gradient import MetaGradient

        return MetaGradient(theta, **rate)
    if config.strategy == "cmaes":
        from neurosim.training.evolution.cma import CMAES

        if rate:
            raise NeurosimError(f"rate = {config.rate} with strategy = 'cmaes', which adapts its own. Leave it out.")
        return CMAES(theta, config.sigma, population=config.population, seed=config.seed)
    from neurosim.training.evolution.pepg import PEPG

    return PEPG(theta, population=config.population, sigma=config.sigma, seed=config.seed, **rate)


@own_settings()
def run(
    config: EvolveConfig, out: Path, data_dir: str | None = None, *, resume: bool = False, overwrite: bool = False, minutes: float | None = None,
    progress: bool = True, command: str = "", track: bool = False,
) -> dict[str, Any]:  # fmt: skip
    """Evolve (or go on with the evolution in `out`), write the folder, and return what ``result.json`` holds.

    Test accuracies are read when all generations are done, not where `minutes` ended them.
    """
    out = user_path(out)
    check_minutes(minutes)  # like all that follows, before anything is written
    origin = _origin(out) if resume else {}
    began_with = origin.get("data_dir")
    if data_dir is None and began_with and Path(began_with).is_dir():  # else moved, or another machine
        data_dir = began_with
    circuit = registry.model(config.model, str(out / CONFIG)).circuit(config.settings)
    if not circuit.evolved:
        raise NeurosimError(
            f"The circuit '{circuit.name}' with these settings has no weights to evolve; wanted one whose Projection(..., evolved=True) marks some, such as tdca with "
            "credits = 'unevolved'."
        )
    if circuit.readout is None or circuit.readout.wanted != "target":
        raise NeurosimError(f"'{circuit.name}' names no readout of classes, which `neurosim evolve` needs.")
    check_short(circuit, "`neurosim evolve` presents", "Clamp its inputs to these two.")
    learners = Learners(circuit, config.dtype, config.device)
    dataset = data.normalise(data.load(config.data, data_dir), config.normalise)
    life = life_of(config)
    objective = Classification(
        learners, dataset, life, fitness=config.fitness, batch=config.batch, fresh=config.fresh, tasks=config.tasks, classes=config.classes,
        fixed_start=config.fixed_start, seed=config.seed, chunk=config.chunk,
    )  # fmt: skip
    theta = torch.as_tensor(learners.theta(circuit.initial_weights(config.seed)))
    strategy = strategy_of(config, theta)
    done = len(load(out).history) if resume and (out / checkpoint.NAME).is_file() else 0
    if done == config.generations and (result := _result(out)).get("generations") == done:
        return result if is_first() else {}  # at its end: the test set is not read again
    with locked(out) if is_first() else contextlib.nullcontext():  # refused while another process writes there
        if is_first() and done <= config.generations and (resume or overwrite or not (out / CONFIG).is_file()):
            check_owner(out, CONFIG)
            for name in (NAME, RESULT) if overwrite else ():
                (out / name).unlink(missing_ok=True)
            given = data.given_directory(data_dir)
            begun = {
                "command": command,
                "track": track,
                "data_dir": given and str(given.absolute()),
                "versions": versions(),
            }
            told = {**begun, **origin, "generations": config.generations}
            registry.trust(config.model)
            write_whole(out / ORIGIN, json.dumps(told, indent=1).encode())
        found = evolve(
            objective, strategy, config.generations, out, resume=resume, overwrite=overwrite, minutes=minutes, config=config.to_json(),
            progress=progress, track=track or bool(origin.get("track")),
        )  # fmt: skip
        return finish(config, learners, dataset, found, out) if is_first() else {}


def _origin(out: Path) -> dict[str, Any]:
    """``run.json``, empty where there is none."""
    return read_origin(out)


def _result(out: Path) -> dict[str, Any]:
    """``result.json``, which may be of fewer generations than the checkpoint; empty where there is none."""
    path, mend = out / RESULT, "Delete it, then resume: it is written again."
    if not path.is_file():
        return {}
    lists = {f"{split}_{what}": Annotated[list[float], MinLen(1)] for split in SPLITS for what in ("accuracy", "loss")}
    result = read_table(path, {"generations": int, "searched": int}, lists, mend)
    if missing := [f"{s}_loss" for s in SPLITS if f"{s}_accuracy" in result and f"{s}_loss" not in result]:
        raise damaged(path, f"it lacks {', '.join(missing)}", mend)
    return result


def kept(folder: Path) -> EvolveConfig:
    """The configuration of the evolution in a folder."""
    folder = user_path(folder)
    path = folder / CONFIG
    if not path.is_file():
        raise NeurosimError(
            f"'{folder}' holds no evolution: it has no {CONFIG}. `neurosim evolve MODEL --out {folder}` begins one."
        )
    described = read_table(path, needs={"config": dict[str, Any]}, mend=MEND)
    values = of_types(described["config"], path, needs={"settings": dict[str, Any]}, mend=MEND, part="config")
    settings = {k: tuple(v) if isinstance(v, list) else v for k, v in values.pop("settings").items()}
    origin = read_origin(folder)
    if "generations" not in origin:
        raise damaged(folder / ORIGIN, "it is missing, or lacks generations", MEND)
    try:
        return EvolveConfig(settings=settings, generations=origin["generations"], **values)
    except TypeError as error:
        raise damaged(path, f"its config does not fit ({error})", MEND) from error


def finish(config: EvolveConfig, learners: Learners, dataset: Any, found: Evolution, out: Path) -> dict[str, Any]:
    """Write the evolved weights, and how unseen learners fare with them."""
    done, weights = len(found.history), learners.unpacked(found.theta)
    life = life_of(config)
    facts = {
        "life": {"optimiser": life.optimiser, "rate": config.learning_rate, "clip": life.clip, "steps": life.steps},
        "data": config.data, "normalise": config.normalise, "strategy": config.strategy, "seed": config.seed, "generations": done,
        "batch": config.batch, "fresh": config.fresh, "population": config.population,
    }  # fmt: skip
    Evolved(weights, config.model, config.settings, facts).save(out / NAME)
    whole = config.classes is None
    result: dict[str, Any] = {"generations": done, "searched": learners.size}
    if whole:
        splits = ("train", "validation", *(("test",) if config.test and done >= config.generations else ()))
        # Lives on samples of a task's number: all of the training set where it is no larger than what the authors' settings took.
        read = evaluate(
            learners, weights, dataset, life, batch=config.batch if config.fresh else 0, fresh=config.fresh, splits=splits
        )  # fmt: skip
        result |= {k: v for k, v in read.items() if k != "weights"} | {"learner_seeds": list(UNSEEN)}
    write_whole(out / RESULT, json.dumps(result, indent=1).encode())
    return result


def text_of(result: dict[str, Any]) -> str:
    """The result in words."""
    lines = []
    for split in SPLITS:
        if f"{split}_accuracy" in result:
            right, losses = (np.array(result[f"{split}_{what}"]) for what in ("accuracy", "loss"))
            lines.append(
                f"{split:11} accuracy {100 * right.mean():.2f} +- {100 * right.std(ddof=1):.2f} %, lowest {100 * right.min():.2f} %, loss {losses.mean():.3f}"
            )
    return "\n".join(lines)
