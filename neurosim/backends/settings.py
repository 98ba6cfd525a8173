"""What a run relies on of NumPy's, torch's and Brian2's global settings, whatever a script has set before."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator

import numpy as np


@contextlib.contextmanager
def own_settings() -> Iterator[None]:
    """Run what is inside with NumPy's and torch's defaults, and put back what was set before.

    NumPy raises and prints nothing (engines look for NaN and infinity themselves); torch makes float32 tensors on
    the CPU unless told otherwise, and keeps gradients. Brian2's preferences are set where its objects are built.
    """
    with contextlib.ExitStack() as stack:
        stack.enter_context(np.errstate(all="ignore"))
        torch = sys.modules.get("torch")
        if torch is not None:
            before = torch.get_default_dtype()
            stack.callback(torch.set_default_dtype, before)
            torch.set_default_dtype(torch.float32)
            if torch.get_default_device().type != "cpu":
                stack.enter_context(torch.device("cpu"))
            stack.enter_context(torch.inference_mode(False))
            stack.enter_context(torch.enable_grad())
        yield
