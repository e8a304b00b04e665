"""Processes that outlive whoever started them, and that are never mistaken for another's."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from farandole.errors import StackError

HOST = "127.0.0.1"
LOG_LIMIT = 10 * 1024 * 1024  # bytes; a longer log is set aside at the next start
OTHERWISE = "name servers of your own: FARANDOLE_STACK=external with KAFKA_BOOTSTRAP_SERVERS and SCHEMA_REGISTRY_URL"
_KEPT = ("PATH", "HOME", "LANG", "LC_ALL", "TZ", "TMPDIR", "LD_LIBRARY_PATH")


def set_aside(log: Path) -> int:
    """Rename a log that has grown too long; the size of the log that goes on."""
    if not log.exists():
        return 0
    if (size := log.stat().st_size) <= LOG_LIMIT:
        return size
    log.replace(log.with_suffix(".1.log"))
    return 0


def spawn(argv: Sequence[str], log: Path, env: Mapping[str, str] | None = None) -> tuple[int, float]:
    """Start a process in a session of its own, its output appended to `log`: its pid and its start time.

    The environment is a short list of ours, so that no KAFKA_, QUARKUS_ or JAVA_ variable meant for
    something else reaches a server.
    """
    log.parent.mkdir(parents=True, exist_ok=True)
    kept = {name: os.environ[name] for name in _KEPT if name in os.environ}
    pid = os.posix_spawn(
        argv[0],
        list(argv),
        {**kept, **(env or {})},
        file_actions=[
            (os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0),
            (os.POSIX_SPAWN_OPEN, 1, str(log), os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644),
            (os.POSIX_SPAWN_DUP2, 1, 2),
        ],
        setsid=True,
        setsigdef=[signal.SIGPIPE, signal.SIGINT],
    )
    return pid, started_at(pid)


def started_at(pid: int) -> float:
    """When the process of that pid started (seconds since the epoch); 0.0 if there is none."""
    psutil = _psutil()
    with contextlib.suppress(ChildProcessError):
        os.waitpid(pid, os.WNOHANG)  # our own child that ended would stay as a zombie
    try:
        process = psutil.Process(pid)
        return 0.0 if process.status() == psutil.STATUS_ZOMBIE else float(process.create_time())
    except psutil.Error:
        return 0.0


def is_alive(pid: int, started: float) -> bool:
    """Whether that very process still runs: the pid alone could be somebody else's by now."""
    return pid > 0 and abs(started_at(pid) - started) < 1.0 and started > 0


def stop(pid: int, started: float, *, polite: int = signal.SIGTERM, grace: float = 20.0) -> None:
    """End that very process: `polite`, then SIGKILL after `grace` seconds. Nothing happens if it is gone."""
    psutil = _psutil()
    if not is_alive(pid, started):
        return
    with contextlib.suppress(psutil.NoSuchProcess):
        process = psutil.Process(pid)
        for number in (polite, signal.SIGKILL):
            process.send_signal(number)
            with contextlib.suppress(psutil.TimeoutExpired):
                process.wait(grace)
                return
    if is_alive(pid, started):
        raise StackError(f"process {pid} does not end, not even by SIGKILL", hint="look at it with `ps`")


def left_over(program: str, folder: Path) -> list[tuple[int, float]]:
    """The processes of that program whose command line names a file in the folder: their pids and start times."""
    psutil = _psutil()
    return [
        (found.pid, started_at(found.pid))
        for found in psutil.process_iter(["cmdline"])
        if (words := found.info["cmdline"]) and words[0] == program and any(f"{folder}/" in word for word in words[1:])
    ]


def missing(error: ImportError, otherwise: str) -> StackError:
    """The error for a package of ``farandole[stack]`` that is not installed."""
    return StackError(
        f"the embedded stack needs the package {error.name}, which is not installed",
        hint=f"pip install 'farandole[stack]', or {otherwise}",
    )


def _psutil() -> Any:
    try:
        import psutil  # type: ignore[import-untyped]
    except ImportError as error:
        raise missing(error, OTHERWISE) from error
    return psutil


def last_lines(log: Path, count: int = 12, since: int = 0) -> str:
    """The end of a log, after its first `since` bytes, for a person who wants to know why a server died."""
    try:
        with log.open(errors="replace") as lines:
            lines.seek(since)
            return "".join(f"    {line.rstrip()[:240]}\n" for line in deque(lines, count)).rstrip()
    except OSError:
        return "    (no log)"


def is_free(port: int) -> bool:
    """Whether a server could listen on this port of the loopback address."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, port))
        except OSError:
            return False
    return True


def is_open(port: int) -> bool:
    """Whether somebody listens on this port of the loopback address."""
    with socket.socket() as probe:
        probe.settimeout(1)
        return probe.connect_ex((HOST, port)) == 0


def listens(pid: int, ports: Iterable[int]) -> bool:
    """Whether that process, and not a neighbour, listens on all these ports."""
    psutil = _psutil()
    try:
        found = psutil.Process(pid).net_connections("tcp")
    except psutil.Error:
        return False
    return {each.laddr.port for each in found if each.status == psutil.CONN_LISTEN}.issuperset(ports)


def free_ports(usual: Mapping[str, int], *, insist: bool = False) -> dict[str, int]:
    """A port per use: the usual one if it is free, else any (0 asks for any).

    With `insist` a taken port raises StackError instead.
    """
    chosen: dict[str, int] = {}
    with contextlib.ExitStack() as held:
        for use, port in usual.items():
            if port and insist and not is_free(port):
                raise StackError(
                    f"port {port} is taken by another process",
                    place=f"{HOST}:{port}",
                    hint=f"choose another {use} port, leave the option out to take a free one, or see `ss -ltnp`",
                )
            if port and is_free(port) and port not in chosen.values():
                chosen[use] = port
                continue
            probe = held.enter_context(socket.socket())  # held until all are chosen: no two uses get one port
            probe.bind((HOST, 0))
            chosen[use] = probe.getsockname()[1]
    return chosen
