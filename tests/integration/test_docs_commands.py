"""The tutorial's files and commands, and the plain producer, in the order of their page and on real servers."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]
FENCE = re.compile(r"^```(\w*)([^\n]*)\n(.*?)^```", re.MULTILINE | re.DOTALL)
TOPIC = "mart.delays.refreshed.v1"


class Reader:
    """Somebody who follows a page in a copy of the repository."""

    def __init__(self, folder: Path, environment: dict[str, str]) -> None:
        self.folder = folder
        self.environment = {
            **{k: v for k, v in os.environ.items() if not k.startswith(("FARANDOLE_", "KAFKA_"))},
            **environment,
            "FARANDOLE_STACK": "external",
            "FARANDOLE_STATE": str(folder / ".farandole"),
            "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
            "PYTHONPATH": os.pathsep.join([str(folder), str(ROOT)]),
        }
        for name in ("schemas", "services", "topology", "pyproject.toml"):
            copy = shutil.copytree if (ROOT / name).is_dir() else shutil.copy
            copy(ROOT / name, folder / name)

    def does(self, line: str) -> str:
        done = subprocess.run(
            line,
            shell=True,
            cwd=self.folder,
            env=self.environment,
            capture_output=True,
            text=True,
            check=False,
            timeout=120,
        )
        assert done.returncode == 0, f"$ {line}\n{done.stdout}\n{done.stderr}"
        return done.stdout

    def follows(self, page: str, names: dict[str, str]) -> list[tuple[str, str]]:
        """Every file and command of a page, in order; the commands with what they said."""
        text = (ROOT / page).read_text(encoding="utf-8")
        for old, new in names.items():
            text = text.replace(old, new)
        said = []
        for language, rest, block in FENCE.findall(text):
            title = "".join(re.findall(r'title="([^"]+)"', rest))
            if title:
                path = self.folder / title
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_text(block, encoding="utf-8")
            elif language == "sh":
                said += [(line, self.does(line)) for line in block.splitlines()]
        return said


def lines(text: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in text.splitlines()]


def test_the_tutorial_is_true_from_its_first_command_to_its_last(stack, tmp_path: Path):
    reader = Reader(tmp_path, stack.environment())
    reader.does("farandole topology apply")
    for hour, rows in ((6, 12), (13, 75), (14, 60)):
        interval = {"start": f"2013-01-01T{hour:02}:00:00Z", "end": f"2013-01-01T{hour + 1:02}:00:00Z"}
        event = json.dumps({"interval": interval, "rows": rows, "uri": f"mart/{hour}"})
        reader.does(f"farandole events emit {TOPIC} --json '{event}'")
    own = stack.unique("busy").replace("-", "_")

    said = reader.follows(
        "docs/tutorial.md",
        {"busy_hours": own, "busy-hours": own.replace("_", "-"), "hour.flagged": f"{own.replace('_', '-')}.flagged"},
    )

    flagged = [lines(output) for command, output in said if "events tail desk." in command]
    # which ones are the last depends on what else stands on this topic; that only busy hours are flagged does not
    assert len(flagged[0]) >= 2
    assert all(e["value"]["flights"] >= 60 for e in flagged[0])
    assert [e["value"] for e in flagged[1]] == [{"hour": "2014-01-01T13:00Z", "flights": 99}]
    runs = next(lines(output) for command, output in said if command.startswith("farandole runs list"))
    assert {run["state"] for run in runs} == {"done"}
    again = reader.does(f"farandole lineage {runs[0]['id']} --up -o jsonl")
    assert TOPIC in again


@pytest.mark.parametrize("page", ["docs/howto/produce-from-any-client.md"])
def test_a_plain_producer_feeds_the_topic(stack, tmp_path: Path, page: str):
    reader = Reader(tmp_path, stack.environment())
    reader.does("farandole topology apply")
    reader.follows(page, {})

    reader.does(f"{sys.executable} produce.py")

    events = lines(reader.does(f"farandole events tail {TOPIC} -n 50 -o jsonl"))
    plain = [e for e in events if e["derived"] and e["key"] == "2013-01-01T13:00:00Z"]
    assert plain
    assert plain[-1]["value"]["rows"] == 61
