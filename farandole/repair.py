"""A run that is done and whose outputs are gone: computed again, it gives them back under their own ids.

Nothing else of the run is told anew: its line in the ledger, its row in SQL and its other outputs stand. Where it gives
something else by now, nothing is published: whoever has read the first would have two truths under one id.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from farandole.event import Record
from farandole.owned import Ended
from farandole.run import Run, RunState

REPAIRED, DIFFERS, FAILED = "output.repaired", "output.nondeterministic", "output.not-repaired"
"""The facts: the outputs were published once more; the run gives something else by now; it could not be computed."""

REASON = "repair"
"""What became of the retry record that asked for it."""


def asked(outputs: Mapping[str, bytes]) -> str:
    """The outputs that are wanted, as a delivery carries them: ids, each with the digest of its value.

    >>> asked({"o1": bytes([1, 171]), "o2": bytes([2])})
    'o1=01ab o2=02'
    """
    return " ".join(f"{identity}={said.hex()}" for identity, said in outputs.items())


def wanted(text: str) -> dict[str, bytes]:
    """The outputs that a delivery asks for, by id. What is no digest is no output of ours, and equals none."""
    found = {}
    for one in text.split():
        identity, _, said = one.rpartition("=")
        try:
            found[identity] = bytes.fromhex(said)
        except ValueError:
            found[identity] = b""
    return found


def repaired(run: Run, told: Callable[[str, str, dict[str, str]], Record]) -> Ended:
    """What a run that was computed again puts into the next transaction: the outputs that are gone, or why not."""
    given = {one["id"]: (one["digest"], record) for one, record in zip(run.emitted, run.outputs, strict=True)}
    other = [identity for identity, said in run.repairs.items() if given.get(identity, (None,))[0] != said]
    detail = {"run": run.id, "outputs": ", ".join(run.repairs)}
    records: list[Record] = []
    if run.state not in (RunState.DONE, RunState.CAUGHT):
        name, why = FAILED, str(run.failure.message) if run.failure else "it has effects, or rests at a step"
        detail["error"] = why
    elif other:
        name, detail["differ"] = DIFFERS, ", ".join(other)
    else:
        name, records = REPAIRED, [given[identity][1] for identity in run.repairs]
    for slot in run.slots:
        slot.owned.end(slot, REASON)
    finished = [run.id] if run.checkpointed else ()
    return Ended(run.slots, [*records, told(name, run.id, detail)], finished=finished, run=run)
