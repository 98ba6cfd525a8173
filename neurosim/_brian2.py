"""Import Brian2 without what it does to a script: its hook for errors, its capture of warnings, its log files.

Brian2's hook calls every uncaught error of a script a bug of Brian2, swallows Ctrl-C, and leaves
files in the temporary folder. A script that imported Brian2 itself keeps what it has.
"""

from __future__ import annotations

import contextlib
import logging
import os
import sys


def _import() -> None:
    hook, captured = sys.excepthook, getattr(logging, "_warnings_showwarning", None)
    import brian2  # noqa: F401
    from brian2.core.preferences import prefs
    from brian2.utils.logger import BrianLogger

    sys.excepthook = hook
    if BrianLogger.console_handler is not None:
        logging.getLogger("py.warnings").removeHandler(BrianLogger.console_handler)
    if captured is None:
        logging.captureWarnings(False)
    logger = logging.getLogger("brian2")
    if BrianLogger.file_handler is not None:
        logger.removeHandler(BrianLogger.file_handler)
        BrianLogger.file_handler.close()
    for path in (BrianLogger.tmp_log, BrianLogger.tmp_script):
        if path is not None:
            with contextlib.suppress(OSError):
                os.remove(path)
    BrianLogger.file_handler = BrianLogger.tmp_log = BrianLogger.tmp_script = None
    prefs["logging.file_log"] = False
    logger.setLevel(logging.WARNING)


if "brian2" not in sys.modules:
    _import()
