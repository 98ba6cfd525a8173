"""Floating-point operations of a training step per sample, counted from the circuit's description: backprop and counter-current learning.

The two MLPs of Table 2 of Kao & Hariharan 2024 at its batch of 32, beside the printed numbers; the CNN of CIFAR-10, and the MLPs
with a feedback pass for each sample in place of one for each class. What is counted: `neurosim.analysis.flops`. Nothing is run.

    python experiments/counter_current/flops.py
    python experiments/counter_current/flops.py --batch 256

Seconds.
"""

from __future__ import annotations

from typing import Any

from _common import MODEL, parse, parser
from matplotlib.figure import Figure

from neurosim import Circuit, registry
from neurosim.analysis import flops
from neurosim.analysis.report import save, table
from neurosim.plot.style import PALETTE, empty_figure, style
from neurosim.training import resolve

#: Table 2, MFLOP per sample at a batch of 32: backprop and CCL. READ in the paper.
PUBLISHED = {"mnist": (2.39, 2.55), "cifar10": (25.23, 27.89)}
NETS = {"mnist": "MNIST, MLP", "cifar10": "CIFAR-10, MLP", "mnist_cnn": "MNIST, CNN", "cifar10_cnn": "CIFAR-10, CNN"}


def circuit(net: str) -> Circuit:
    data, _, kind = net.partition("_")
    return registry.model(MODEL).circuit(resolve(MODEL, {"layers": "pooled"} if kind else {}, data=data).settings)


def per_sample(net: Circuit, batch: int) -> float:
    """With as many feedback activities as samples: the products of the feedback net, and of the pairs, grow by batch/classes."""
    labels = registry.model("counter_current").preset({}, "mnist")["sizes"][-1]
    counted = flops.steady(net, labels)  # at this batch the feedback net runs once per sample
    return counted["drives"] + counted["rules"] + counted["contractions"] * batch / labels


def count(batch: int) -> list[dict[str, Any]]:
    rows = []
    for net, name in NETS.items():
        built = circuit(net)
        back, counter = flops.backprop(built), flops.steady(built, batch)
        rows.append(
            {
                "net": name,
                "backprop": sum(back.values()) / 1e6,
                "ccl": sum(counter.values()) / 1e6,
                "parts_backprop": {key: value / 1e6 for key, value in back.items()},
                "parts_ccl": {key: value / 1e6 for key, value in counter.items()},
                "ccl_per_sample": None if net.endswith("cnn") else per_sample(built, batch) / 1e6,
                "published": PUBLISHED.get(net) if batch == 32 else None,
            }
        )
    return rows


def report(rows: list[dict[str, Any]], batch: int) -> str:
    lines = []
    for row in rows:
        published = row["published"] or ("-", "-")
        each = "-" if row["ccl_per_sample"] is None else f"{row['ccl_per_sample']:.2f}"
        numbers = [f"{row['backprop']:.2f}", published[0], f"{row['ccl']:.2f}", published[1]]
        lines.append([row["net"], *numbers, f"{row['ccl'] / row['backprop']:.3f}", each])
    header = ["net", "BP", "paper's BP", "CCL", "paper's CCL", "CCL / BP", "CCL, feedback per sample"]
    return "\n".join(
        [
            "# Operations of a training step",
            "",
            f"MFLOP per sample, batches of {batch}, a multiply-add counts 2. Paper: Table 2, read there (its MLPs only).",
            "",
            table(header, lines),
        ]
    )


def draw(rows: list[dict[str, Any]]) -> Figure:
    parts = {
        "products of the nets": ("forward", "drives"),
        "changes of weights": ("weights", "rules"),
        "errors sent down": ("errors",),
        "pairs": ("contractions",),
    }
    with style():
        figure = empty_figure(2.3 * len(rows) + 0.8, 3.6)
        for axes, row in zip(figure.subplots(1, len(rows)), rows, strict=True):
            bottoms = [0.0, 0.0]
            counted = (row["parts_backprop"], row["parts_ccl"])
            for colour, (label, keys) in zip(PALETTE.values(), parts.items(), strict=False):
                heights = [sum(one.get(key, 0.0) for key in keys) for one in counted]
                axes.bar([0, 1], heights, 0.6, bottom=bottoms, color=colour, label=label)
                bottoms = [a + b for a, b in zip(bottoms, heights, strict=True)]
            axes.set_xticks([0, 1], ["backprop", "counter-\ncurrent"])
            axes.set_title(row["net"])
        figure.axes[0].set_ylabel("operations per sample (MFLOP)")
        figure.legend(*figure.axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=4)
    return figure


def main() -> None:
    command = parser(__doc__ or "", quick=False)
    command.add_argument("--batch", type=int, default=32, help="samples in a batch (default: 32, as published)")
    options = parse(command)
    rows = count(options.batch)
    save(options.out, "flops", report(rows, options.batch), draw(rows), {"batch": options.batch}, {"rows": rows})


if __name__ == "__main__":
    main()
