"""A person at the command line of a world: what `farandole dlq` says, and what it is asked with."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import dataclass
from typing import Any

from click.testing import CliRunner

from farandole.cli.dlq import dlq
from farandole.kafka.admin import Admin
from farandole.topics import AUDIT, CONTROL, own_schemas
from tests.integration.runtime_world import ROOT, World


@dataclass
class Office:
    """One person's view of a world; every answer is as JSON."""

    world: World

    def __post_init__(self) -> None:
        admin = Admin(self.world.bootstrap)
        for topic, policy in ((CONTROL, "compact"), (AUDIT, "delete")):
            admin.create(topic, partitions=1, replication=1, settings={"cleanup.policy": policy})
            self.world.registry.register(f"{topic}-value", own_schemas()[topic])

    def ask(self, *words: str, code: int = 0, text: str = "") -> list[dict[str, Any]]:
        """The answers of one command, which ends with this code."""
        told = self._run([*words, "-o", "jsonl"], text)
        assert (told.return_value, told.exception) == (code, None), (told.return_value, told.output, told.exception)
        return [json.loads(line) for line in told.stdout.splitlines()]

    def see(self, *words: str, code: int = 0) -> str:
        """What a person sees of it, remarks included."""
        told = self._run([*words, "-o", "table"], "")
        assert (told.return_value, told.exception) == (code, None), (told.return_value, told.output, told.exception)
        return told.output

    def refused(self, *words: str) -> BaseException:
        """The error that a command ends with."""
        told = self._run(list(words), "")
        assert told.exception is not None, told.output
        return told.exception

    def _run(self, words: list[str], text: str) -> Any:
        environment = self.world.environment()
        return CliRunner(env=environment).invoke(dlq, words, standalone_mode=False, input=text)

    def own(self, pipeline: str) -> tuple[str, str]:
        """The option that spares a command the letters of every other test."""
        return "--pipeline", self.world.group(pipeline)

    def start(self, *words: str) -> subprocess.Popen[str]:
        """The same command as a process of its own, which can be killed."""
        process = subprocess.Popen(
            [sys.executable, "-m", "farandole", "dlq", *words],
            cwd=ROOT,
            env=self.world.environment(),
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )
        self.world.processes.append(process)  # type: ignore[arg-type]
        return process
