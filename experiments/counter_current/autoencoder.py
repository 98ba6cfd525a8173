"""Reconstructions of the counter-current autoencoder beside backprop's same net: test error and pictures.

CIFAR-10 (JPEG copy), 32 pixels, an eighth of the authors' channels (3-16-32-128-256 and back), the authors' settings of STL-10 for both (READ), 4
epochs of 1406 batches of 32, cosine. Backprop: plain torch, the mean squared error at the output alone, the same convolutions and batch
normalisation. Both use the means and variances of the batch in testing too (batches of 32). Best validation epoch, test set read once.

    neurosim train counter_current_autoencoder --data cifar10_jpeg --out runs/autoencoder     # about 15 minutes on one quiet core
    python experiments/counter_current/autoencoder.py --run runs/autoencoder                  # backprop's net, about 10 minutes, and the figure
    python experiments/counter_current/autoencoder.py --quick                                 # trains both on 1,280 pictures

The data lie in the folder of NEUROSIM_DATA.
"""

from __future__ import annotations

import copy
import math
from itertools import pairwise
from typing import Any

import numpy as np
import torch
from _common import parse, parser
from matplotlib.figure import Figure
from torch import nn
from torch.nn import functional
from tqdm import tqdm

from neurosim import data
from neurosim.analysis.report import save, table
from neurosim.files import user_path
from neurosim.plot.style import empty_figure, style
from neurosim.training import TrainConfig, Trainer, load, resolve

MODEL, MAPS, PIXELS = "counter_current_autoencoder", (3, 16, 32, 128, 256), 32
#: Of the authors' backprop autoencoder (READ); the rest is as in the counter-current run. And with the best of four pairs of rate and clipping
#: (0.03, 0.1 x 0.2, 1, and 0.3 x 0.2), by the validation error after 703 updates.
BACKPROP: dict[str, dict[str, Any]] = {
    "backprop": {"learning_rate": 0.03, "momentum": 0.5, "weight_decay": 1e-5, "warm_up": 200, "clip": 0.2},
    "backprop, rate searched": {
        "learning_rate": 0.1,
        "momentum": 0.5,
        "weight_decay": 1e-5,
        "warm_up": 200,
        "clip": 1.0,
    },
}
#: READ in the paper's text, STL-10 at 96 pixels and full width.
PAPER = {"counter-current learning": 0.0086, "backprop": 0.0059}
SHOWN = 10


def net() -> nn.Sequential:
    """The forward net in plain torch."""
    blocks: list[nn.Module] = [nn.Unflatten(1, (3, PIXELS, PIXELS))]
    for a, b in pairwise(MAPS):
        blocks += [nn.Conv2d(a, b, 3, stride=2, padding=1, bias=False), nn.BatchNorm2d(b, affine=False), nn.ReLU()]
    for a, b in pairwise(MAPS[:0:-1]):
        blocks += [nn.Upsample(scale_factor=2), nn.Conv2d(a, b, 3, padding=1, bias=False)]
        blocks += [nn.BatchNorm2d(b, affine=False), nn.ReLU()]
    blocks += [nn.Upsample(scale_factor=2), nn.Conv2d(MAPS[1], MAPS[0], 3, padding=1), nn.Flatten()]
    found = nn.Sequential(*blocks)
    for block in found:
        if isinstance(block, nn.Conv2d):
            nn.init.orthogonal_(block.weight)
    return found


@torch.no_grad()
def error(model: nn.Module, pictures: torch.Tensor, batch: int) -> float:
    """Mean squared error per pixel; whole batches, the last one filled up by repeats that do not count."""
    total = 0.0
    for first in range(0, len(pictures), batch):
        x = pictures[first : first + batch]
        filled = torch.cat([x, pictures[: batch - len(x)]])
        total += float(((model(filled)[: len(x)] - x) ** 2).mean(dim=1).sum())
    return total / len(pictures)


