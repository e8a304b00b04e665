"""A plan in words: the same list that :func:`farandole.topology.apply.apply` walks."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from farandole.topology.plan import ALTER, COMPATIBILITY, CREATE, GROW, REGISTER, SEED, Change, Plan

_SECTIONS = {
    CREATE: "topics",
    ALTER: "topics",
    GROW: "topics",
    COMPATIBILITY: "schemas",
    REGISTER: "schemas",
    SEED: "offsets",
}
_MADE = {
    CREATE: "created",
    ALTER: "altered",
    GROW: "grown",
    COMPATIBILITY: "levelled",
    REGISTER: "registered",
    SEED: "seeded",
}


def explain(plan: Plan) -> str:
    """What would be done, by section, and a last line that counts it."""
    width = max((len(change.target) for change in plan.changes), default=0)
    lines, section = [], ""
    for change in plan.changes:
        label = _SECTIONS[change.act] if _SECTIONS[change.act] != section else ""
        section = _SECTIONS[change.act]
        lines.append(f"{label:9}{change.sign} {change.target:{width}}  {change.words}")
        if change.refused:
            lines += [f"{'':11}{'refused':{width}}  {change.refused}", f"{'':11}{'hint':{width}}  {change.hint}"]
    return "\n".join([*lines, *([""] if lines else []), sum_of(plan)])


def sum_of(plan: Plan, *, done: bool = False) -> str:
    """The sum of a plan in one line; nothing is ever deleted, and the line says so."""
    if not plan.changes:
        return "Nothing to do: what stands is what the repository says."
    made = [change for change in plan.changes if not change.refused]
    new = sum(change.sign == "+" for change in made)
    line = f"{'Done' if done else 'Plan'} · {new} new, {len(made) - new} changed, 0 deleted"
    return f"{line}, {len(plan.refused)} refused: nothing will be done" if plan.refused else line


def told(change: Change) -> str:
    """The line that says that a change was made."""
    return f"{_MADE[change.act]:10}  {change.target}  {change.words}"


def rows(plan: Plan) -> list[dict[str, Any]]:
    """The changes for ``-o json``."""
    return [asdict(change) for change in plan.changes]
