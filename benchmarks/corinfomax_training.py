"""Training samples per second of CorInfoMax on the steady level, as a ratio to plain torch backprop of the same net and batch.

`backprop` is a loop of its own: two `torch.nn.Linear` with ReLU, squared error, `torch.optim.SGD`. `published` is the authors' scheme (30 + 10
sequential sweeps), the default. The other rows are the fixed-point solvers at a tolerance: they stop once no state moves by more than it.
All start from one trained net (`--epochs` of the published scheme), and take the same batches in turn; ratios are medians over the turns, so
a neighbour on the machine slows both sides. `to 200 steps`: largest difference of a rate from that after 200 plain steps in each phase
(float64), free and nudged.
The share of the peak is the arithmetic of all matrix products, as torch counts it, over the time and the rate of one large product.
"""

from __future__ import annotations

import contextlib
import json
import time
from dataclasses import asdict, dataclass
from itertools import pairwise
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import torch
import tyro
from torch.utils.flop_counter import FlopCounterMode
from training_throughput import peak

import neurosim
from neurosim.models import corinfomax
from neurosim.training import Trainer, resolve

#: torch counts the product of `addmm`, but not that of its form in place.
IN_PLACE = {torch.ops.aten.addmm_: lambda into, a, b, **_: 2 * a[0] * a[1] * b[1]}
SOLVERS = {
    "published": {"solver": "relaxation"},
    "sweeps 1e-2": {"solver": "sweeps", "tolerance": 1e-2},
    "sweeps 1e-3": {"solver": "sweeps", "tolerance": 1e-3},
    "anderson 1e-2": {"solver": "anderson", "tolerance": 1e-2},
    "anderson 1e-3": {"solver": "anderson", "tolerance": 1e-3},
    "anderson 1e-6": {"solver": "anderson", "tolerance": 1e-6},
}


@dataclass(frozen=True)
class Settings:
    """Training samples per second of CorInfoMax, and the ratio of its time to backprop's."""

    data: str = "mnist"
    """Data set (found through NEUROSIM_DATA); its preset gives the sizes."""
    batch_sizes: tuple[int, ...] = (20, 100)
    batches: int = 30
    """Batches in one timed turn."""
    repeats: int = 9
    """Timed turns, after one that is not timed."""
    epochs: int = 1
    """Epochs of training before anything is timed."""
    threads: int = 1
    device: str = "cpu"
    dtype: str = "float32"
    out: Path | None = None
    """Write the measurements to this JSON file, for example benchmarks/results/corinfomax_training_1.json."""


def plain_backprop(images: torch.Tensor, targets: torch.Tensor, sizes: tuple[int, ...], batch: int) -> Any:
    """A function that trains one turn."""
    layers = [torch.nn.Linear(*pair, bias=False) for pair in pairwise(sizes)]
    blocks = [block for layer in layers for block in (layer, torch.nn.ReLU())][:-1]
    net = torch.nn.Sequential(*blocks).to(images.device, images.dtype)
    optimiser = torch.optim.SGD(net.parameters(), lr=1e-3)

    def turn() -> None:
        for first in range(0, len(images), batch):
            loss = 0.5 * ((net(images[first : first + batch]) - targets[first : first + batch]) ** 2).sum(1).mean()
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
        float(loss)  # waits for the device

    return turn


def distance(settings: Settings, weights: dict[str, np.ndarray], images: Any, labels: Any, **solver: Any) -> float:
    """Largest difference of a rate from that after 200 plain steps a phase, float64."""
    ends = []
    for steps, chosen in ({"steps_free": 200, "steps_nudged": 200}, {"solver": "relaxation"}), ({}, solver):
        given = {"preset": settings.data, "step_rule": "constant", **steps}
        config = resolve(
            "corinfomax",
            given,
            data=settings.data,
            dtype="float64",
            batch_size=len(images),
            **{"max_sweeps": 200, **chosen},
        )
        trainer = Trainer(config, weights=weights, progress=False)
        targets = np.eye(trainer.splits["train"]["target"].shape[1])[labels]
        result = trainer.engine.present({"image": images, "target": targets}, learn="off")
        ends.append([result.ends[phase][f"pyr{l}.r"] for phase in ("free", "nudged") for l in (1, 2)])
    return max(float(np.abs(a - b).max()) for a, b in zip(*ends, strict=True))


