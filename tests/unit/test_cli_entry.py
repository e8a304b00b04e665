"""The command line's door: quick help, exit codes, errors a person can read."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from datetime import UTC, datetime
from pathlib import Path

import click
import pytest

from farandole import cli
from farandole.cli.output import emit
from farandole.errors import StackError

ROOT = Path(__file__).parents[2]


def farandole(*words: str, cwd: Path, **env: str) -> subprocess.CompletedProcess[str]:
    kept = {
        name: value for name, value in os.environ.items() if not name.startswith(("FARANDOLE_", "KAFKA_", "SCHEMA_"))
    }
    return subprocess.run(
        [sys.executable, "-m", "farandole", *words],
        capture_output=True,
        text=True,
        cwd=cwd,
        env={**kept, "PYTHONPATH": str(ROOT), **env},
        check=False,
    )


@pytest.fixture
def broken(monkeypatch):
    """A command that raises what it is told to."""

    def install(error: BaseException) -> None:
        @click.command()
        def command() -> None:
            raise error

        monkeypatch.setattr(sys.modules[__name__], "COMMAND", command, raising=False)
        monkeypatch.setitem(cli.COMMANDS, "broken", (f"{__name__}:COMMAND", "Breaks."))

    return install


def exit_code(*words: str) -> int:
    with pytest.raises(SystemExit) as caught:
        cli.main(list(words))
    return int(caught.value.code or 0)


def test_help_is_quick(tmp_path):
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}

    def once() -> float:
        begun = time.perf_counter()
        subprocess.run([sys.executable, "-m", "farandole", "--help"], check=True, capture_output=True, env=environment)
        return time.perf_counter() - begun

    best = min(once() for _ in range(8))  # the best of some: the machine may be busy with other tests

    assert best < 0.150


def test_help_imports_no_heavy_module(tmp_path):
    heavy = ["confluent_kafka", "sqlalchemy", "pydantic", "rich", "httpx2", "fastavro", "structlog", "psycopg", "yaml"]
    code = f"""
import sys
from farandole.cli import main
try: main(['--help'])
except SystemExit: pass
print([name for name in {heavy!r} if name in sys.modules], file=sys.stderr)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=True)

    assert done.stderr.strip() == "[]"


def test_help_names_every_command(tmp_path):
    done = farandole("--help", cwd=tmp_path)

    assert done.returncode == 0
    assert [name for name in cli.COMMANDS if f"\n  {name} " not in done.stdout] == []


@pytest.mark.parametrize("command", ["up", "down", "doctor"])
def test_a_commands_help_has_an_example(tmp_path, command):
    done = farandole(command, "--help", cwd=tmp_path)

    assert done.returncode == 0
    assert f"\n    farandole {command}\n" in done.stdout


@pytest.mark.parametrize("words", [("nonsense",), ("up", "--nonsense"), ("up", "--kafka-port", "0"), ()])
def test_wrong_usage_exits_64(tmp_path, words):
    assert farandole(*words, cwd=tmp_path).returncode == 64


def test_a_wrong_setting_exits_64_and_names_its_variable(tmp_path):
    done = farandole("up", cwd=tmp_path, FARANDOLE_STACK="docker")

    assert done.returncode == 64
    assert "FARANDOLE_STACK" in done.stderr
    assert "Traceback" not in done.stderr


def test_our_error_is_printed_with_place_and_hint(broken, capsys):
    broken(StackError("it broke", place="here", hint="mend it"))

    assert exit_code("broken") == 1
    assert capsys.readouterr().err == "here  it broke\n  hint  mend it\n"


def test_an_unexpected_error_is_one_line_that_names_debug(broken, capsys):
    broken(KeyError("lost"))

    assert exit_code("broken") == 1
    said = capsys.readouterr().err
    assert said.startswith("unexpected KeyError: 'lost'\n")
    assert "--debug" in said
    assert "Traceback" not in said


def test_debug_shows_where(broken):
    broken(KeyError("lost"))

    with pytest.raises(KeyError):
        cli.main(["broken", "--debug"])


def test_an_interrupt_exits_130(broken):
    broken(KeyboardInterrupt())

    assert exit_code("broken") == 130


def test_a_reader_that_has_seen_enough_is_no_error(tmp_path):
    done = subprocess.run(
        f"{sys.executable} -m farandole doctor -o jsonl | head -1",
        shell=True,
        capture_output=True,
        text=True,
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        check=True,
    )

    assert done.stderr == ""
    assert json.loads(done.stdout)["check"] == "python"


def test_the_doctor_says_what_needs_attention_on_a_bare_machine(tmp_path):
    done = farandole("doctor", "-o", "json", cwd=tmp_path)

    found = {row["check"]: row for row in json.loads(done.stdout)}
    assert done.returncode == 3
    assert found["python"]["state"] == "ok"
    assert (found["broker"]["state"], "farandole up" in found["broker"]["hint"]) == ("fail", True)
    assert not (tmp_path / ".farandole").exists()


ROWS = [
    {"name": "a", "at": datetime(2013, 1, 1, tzinfo=UTC), "key": b"\x01", "n": 1},
    {"name": "bb", "at": None, "key": None, "n": 22},
]


def test_rows_are_json_lines_in_a_pipe(capsys):
    assert emit(ROWS, None) == 2

    lines = capsys.readouterr().out.splitlines()
    assert json.loads(lines[0]) == {"name": "a", "at": "2013-01-01T00:00:00.000Z", "key": "01", "n": 1}
    assert len(lines) == 2


def test_json_is_one_document(capsys):
    emit(ROWS, "json")

    assert [row["n"] for row in json.loads(capsys.readouterr().out)] == [1, 22]


def test_a_table_in_a_pipe_is_aligned_text(capsys):
    emit(ROWS, "table", columns=["name", "n"])

    assert capsys.readouterr().out == "name  n\na     1\nbb    22\n"


def test_an_empty_table_says_so_beside_the_output(capsys):
    assert emit([], "table", empty="no runs yet") == 0

    said = capsys.readouterr()
    assert (said.out, said.err) == ("", "no runs yet\n")