def backprop(config: TrainConfig, chosen: dict[str, Any]) -> tuple[nn.Module, list[dict[str, float]]]:
    """The net of the best validation epoch, and its curve."""
    torch.manual_seed(config.seed)
    dataset, model = data.load(config.data), net()
    train = torch.from_numpy(dataset.train_images).reshape(len(dataset.train_images), -1).float()[: config.limit]
    validation = torch.from_numpy(dataset.validation_images).reshape(len(dataset.validation_images), -1).float()
    options = {n: chosen[n] for n in ("momentum", "weight_decay")}
    optimiser = torch.optim.SGD(model.parameters(), lr=chosen["learning_rate"], **options)
    best, curve, update = model, [], 0
    for epoch in range(1, config.epochs + 1):
        share = (1 + math.cos(math.pi * (epoch - 1) / config.epochs)) / 2
        optimiser.param_groups[0]["lr"] = config.final_rate + (chosen["learning_rate"] - config.final_rate) * share
        order = np.random.default_rng([config.seed, 1, epoch]).permutation(len(train))
        for k in tqdm(range(len(order) // config.batch_size), unit="batch", desc=f"backprop, epoch {epoch}"):
            x = train[order[k * config.batch_size : (k + 1) * config.batch_size]]
            # the loss of the authors' image levels, H times the mean
            (PIXELS * min(1.0, (update + 1) / chosen["warm_up"]) * functional.mse_loss(model(x), x)).backward()
            nn.utils.clip_grad_norm_(model.parameters(), chosen["clip"])
            optimiser.step()
            optimiser.zero_grad()
            update += 1
        curve.append({"epoch": epoch, "validation_loss": error(model, validation, config.batch_size)})
        if curve[-1]["validation_loss"] == min(row["validation_loss"] for row in curve):
            best = copy.deepcopy(model)
    return best, curve


def draw(rows: dict[str, np.ndarray]) -> Figure:
    """Rows of pictures."""
    with style():
        figure = empty_figure(0.72 * SHOWN, 0.95 * len(rows))
        for axes, (name, pictures) in zip(figure.subplots(len(rows), 1), rows.items(), strict=True):
            maps = pictures.reshape(SHOWN, 3, PIXELS, PIXELS).transpose(2, 0, 3, 1)
            axes.imshow(np.clip(maps, 0, 1).reshape(PIXELS, SHOWN * PIXELS, 3))
            axes.set(xticks=[], yticks=[])
            axes.set_title(name, loc="left")
            axes.spines[:].set_visible(False)
    return figure


def main() -> None:
    command = parser(__doc__ or "")
    command.add_argument(
        "--run", type=user_path, help="folder of a finished training of the autoencoder (default: train now)"
    )
    options = parse(command)
    if options.run is not None:
        run = load(options.run)
        config, result = run.config, run.result
        trainer = Trainer(config, weights=run.weights, progress=False)
        curve = run.metrics
    else:
        limits: dict[str, Any] = {"limit": 1280, "epochs": 2} if options.quick else {}
        config = resolve(MODEL, {}, data="cifar10_jpeg", **limits)
        trainer = Trainer(config)
        curve = trainer.fit()
        trainer.engine.set_weights(trainer.best or trainer.engine.weights())
        result = {"test_loss": trainer.evaluate("test")["loss"]}
    pictures = torch.from_numpy(np.asarray(trainer.splits["test"]["image"])).float()
    first = pictures[: config.batch_size]
    present = trainer.engine.present
    errors = {"counter-current learning": result["test_loss"]}
    answers = {"counter-current learning": present({"image": first.numpy()}, learn="off", ends=False).readout}
    curves: dict[str, Any] = {"counter-current learning": curve}
    for name, chosen in BACKPROP.items():
        model, curves[name] = backprop(config, chosen)
        errors[name] = error(model, pictures, config.batch_size)
        with torch.no_grad():
            answers[name] = model(first).numpy()
    shown = {"picture": first.numpy()} | {
        f"{name}, test error {errors[name]:.4f}": answer for name, answer in answers.items()
    }
    ratios = {name: errors["counter-current learning"] / errors[name] for name in BACKPROP}
    rows = [
        (name, f"{e:.5f}", f"{ratios[name]:.2f}" if name in ratios else "", PAPER.get(name, ""))
        for name, e in errors.items()
    ]
    text = table(("method", "test error", "counter-current / this", "the paper's error, STL-10"), rows)
    save(
        options.out, "autoencoder", f"# Autoencoder\n\n{text}", draw({name: values[:SHOWN] for name, values in shown.items()}),
        {"data": config.data, "epochs": config.epochs, "batch_size": config.batch_size, "limit": config.limit, "seed": config.seed, "backprop": BACKPROP},
        {"test_error": errors, "ratio": ratios, "curves": curves},
    )  # fmt: skip


if __name__ == "__main__":
    main()