def main(settings: Settings) -> None:
    torch.set_num_threads(settings.threads)
    sizes = corinfomax.PRESETS[settings.data]["sizes"]
    common: dict[str, Any] = dict(data=settings.data, device=settings.device, dtype=settings.dtype)
    first = Trainer(resolve("corinfomax", {}, epochs=settings.epochs, **common))
    first.fit()
    weights, top = first.engine.weights(), peak(settings)  # type: ignore[arg-type]
    some = slice(0, 200)
    dataset = neurosim.data.load(settings.data)
    gaps = {
        name: distance(settings, weights, dataset.train_images.reshape(len(dataset.train_images), -1)[some], dataset.train_labels[some], **s)
        for name, s in SOLVERS.items()
    }  # fmt: skip
    rows: list[dict[str, Any]] = []
    for batch in settings.batch_sizes:
        runs = {
            name: Trainer(
                resolve("corinfomax", {}, batch_size=batch, limit=batch * settings.batches, max_sweeps=200, **common, **s),
                weights=weights, progress=False,
            )
            for name, s in SOLVERS.items()
        }  # fmt: skip
        train: dict[str, Any] = runs["published"].splits["train"]
        turns: dict[str, Any] = {"backprop": plain_backprop(train["image"], train["target"], sizes, batch)}
        turns |= {name: run.epoch for name, run in runs.items()}
        flops, times = {}, {name: [] for name in turns}
        for turn in range(1, 2 + settings.repeats):
            for name, run in turns.items():
                with (
                    FlopCounterMode(display=False, custom_mapping=IN_PLACE)
                    if turn == 1
                    else contextlib.nullcontext() as counter
                ):
                    started = time.perf_counter()
                    run(turn) if name in runs else run()
                    times[name].append(time.perf_counter() - started)
                if counter is not None:
                    flops[name] = counter.get_total_flops()
        for name in turns:
            seconds = median(times[name][1:])
            samples = batch * settings.batches
            rows.append({
                "batch": batch, "method": name, "samples_per_second": samples / seconds,
                "ratio": median(a / b for a, b in zip(times[name][1:], times["backprop"][1:], strict=True)),
                "to_published": median(a / b for a, b in zip(times[name][1:], times["published"][1:], strict=True)),
                "flops_per_sample": flops[name] / samples, "share_of_peak": flops[name] / seconds / top,
                "to_200_steps": gaps.get(name),
            })  # fmt: skip
    print(
        f"{settings.data} {'-'.join(map(str, sizes))}, {settings.dtype}, {settings.device}, {settings.threads} threads; peak {top / 1e9:.0f} GFLOP/s\n"
    )
    print(
        "| batch | method | samples/s | time / backprop | / published | MFLOP per sample | share of peak | to 200 steps |"
    )
    print("|--:|---|--:|--:|--:|--:|--:|--:|")
    for row in rows:
        gap = "" if row["to_200_steps"] is None else f"{row['to_200_steps']:.0e}"
        print(
            f"| {row['batch']} | {row['method']} | {row['samples_per_second']:.0f} | {row['ratio']:.2f} | {row['to_published']:.2f} | "
            f"{row['flops_per_sample'] / 1e6:.2f} | {100 * row['share_of_peak']:.0f} % | {gap} |"
        )
    if settings.out:
        report = {"settings": asdict(settings), "torch": torch.__version__, "peak": top, "rows": rows}
        settings.out.write_text(json.dumps(report, indent=2, default=str) + "\n")


if __name__ == "__main__":
    main(tyro.cli(Settings, description=__doc__))
