"""What a run relies on of NumPy's, torch's and Brian2's global settings, whatever a script has set before."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator

import numpy as np

from neurosim.errors import DivergenceError


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


#: What to do where numbers leave the range of their type.
LOWER = "Lower the rules' factors (eta), keep constants that they are divided by away from 0, or use dtype = 'float64'."


@contextlib.contextmanager
def named_overflow(cure: str = LOWER) -> Iterator[None]:
    """What libraries say of factors beyond the range of their type, and of systems without a solution, as a `DivergenceError`."""
    try:
        yield
    except (RuntimeError, ArithmeticError, np.linalg.LinAlgError) as error:
        arithmetic = isinstance(error, ArithmeticError | np.linalg.LinAlgError) or "LinAlg" in type(error).__name__
        if not arithmetic and "without overflow" not in str(error):
            raise
        raise DivergenceError(f"The numbers left the range of their type ({str(error).rstrip('.')}). {cure}") from error
