"""What a person reads when a verb fails: one sentence; the trace of a defect goes to the log."""

from __future__ import annotations

import traceback

from application.failures import BrokenConfiguration, Conflict, NotConfigured, StoreError
from domain.refusals import Refusal
from interfaces.read_side import log_defect, store_errors

EXPECTED = (Refusal, BrokenConfiguration, StoreError, NotConfigured)
"""Their text names the thing, the cause and the next step."""


def explain(verb: str, error: Exception) -> str:
    """The message for stdout. Raises nothing."""
    if isinstance(error, EXPECTED):
        return str(error)
    if isinstance(error, Conflict):
        return f"{verb} met another writer at the same moment; nothing was recorded: try again"
    if isinstance(error, OSError):
        return f"{verb}: {error.filename or ''}: {error.strerror or error}; nothing was recorded"
    if isinstance(error, store_errors()):
        return f"{verb}: the store cannot be used: {error}"
    log = log_defect(verb, traceback.format_exc())
    return f"{verb} failed by a defect of Hostledger ({type(error).__name__}: {error}); " + (
        f"the trace is in {log}" if log else "there is no log directory for the trace"
    )
