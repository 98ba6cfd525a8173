"""Training samples per second of counter-current learning on the steady level, as a ratio to plain torch backprop of the same forward net.

`backprop` is a loop of its own: `torch.nn` layers, autograd, the norm of the gradients clipped, `torch.optim.SGD`; no neurosim in it. The
circuit trains with its preset's transform (the norm of each stream's changes clipped). Both take the same batches in turn; ratios are
medians over the turns, so a neighbour on the machine slows both sides. FLOP are counted from the circuit's products (`neurosim.analysis.flops`).
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import partial
from itertools import pairwise
from pathlib import Path
from statistics import median
from typing import Any

import torch
import tyro
from torch import nn
from torch.nn import functional
from training_throughput import peak

from neurosim.analysis import flops
from neurosim.training import Trainer, resolve


@dataclass(frozen=True)
class Settings:
    """Training samples per second of counter-current learning, and the ratio of its time to backprop's."""

    nets: tuple[str, ...] = ("mlp", "cnn", "autoencoder")
    """mlp: 784-256x5-10; cnn: 1-32-64 maps with pooling, 28 pixels; autoencoder: 3-16-32-128-256 maps and back, 32 pixels."""
    batch_sizes: tuple[int, ...] = (32, 256)
    batches: int = 10
    """Batches in one timed turn."""
    repeats: int = 9
    """Timed turns, after one that is not timed."""
    threads: int = 1
    device: str = "cpu"
    dtype: str = "float32"
    out: Path | None = None
    """Write the measurements to this JSON file, for example benchmarks/results/counter_current_training_1.json."""


#: Model, data set and settings of each net.
NETS: dict[str, tuple[str, str, dict[str, Any]]] = {
    "mlp": ("counter_current", "mnist", {}),
    "cnn": ("counter_current", "mnist", {"layers": "pooled"}),
    "autoencoder": ("counter_current_autoencoder", "cifar10_jpeg", {}),
}


def plain_net(name: str) -> nn.Module:
    """The forward net in plain torch."""
    if name == "mlp":
        sizes = (784, 256, 256, 256, 256, 256, 10)
        blocks = [b for pair in pairwise(sizes) for b in (nn.Linear(*pair, bias=False), nn.ELU())]
        return nn.Sequential(*blocks[:-1])
    if name == "cnn":
        blocks = [
            b for pair in ((1, 32), (32, 64)) for b in (nn.Conv2d(*pair, 3, padding=1, bias=False), nn.ELU(), nn.MaxPool2d(2))
        ]  # fmt: skip
        return nn.Sequential(nn.Unflatten(1, (1, 28, 28)), *blocks, nn.Flatten(), nn.Linear(64 * 49, 10, bias=False))
    maps = (3, 16, 32, 128, 256)
    halved = [
        (nn.Conv2d(a, b, 3, stride=2, padding=1, bias=False), nn.BatchNorm2d(b, affine=False), nn.ReLU())
        for a, b in pairwise(maps)
    ]
    doubled = [
        (nn.Upsample(scale_factor=2), nn.Conv2d(a, b, 3, padding=1, bias=False), nn.BatchNorm2d(b, affine=False), nn.ReLU())
        for a, b in pairwise(maps[:0:-1])
    ]  # fmt: skip
    last = (nn.Upsample(scale_factor=2), nn.Conv2d(maps[1], maps[0], 3, padding=1))
    return nn.Sequential(
        nn.Unflatten(1, (3, 32, 32)), *(b for blocks in (*halved, *doubled, last) for b in blocks), nn.Flatten()
    )


def plain_backprop(net: nn.Module, train: dict[str, Any], batch: int, picture: bool) -> Callable[[], None]:
    """A function that trains one turn."""
    optimiser = torch.optim.SGD(net.parameters(), lr=1e-3, foreach=True)
    images = train["image"]

    def turn() -> None:
        order = torch.randperm(len(images))
        for first in range(0, len(images), batch):
            rows = order[first : first + batch]
            x = images[rows]
            loss = (
                functional.mse_loss(net(x), x) if picture else functional.cross_entropy(net(x), train["target"][rows])
            )
            optimiser.zero_grad()
            loss.backward()
            nn.utils.clip_grad_norm_(net.parameters(), 1.0, foreach=True)
            optimiser.step()
        float(loss)  # waits for the device

    return turn


def main(settings: Settings) -> None:
    torch.set_num_threads(settings.threads)
    top = peak(settings)  # type: ignore[arg-type]
    rows: list[dict[str, Any]] = []
    for name in settings.nets:
        model, data, chosen = NETS[name]
        for batch in settings.batch_sizes:
            config = resolve(
                model, chosen, data=data, batch_size=batch, limit=batch * settings.batches, crop=0, flip=False, device=settings.device,
                dtype=settings.dtype,
            )  # fmt: skip
            trainer = Trainer(config, progress=False)
            train: dict[str, Any] = trainer.splits["train"]
            net = plain_net(name).to(train["image"].device, train["image"].dtype)
            plain = plain_backprop(net, train, batch, picture=name == "autoencoder")
            times: dict[str, list[float]] = {"backprop": [], "counter-current": []}
            for turn in range(1, 2 + settings.repeats):
                for method, run in (("backprop", plain), ("counter-current", partial(trainer.epoch, turn))):
                    started = time.perf_counter()
                    run()
                    times[method].append(time.perf_counter() - started)
            counted = {"counter-current": sum(flops.steady(trainer.circuit, batch).values())}
            if trainer.circuit.reference is not None:
                counted["backprop"] = sum(flops.backprop(trainer.circuit).values())
            for method, found in times.items():
                seconds, samples = median(found[1:]), batch * settings.batches
                work = counted.get(method)
                rows.append({
                    "net": name, "batch": batch, "method": method, "samples_per_second": samples / seconds,
                    "ratio": median(a / b for a, b in zip(found[1:], times["backprop"][1:], strict=True)),
                    "flop_per_sample": work, "share_of_peak": None if work is None else work * samples / seconds / top,
                })  # fmt: skip
    print(f"{settings.threads} thread(s), {settings.dtype}, peak {top / 1e9:.0f} GFLOP/s")
    print(
        "| net | batch | method | samples/s | time / backprop | MFLOP per sample | share of peak |\n|---|--:|---|--:|--:|--:|--:|"
    )
    for r in rows:
        work, share = r["flop_per_sample"], r["share_of_peak"]
        print(
            f"| {r['net']} | {r['batch']} | {r['method']} | {r['samples_per_second']:.0f} | {r['ratio']:.2f} | "
            f"{'' if work is None else f'{work / 1e6:.2f}'} | {'' if share is None else f'{share:.0%}'} |"
        )
    if settings.out is not None:
        about = {"settings": {**asdict(settings), "out": str(settings.out)}, "peak": top, "torch": torch.__version__}
        settings.out.write_text(json.dumps({**about, "rows": rows}, indent=1) + "\n")


if __name__ == "__main__":
    main(tyro.cli(Settings))
