"""Training by several processes or machines under `torchrun`: each takes a share of every batch.

A rule's change is a mean over the samples of a batch. That mean is the one place where samples meet, so it is there that the workers'
shares are averaged; all that follows (traces, bounds, clipping by the global norm, Adam) then sees the same numbers on every worker as one
process with the whole batch does.
"""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Iterator

import torch
import torch.distributed as dist

from neurosim.backends.torch.arrays import TorchArrays
from neurosim.errors import NeurosimError, StoppedError


def is_first() -> bool:
    """Whether this is the process that writes files and shows progress."""
    return os.environ.get("RANK", "0") == "0"


def leave() -> None:
    """End the group of workers, if this process is in one."""
    if dist.is_initialized():
        dist.destroy_process_group()


@contextlib.contextmanager
def peers() -> Iterator[None]:
    """A step that all processes take together: one that died is said by name, where torch tells of its connection."""
    try:
        yield
    except RuntimeError as error:
        # Without the place in torch's source, and its advice.
        reason = re.sub(r"^\[\S*\] ", "", str(error).strip().partition("\n")[0]).partition(". ")[0]
        raise StoppedError(
            f"Process {os.environ.get('RANK', '0')} of {os.environ.get('WORLD_SIZE', '1')} has lost another one, which died "
            f"or cannot be reached ({reason}). If it said why, that stands above."
        ) from error


class Workers:
    """This process among its fellows; alone, every reduction is the identity.

    On ``cuda`` each takes the GPU of its number on the machine.
    """

    def __init__(self, device: str = "cpu"):
        self.size, self.rank = int(os.environ.get("WORLD_SIZE", "1")), int(os.environ.get("RANK", "0"))
        self.first, self.device = is_first(), device
        if self.size == 1:
            return
        if device.startswith("cuda:"):
            raise NeurosimError(
                f"device = '{device}' under torchrun: each worker takes a GPU of its own; wanted 'cuda'."
            )
        cuda = device == "cuda"
        if cuda:
            self.device = f"cuda:{os.environ.get('LOCAL_RANK', '0')}"
        TorchArrays(device=self.device)  # complains where there is no such device
        if cuda:
            torch.cuda.set_device(self.device)
        if not dist.is_initialized():
            with peers():
                dist.init_process_group("nccl" if cuda else "gloo")

    def share(self, batch: int) -> slice:
        """The rows of a batch that are this worker's."""
        if batch % self.size:
            raise NeurosimError(f"batch_size = {batch} cannot be shared by {self.size} workers; wanted a multiple.")
        part = batch // self.size
        return slice(self.rank * part, (self.rank + 1) * part)

    def average(self, tensor: torch.Tensor) -> None:
        """The mean over the workers, in place."""
        if self.size > 1:
            with peers():
                dist.all_reduce(tensor)
            tensor /= self.size

    def gather(self, rows: torch.Tensor) -> torch.Tensor:
        """The rows of all workers, one below another."""
        if self.size == 1:
            return rows
        parts = [torch.empty_like(rows) for _ in range(self.size)]
        with peers():
            dist.all_gather(parts, rows.contiguous())
        return torch.cat(parts)

    def largest(self, value: float) -> float:
        """The largest of the workers' values; NaN where one has it."""
        if self.size == 1:
            return value
        nan = value != value
        values = torch.tensor([0.0 if nan else value, float(nan)], dtype=torch.float64, device=self.device)
        with peers():
            dist.all_reduce(values, op=dist.ReduceOp.MAX)
        return float("nan") if values[1] else float(values[0])

    def total(self, *values: float) -> list[float]:
        """The sums over the workers."""
        if self.size == 1:
            return list(values)
        sums = torch.tensor(values, dtype=torch.float64, device=self.device)
        with peers():
            dist.all_reduce(sums)
        return sums.tolist()
