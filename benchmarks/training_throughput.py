"""Training samples per second of every method on the steady level, as a ratio to backprop of the same net.

All methods train a net of the same sizes on the same batches, in turn, epoch by epoch; ratios are medians over these turns, so a neighbour on
the machine slows both sides. Backprop is plain torch (autograd, foreach Adam). The share of the peak is the arithmetic of all matrix
products, as torch counts it, over the time and the rate of one large product measured in the same run. `data` is the share of the time
that goes into fetching batches (rows of the data on the device; with --crop and --flip also augmentation).
"""

from __future__ import annotations

import json
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median
from typing import Any

import torch
import tyro
from torch.utils.flop_counter import FlopCounterMode

from neurosim.training import Trainer, resolve

METHODS = {
    "backprop": ("predictive_coding", "backprop"),
    "feedback_alignment": ("predictive_coding", "feedback_alignment"),
    "direct_feedback_alignment": ("predictive_coding", "direct_feedback_alignment"),
    "ghost_units": ("ghost_units", "circuit"),
    "dendritic_microcircuit": ("dendritic_microcircuit", "circuit"),
    "equilibrium_propagation": ("equilibrium_propagation", "circuit"),
    "predictive_coding": ("predictive_coding", "circuit"),
}
BASELINE = "backprop"


@dataclass(frozen=True)
class Settings:
    """Training samples per second on torch:steady, and ratios to backprop."""

    data: str = "mnist"
    """Data set (found through NEUROSIM_DATA)."""
    sizes: tuple[int, ...] = (784, 500, 500, 10)
    """Cells per layer."""
    batch_size: int = 128
    batches: int = 20
    """Batches in one timed turn."""
    repeats: int = 5
    """Timed turns of each method, after one that is not timed."""
    threads: int = 1
    device: str = "cpu"
    dtype: str = "float32"
    crop: int = 0
    """Shift images by up to this many pixels."""
    flip: bool = False
    """Mirror images at random."""
    out: Path | None = None
    """Write the measurements to this JSON file, for example benchmarks/results/training_throughput.json."""


def trainer(settings: Settings, model: str, method: str) -> Trainer:
    config = resolve(
        model, {"sizes": settings.sizes}, data=settings.data, method=method, batch_size=settings.batch_size,
        limit=settings.batch_size * settings.batches, device=settings.device, dtype=settings.dtype, crop=settings.crop,
        flip=settings.flip,
    )  # fmt: skip
    return Trainer(config, progress=False)


def peak(settings: Settings) -> float:
    """Floating-point operations per second of one large matrix product."""
    n = 4096 if settings.device.startswith("cuda") else 1024
    a = torch.randn(n, n, device=settings.device, dtype=getattr(torch, settings.dtype))
    rates = []
    for _ in range(10):
        started = time.perf_counter()
        for _ in range(5):
            b = a @ a
        float(b[0, 0])  # waits for the device
        rates.append(5 * 2 * n**3 / (time.perf_counter() - started))
    return max(rates)


def fetching(run: Trainer) -> float:
    """Seconds that fetching the batches of one turn takes."""
    batch, rows = run.config.batch_size, torch.randperm(run.splits.samples).numpy()
    started = time.perf_counter()
    for first in range(0, len(rows), batch):
        fields = run.splits.training(rows[first : first + batch], epoch=0, first=first)
    float(fields["image"][0, 0])
    return time.perf_counter() - started


def main(settings: Settings) -> None:
    torch.set_num_threads(settings.threads)
    runs = {name: trainer(settings, *METHODS[name]) for name in METHODS}
    flops, times, fetched = {}, {name: [] for name in runs}, {name: [] for name in runs}
    for name, run in runs.items():
        with FlopCounterMode(display=False) as counter:
            run.epoch(1)
        flops[name] = counter.get_total_flops()
    for turn in range(2, 2 + settings.repeats):
        for name, run in runs.items():
            started = time.perf_counter()
            run.epoch(turn)  # ends with numbers on the host, so the device has finished
            times[name].append(time.perf_counter() - started)
            fetched[name].append(fetching(run))
    top, samples = peak(settings), settings.batch_size * settings.batches
    print(f"{settings.data} {'-'.join(map(str, settings.sizes))}, batch {settings.batch_size}, {settings.dtype}, "
          f"{settings.device}, {settings.threads} threads; peak {top / 1e9:.0f} GFLOP/s\n")  # fmt: skip
    print("| method | samples/s | time / backprop | MFLOP per sample | share of peak | data |")
    print("|---|--:|--:|--:|--:|--:|")
    rows: list[dict[str, Any]] = []
    for name in runs:
        ratio = median(a / b for a, b in zip(times[name], times[BASELINE], strict=True))
        seconds = median(times[name])
        row = {
            "method": name, "samples_per_second": samples / seconds, "ratio": ratio, "flops_per_sample": flops[name] / samples,
            "share_of_peak": flops[name] / seconds / top, "data_share": median(fetched[name]) / seconds,
        }  # fmt: skip
        rows.append(row)
        print(
            f"| {name} | {row['samples_per_second']:.0f} | {ratio:.2f} | {row['flops_per_sample'] / 1e6:.2f} | "
            f"{100 * row['share_of_peak']:.0f} % | {100 * row['data_share']:.1f} % |"
        )
    if settings.out:
        report = {"settings": asdict(settings), "torch": torch.__version__, "peak": top, "rows": rows}
        settings.out.write_text(json.dumps(report, indent=2, default=str) + "\n")


if __name__ == "__main__":
    main(tyro.cli(Settings, description=__doc__))
