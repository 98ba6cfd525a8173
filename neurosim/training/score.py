"""Scores: right answers and loss, of a batch or of a split."""

from __future__ import annotations

from functools import cached_property
from typing import Any

import numpy as np

from neurosim.backends.settings import named_overflow
from neurosim.backends.torch.workers import Workers
from neurosim.circuit import Circuit
from neurosim.description import Readout
from neurosim.errors import DivergenceError
from neurosim.training.config import TrainConfig
from neurosim.training.divergence import check_weights, cure
from neurosim.training.measures import Measures
from neurosim.training.splits import Fields


def classifies(readout: Readout) -> bool:
    """Whether answers are classes, which are right or wrong; a picture has a loss only."""
    return readout.wanted == "target"


def score(readout: Readout, answers: np.ndarray, wanted: Any) -> tuple[float, float]:
    """Number of right answers (0 where there are no classes) and summed loss, see `Readout`."""
    wanted = wanted.cpu().numpy() if hasattr(wanted, "cpu") else wanted
    right = 0.0
    if classifies(readout):
        right = float((answers.argmax(axis=1) == wanted.argmax(axis=1)).sum())
    with np.errstate(over="ignore"):  # a net that diverges is reported by its engine
        if readout.loss == "cross_entropy":
            logs = np.log(np.maximum(answers, np.finfo(answers.dtype).tiny))
            return right, float((wanted * -logs).sum())
        squares = float(((wanted - answers) ** 2).sum())
    if readout.loss == "mean_squared":
        return right, squares / answers.shape[1]
    return right, 0.5 * squares


class Evaluator:
    """Scores splits with plasticity off.

    Parameters
    ----------
    config, circuit, workers, measures
        Of the training.
    engine
        The one that learns; its weights are scored.
    """

    def __init__(
        self,
        config: TrainConfig,
        circuit: Circuit,
        engine: Any,
        workers: Workers,
        measures: Measures,
    ):
        self.config, self.circuit, self.engine = config, circuit, engine
        self.workers, self.measures = workers, measures
        assert circuit.readout is not None
        self.readout = circuit.readout

    @cached_property
    def reader(self) -> Any:
        """The engine that is asked: it runs no further than the phase of the readout."""
        engine = self.engine
        if self.config.is_reference:
            return engine
        plan = self.circuit.plan.until(self.readout.phase)
        reader = type(engine)(plan, engine.weights(), engine.options)
        if self.workers.size > 1:  # on the steady level a batch settles as a whole
            reader.workers = self.workers
        return reader

    def evaluate(self, fields: Fields, measures: bool) -> dict[str, Any]:
        """Accuracy (of a circuit that classifies) and loss over samples, and measures of states."""
        total, ends = len(fields["image"]), measures and bool(self.measures.of_states)
        own, rows = self._rows(total)
        weights = self.engine.weights()
        check_weights(weights, self.config)
        if self.reader is not self.engine:
            self.reader.set_weights(weights)
        shown = {name: values[rows] for name, values in fields.items()}
        with named_overflow(cure(self.config)):
            result = self.reader.present(shown, learn="off", ends=ends)
        answers, wanted = result.readout[: len(own)], fields[self.readout.wanted][own]
        right, loss = self.workers.total(*score(self.readout, answers, wanted))
        if not np.isfinite(loss):
            raise DivergenceError(f"The loss is {loss}. {cure(self.config)}")
        row: dict[str, Any] = {"accuracy": right / total} if classifies(self.readout) else {}
        row["loss"] = loss / total
        if ends:
            row |= self.measures.read_states(result.ends, len(own))
        return row

    def _rows(self, total: int) -> tuple[np.ndarray, np.ndarray]:
        """The samples that this worker scores, and those that it runs.

        Brian2's groups hold whole batches: the first samples fill the last one, and are left out of
        the score there. Workers take turns, so that together they hold the batches of one process
        (a circuit may pool over a batch).
        """
        size, rank = self.workers.size, self.workers.rank
        together = self.engine.options.batch * size
        filled = -(-total // together) * together
        return np.arange(rank, total, size), np.arange(rank, filled, size) % total
