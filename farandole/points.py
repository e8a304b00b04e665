"""Named kill points: the places where a crash is interesting, so that tests hit them exactly.

``FARANDOLE_KILL_AT=txn.committed:3`` ends the process with SIGKILL the third time it gets there;
``FARANDOLE_STOP_AT`` sends SIGSTOP instead, which makes a zombie, and ``FARANDOLE_TERM_AT`` SIGTERM. Unset, a point
costs one call.
"""

from __future__ import annotations

import os
import signal
import threading
import time

POINTS = (
    "assign.after_fence",
    "assign.after_init",
    "assign.after_tail",
    "intake.polled",
    "claim.after",
    "hold.written",
    "step.running",
    "step.claimed",
    "step.done",
    "effect.acked",
    "checkpoint.committed",
    "sql.before_commit",
    "sql.commit_sent",
    "sql.committed",
    "outbox.committed",
    "txn.begun",
    "txn.outputs_produced",
    "txn.ledger_produced",
    "txn.offsets_sent",
    "txn.commit_sent",
    "txn.committed",
    "settle.before_commit",
    "settle.after_commit",
    "revoke.draining",
)
"""Every point, in the order in which a run passes them; docs/internals.md says what each leaves behind."""

_lock = threading.Lock()
_SIGNALS = {
    "FARANDOLE_KILL_AT": signal.SIGKILL,
    "FARANDOLE_STOP_AT": signal.SIGSTOP,
    "FARANDOLE_TERM_AT": signal.SIGTERM,
}


def _armed() -> dict[str, tuple[int, signal.Signals]]:
    armed = {}
    for variable, number in _SIGNALS.items():
        name, _, nth = os.environ.get(variable, "").partition(":")
        if name:
            if name not in POINTS:
                raise ValueError(f"{variable}: there is no kill point {name!r}; they are {', '.join(POINTS)}")
            armed[name] = (int(nth or 1), number)
    return armed


_left = _armed()


def point(name: str, *, after: float = 0.0) -> None:
    """Pass a kill point; `after` seconds later where the answer of a call under way is what gets lost."""
    if not _left or name not in _left:
        return
    with _lock:
        left, number = _left[name]
        _left[name] = (left - 1, number)
    if left != 1:
        return
    if after:
        threading.Thread(target=_strike, args=(number, after), daemon=True).start()
    else:
        _strike(number, 0)


def _strike(number: signal.Signals, after: float) -> None:
    time.sleep(after)
    os.kill(os.getpid(), number)
