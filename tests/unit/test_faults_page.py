"""The page of faults: all of them, and every test that it names is there."""

from __future__ import annotations

import ast
import re
from functools import cache
from pathlib import Path

ROOT = Path(__file__).parents[2]
ROWS = re.findall(r"^\| (\d+) \| (.+?) \| (.+?) \|$", (ROOT / "docs/faults.md").read_text(), re.MULTILINE)


@cache
def found_in(path: str) -> set[str]:
    file = ROOT / "tests" / path
    if not file.exists():
        return set()
    return {node.name for node in ast.parse(file.read_text()).body if isinstance(node, ast.FunctionDef)}


def test_the_page_has_all_faults_once_and_in_order():
    assert [int(number) for number, *_ in ROWS] == list(range(1, 57))


def test_every_test_that_is_named_is_there():
    named = re.findall(r"`([\w/]+\.py)::(\w+)`", "\n".join(shown for *_, shown in ROWS))
    assert len(named) > 80
    assert [f"{path}::{name}" for path, name in named if name not in found_in(path)] == []


def test_a_fault_without_a_test_says_why():
    assert [number for number, _, shown in ROWS if "`" not in shown and len(shown) < 10] == []
