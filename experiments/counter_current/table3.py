"""Test accuracy of counter-current learning (CCL) and backprop (BP) in CNNs.

The runs are those of mnist_cnn.toml, fashion_mnist_cnn.toml, cifar10_jpeg_cnn.toml, cifar100.toml and stl10.toml beside this file; each is a
sweep, and --runs collects whatever is there, finished or not (MLPs among them are left to table1.py):

    neurosim sweep experiments/counter_current/mnist_cnn.toml --out runs/counter_current/mnist_cnn
    python experiments/counter_current/table3.py --runs runs/counter_current/mnist_cnn

The CNN of CIFAR-10 costs 0.4 GFLOP a sample and update: a day for one seed on a core, so mind `device = "cuda"`.
"""

from __future__ import annotations

import _tables
from _common import parser

#: Test accuracy in %, 5 seeds: Table 3 of Kao & Hariharan 2024, READ there.
PUBLISHED = {
    "cifar10": {"counter_current": "82.94 ± 0.53", "backprop": "87.12 ± 1.76"},
    "cifar100": {"counter_current": "56.29 ± 0.25", "backprop": "51.92 ± 0.48"},
}
TEXT = (
    "Test accuracy of the epoch with the lowest validation loss, mean ± sd (n - 1) over seeds. Paper: Table 3 of Kao & Hariharan 2024, 5 seeds; its "
    "CIFAR-10 are the original images, ours a JPEG copy, and its backprop has batch normalisation, ours none. The CNNs of MNIST and FashionMNIST are "
    "ours; the paper has no accuracies for them."
)


def main() -> None:
    command = parser(__doc__ or "", quick=False)
    _tables.add_runs(command)
    _tables.run(command, "table3", "CNNs", TEXT, True, PUBLISHED)


if __name__ == "__main__":
    main()
