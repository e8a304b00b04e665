"""Whose file a SQLite database is: its locks hold between processes of one machine, not between machines."""

from __future__ import annotations

import platform
from pathlib import Path

from sqlalchemy import insert, select, update

from farandole.errors import SettingsError
from farandole.store.engine import SETTING, Database
from farandole.store.tables import host, now_ms

_MACHINE = (Path("/etc/machine-id"), Path("/var/lib/dbus/machine-id"))
_BOOT = Path("/proc/sys/kernel/random/boot_id")


def register_host(database: Database, pipeline: str) -> None:
    """Note this machine as the one that uses the file, or raise SettingsError if it is another's.

    Containers on one machine may have machine ids of their own; they are known by their common kernel.
    """
    machine, boot = machine_id(), _read(_BOOT)
    with database.reading() as conn:
        noted = {row.pipeline: (row.machine, row.boot) for row in conn.execute(select(host))}
    for its_machine, its_boot in noted.values():
        if machine != its_machine and (not boot or boot != its_boot):
            raise SettingsError(
                f"this SQLite database belongs to another machine ({its_machine})",
                place=database.place,
                hint=f"instances on several machines share a PostgreSQL: {SETTING}=postgresql://…; if this machine"
                " replaced that one for good, empty the table `host` in the file",
            )
    if noted.get(pipeline) != (machine, boot):
        with database.writing() as conn:
            row = {"machine": machine, "boot": boot, "since": now_ms()}
            if not conn.execute(update(host).where(host.c.pipeline == pipeline).values(row)).rowcount:
                conn.execute(insert(host).values(pipeline=pipeline, **row))


def machine_id() -> str:
    """An id of this machine that survives a restart; the host's name where the system keeps none."""
    return next(filter(None, map(_read, _MACHINE)), "") or platform.node()


def _read(path: Path) -> str:
    try:
        return path.read_text().strip()
    except OSError:
        return ""
