"""How the two nets come to agree on MNIST: their activities, their weights, and the updates with backprop's gradient.

cka      Linear CKA of each forward with each feedback level at updates 0 to 160 (batches of 32): 500 validation images, the label
         population clamped to each image's own label. MLP of six layers and CNN of two levels of maps, presets.
weights  Cosine of U_l with V_l^T in an MLP of five layers over 1,000 updates (batches of 256).
update   In the same training, cosine of the weight changes that the rules ask for with minus the gradient of the cross-entropy of the same net by
         backprop, on one batch of training images.

    python experiments/counter_current/alignment.py
    python experiments/counter_current/alignment.py --quick

Finished runs are kept; delete results/alignment.json to begin anew. MNIST lies in the folder of NEUROSIM_DATA. About 6 minutes.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from _common import MODEL, Streams, follow, parse, parser, validation
from matplotlib.figure import Figure

from neurosim.analysis import ReferenceNet, cka, cosine
from neurosim.analysis.report import collect, save, select, table
from neurosim.plot.style import GREY, LINES, empty_figure, style
from neurosim.simulation import build_engine
from neurosim.training import resolve

UPDATES = (0, 20, 40, 80, 160)
NETS: dict[str, dict[str, Any]] = {"MLP": {}, "CNN": {"layers": "pooled"}}
SAMPLES = 500
LONG = (0, 20, 50, 100, 200, 500, 1000)
SIZES = (784, 256, 256, 256, 256, 10)


def run(part: str, net: str, seed: int, updates: list[int]) -> dict[str, Any]:
    return of_activities(net, seed, updates) if part == "cka" else of_weights(seed, updates)


def of_activities(net: str, seed: int, updates: list[int]) -> dict[str, Any]:
    """``cka``: by update, a row per feedback level (from 0) and a column per forward level (from 1 to the output's logits)."""
    config = resolve(MODEL, NETS[net], data="mnist", batch_size=32, seed=seed)
    streams = Streams(config.settings, *validation(config, SAMPLES))
    found: list[Any] = []

    def read(update: int, trainer: Any, weights: dict[str, np.ndarray]) -> None:
        activity = streams(weights)
        forward = [*(f"F{l}.r" for l in range(1, streams.top)), f"F{streams.top}.u"]
        found.append(
            [
                [round(cka(activity[f"D{l}.r"], activity[name]) or 0.0, 4) for name in forward]
                for l in range(streams.top)
            ]
        )

    trainer = follow(config, updates, read)
    return {"cka": found, "validation": trainer.evaluate("validation")["accuracy"]}


def of_weights(seed: int, updates: list[int]) -> dict[str, Any]:
    """``weights`` and ``update``: by update, a cosine per layer."""
    config = resolve(MODEL, {"sizes": SIZES}, data="mnist", seed=seed)
    found: dict[str, Any] = {"weights": [], "update": []}
    engines: list[Any] = []

    def read(update: int, trainer: Any, weights: dict[str, np.ndarray]) -> None:
        fields = {name: np.asarray(values[: config.batch_size]) for name, values in trainer.splits["train"].items()}
        if not engines:
            options: dict[str, Any] = {
                "batch": config.batch_size,
                "dtype": "float32",
                "method": "sweeps",
                "progress": False,
            }
            engines.append(build_engine(trainer.circuit, "torch:steady", weights, seed, **options))
        engines[0].set_weights(weights)
        changes = engines[0].present(fields, learn="held", ends=False).collected
        gradient = ReferenceNet(trainer.circuit, weights).gradient(fields["image"], fields["target"])
        layers = range(1, len(SIZES))
        found["weights"].append([cosine(weights[f"U{l}"], weights[f"V{l}"].T) for l in layers])
        found["update"].append([cosine(changes[f"U{l}"], -gradient[f"U{l}"]) for l in layers])

    trainer = follow(config, updates, read)
    return found | {"validation": trainer.evaluate("validation")["accuracy"]}


def report(rows: list[dict[str, Any]]) -> str:
    parts = ["# Alignment of the two nets, MNIST", "", "Means over seeds.", ""]
    for net in NETS:
        some = select(rows, part="cka", net=net)
        mean = np.mean([row["cka"] for row in some], axis=0)
        accuracy = [100 * row["validation"] for row in some]
        parts += [
            f"## CKA, {net}, {len(some)} seeds",
            "",
            f"Validation accuracy after the last update: {np.mean(accuracy):.1f} ± {np.std(accuracy, ddof=len(accuracy) > 1):.1f} %. Columns "
            "forward levels a_1 to the logits, rows feedback levels b_0 upwards.",
            "",
        ]
        for k in (0, -1):
            header = [f"update {some[0]['updates'][k]}", *(f"a_{l + 1}" for l in range(mean.shape[2]))]
            lines = [[f"b_{l}", *(f"{value:.2f}" for value in row)] for l, row in enumerate(mean[k])]
            parts += [table(header, lines), ""]
    some = select(rows, part="weights")
    for key, title in (
        ("weights", "Cosine of U_l with V_l^T"),
        ("update", "Cosine of the rules' changes with minus backprop's gradient"),
    ):
        mean = np.mean([row[key] for row in some], axis=0)
        header = ["update", *(f"layer {l + 1}" for l in range(mean.shape[1]))]
        lines = [[n, *(f"{x:.2f}" for x in row)] for n, row in zip(some[0]["updates"], mean, strict=True)]
        parts += [f"## {title}, {len(some)} seeds", "", table(header, lines), ""]
    accuracy = " / ".join(f"{100 * row['validation']:.1f}" for row in some)
    return "\n".join([*parts, f"Validation accuracy after the last update: {accuracy} %.", ""])


def draw_cka(rows: list[dict[str, Any]]) -> Figure:
    updates = rows[0]["updates"]
    with style():
        figure = empty_figure(2.0 * len(updates) + 1.2, 4.8)
        grid = figure.subplots(len(NETS), len(updates), squeeze=False)
        for net, line in zip(NETS, grid, strict=True):
            mean = np.mean([row["cka"] for row in select(rows, part="cka", net=net)], axis=0)
            for k, axes in enumerate(line):
                image = axes.imshow(mean[k], vmin=0, vmax=1, cmap="viridis")
                axes.set_title(f"{net}, update {updates[k]}")
                axes.set_xticks(range(mean.shape[2]), [str(l + 1) for l in range(mean.shape[2])])
                axes.set_yticks(range(mean.shape[1]))
                axes.set_xlabel("forward level")
                if k == 0:
                    axes.set_ylabel("feedback level")
        figure.colorbar(image, ax=grid, label="linear CKA (dimensionless)", shrink=0.8)
    return figure


def draw_cosines(rows: list[dict[str, Any]]) -> Figure:
    titles = {"weights": "weights: U of a layer with Vᵀ", "update": "update: rules with backprop's gradient"}
    with style():
        figure = empty_figure(9.0, 3.8)
        for axes, (key, title) in zip(figure.subplots(1, 2), titles.items(), strict=True):
            axes.axhline(0, color=GREY, linestyle=":", linewidth=1.0)
            for row in rows:
                for l, values in enumerate(np.transpose(row[key])):
                    label = f"layer {l + 1}" if row is rows[0] else None
                    axes.plot(row["updates"], values, "o-", ms=3, linewidth=1.2, color=LINES[l], label=label)
            axes.set_xscale("symlog", linthresh=20)
            axes.set_xticks([0, 20, 100, 1000], ["0", "20", "100", "1,000"])
            axes.set_xlabel("updates (batches of 256)")
            axes.set_ylabel("cosine (dimensionless)")
            axes.set_title(title)
        figure.legend(*figure.axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=len(SIZES) - 1)
    return figure


def main() -> None:
    options = parse(parser(__doc__ or "", seeds=3))
    short, long = (UPDATES, LONG) if not options.quick else (UPDATES[:2], LONG[:2])
    jobs = [
        {"part": "cka", "net": net, "seed": seed, "updates": list(short)}
        for net in NETS
        for seed in range(options.seeds)
    ]
    jobs += [{"part": "weights", "net": "MLP", "seed": s, "updates": list(long)} for s in range(min(2, options.seeds))]
    rows = collect("alignment", jobs, run, options.out)
    figures = {"cka": draw_cka(select(rows, part="cka")), "cosines": draw_cosines(select(rows, part="weights"))}  # type: ignore[arg-type]
    save(options.out, "alignment", report(rows), figures, {"samples": SAMPLES, "sizes": SIZES}, {"rows": rows})
    (options.out / "alignment.jsonl").unlink(missing_ok=True)  # its rows lie in alignment.json now


if __name__ == "__main__":
    main()
