"""Carries a plan out, change by change. Any change may be made twice, so a plan cut short is made again."""

from __future__ import annotations

from collections.abc import Callable

from farandole.errors import FarandoleError
from farandole.kafka.admin import Admin
from farandole.kafka.registry import Registry
from farandole.topics import SEED_MARK
from farandole.topology.plan import Change, Plan


def apply(plan: Plan, admin: Admin, registry: Registry, *, made: Callable[[Change], None] = lambda _: None) -> None:
    """Make every change in order, and tell of each that was made.

    Raises FarandoleError before the first change if any of them is refused; a later error leaves the changes
    that were told as they are.
    """
    for change in plan.refused:
        raise FarandoleError(f"{change.act} {change.target}: {change.refused}", place=change.place, hint=change.hint)
    for change in plan.changes:
        _make(change, admin, registry)
        made(change)


def _make(change: Change, admin: Admin, registry: Registry) -> None:
    name, content = change.target, change.content
    match change.act:
        case "create topic":
            admin.create(name, **content)
        case "alter topic":
            admin.alter_configs(name, content["settings"])
        case "add partitions":
            admin.add_partitions(name, content["partitions"])
        case "set compatibility":
            registry.set_compatibility(name, content["level"])
        case "register schema":
            registry.set_compatibility(name, content["level"])  # before the first version, so that none escapes it
            registry.register(name, content["schema"])
        case "seed offsets":
            offsets = {(content["topic"], number): offset for number, offset in content["offsets"].items()}
            admin.seed(name, offsets, SEED_MARK)
