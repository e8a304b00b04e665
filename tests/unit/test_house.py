"""The rules of the house: sizes, floors, words, and what an author's import may load."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
LIBRARY = ROOT / "farandole"
MODULES = sorted(LIBRARY.rglob("*.py"))
SOURCES = [*MODULES, *sorted((ROOT / "services").rglob("*.py"))]

MODULE, FUNCTION, PARAMETERS = 300, 45, 8
CORE, ALL = 8_500, 30_000  # the runtime; with reconciler, replay, backfill, expectations and questions
AUTHORS_MODULES = 150

# From a record to a settled run: what a reader of the core has to read.
CORE_ROOMS = (
    *("event", "ids", "clock", "errors", "declaration", "pipeline", "signature", "problem", "rules", "attempt"),
    *("criteria", "match", "decide", "run", "calling", "isolated", "kept", "fill", "resources", "ready"),
    *("store", "kafka/source", "kafka/sink", "kafka/codec", "kafka/registry", "kafka/admin"),
    *("intake", "settle", "takeover", "commit_class", "owned", "outcome", "rewind", "lanes", "worker", "points"),
)

DEFINITIONS = (ast.FunctionDef, ast.AsyncFunctionDef)


def tree(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"))


def code_lines(path: Path, node: ast.AST | None = None) -> int:
    """Lines of a module, or of a part of it, that are neither blank nor comment nor docstring."""
    text, whole = path.read_text(encoding="utf-8").splitlines(), node or tree(path)
    told: set[int] = set()
    for part in ast.walk(whole):
        body = getattr(part, "body", None)
        first = body[0] if isinstance(body, list) and body else None
        if isinstance(first, ast.Expr) and isinstance(first.value, ast.Constant) and isinstance(first.value.value, str):
            told.update(range(first.lineno, (first.end_lineno or first.lineno) + 1))
    start, end = getattr(whole, "lineno", 1), getattr(whole, "end_lineno", len(text))
    return sum(
        1
        for number, line in enumerate(text[start - 1 : end], start)
        if line.strip() and not line.strip().startswith("#") and number not in told
    )


def name_of(path: Path) -> str:
    return str(path.relative_to(ROOT))


def functions(path: Path) -> Iterator[ast.FunctionDef | ast.AsyncFunctionDef]:
    for node in ast.walk(tree(path)):
        if isinstance(node, DEFINITIONS):
            yield node


def hand_written(paths: list[Path]) -> list[Path]:
    return [p for p in paths if "migrations" not in p.parts]


def test_no_module_is_longer_than_a_person_reads_at_once():
    assert {name_of(p): n for p in hand_written(MODULES) if (n := code_lines(p)) > MODULE} == {}


def test_no_function_is_longer_than_a_screen():
    long = {
        f"{name_of(p)}:{f.lineno} {f.name}": n
        for p in hand_written(SOURCES)
        for f in functions(p)
        if (n := code_lines(p, f)) > FUNCTION
    }
    assert long == {}


def test_no_function_takes_more_than_eight_parameters():
    many = {}
    for path in SOURCES:
        for function in functions(path):
            every = [*function.args.posonlyargs, *function.args.args, *function.args.kwonlyargs]
            own = [a.arg for a in every if a.arg not in ("self", "cls")]
            # a click command is called by its options, not by a person
            if len(own) > PARAMETERS and "cli" not in path.parts:
                many[f"{name_of(path)}:{function.lineno} {function.name}"] = len(own)
    assert many == {}


def test_the_core_and_the_whole_stay_within_their_budgets():
    sizes = {str(p.relative_to(LIBRARY).with_suffix("")): code_lines(p) for p in hand_written(MODULES)}
    core = sum(n for name, n in sizes.items() if name in CORE_ROOMS or name.partition("/")[0] in CORE_ROOMS)
    assert (core <= CORE, sum(sizes.values()) <= ALL) == (True, True), f"core {core}, all {sum(sizes.values())}"


def test_no_room_is_called_after_nothing():
    nothing = {"utils", "util", "common", "base", "types", "core", "helpers", "misc"}
    assert [name_of(p) for p in SOURCES if p.stem in nothing or p.parent.name in nothing] == []


def test_no_file_holds_the_marks_of_a_merge():
    kept = [
        p
        for name in ("farandole", "services", "docs", "tests", "topology", "schemas")
        for p in (ROOT / name).rglob("*")
    ]
    files = [p for p in (*kept, *ROOT.iterdir()) if p.is_file() and "__pycache__" not in p.parts]
    mark = re.compile(rb"^(<{7} |>{7} |={7}$)", re.MULTILINE)
    assert [name_of(p) for p in files if p.suffix != ".lock" and mark.search(p.read_bytes())] == []


def test_imports_go_one_way():
    done = subprocess.run(
        [Path(sys.executable).parent / "lint-imports", "--no-cache", "--no-logo"],
        cwd=ROOT, capture_output=True, text=True, check=False,
        env={"PYTHONPATH": str(ROOT), "PATH": ""},
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr


def test_only_the_clock_reads_the_time():
    reads = re.compile(
        r"\btime\.(time|monotonic|perf_counter)(_ns)?\(|\bdatetime\.(now|utcnow|today)\(|\bdate\.today\("
    )
    found = [
        f"{name_of(path)}:{number}"
        for path in MODULES
        if path != LIBRARY / "clock.py"
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1)
        if reads.search(line)
    ]
    assert found == []


WORDS = {"job", "jobs", "task", "tasks", "message", "messages", "trigger", "workflow", "workflows", "dag", "dags"}


def test_public_names_use_the_words_of_the_design():
    found = []
    for path in SOURCES:
        names = [(path.stem, 1)]
        names += [(n.name, n.lineno) for n in ast.walk(tree(path)) if isinstance(n, (*DEFINITIONS, ast.ClassDef))]
        for name, line in names:
            words = {w.lower() for w in re.findall(r"[A-Z]?[a-z]+|[A-Z]+(?![a-z])", name)}
            if not name.startswith("_") and words & WORDS:
                found.append(f"{name_of(path)}:{line} {name}")
    assert found == []


def test_nothing_is_left_for_later_in_a_comment():
    mark = re.compile(r"#.*\b(TODO|FIXME|XXX|HACK)\b")
    assert [name_of(p) for p in SOURCES if mark.search(p.read_text(encoding="utf-8"))] == []


def loaded_by(code: str) -> set[str]:
    """The modules that this code loads beyond those of a bare interpreter."""
    listing = "import sys; before = set(sys.modules); {}; print(*set(sys.modules) - before, sep='\\n')"
    done = subprocess.run(
        [sys.executable, "-S", "-c", listing.format(f"sys.path[:0] = [{str(ROOT)!r}]; {code}")],
        cwd=ROOT, capture_output=True, text=True, check=True,
    )  # fmt: skip
    return set(done.stdout.split())


IMPORTS = [
    "import farandole",
    "from farandole import Attempt, Database, Interval, Pipeline, Retry, by, pipeline, resource, step, when",
    "import schemas.events; from farandole import *",
]


@pytest.mark.parametrize("code", IMPORTS)
def test_an_authors_import_is_light(code):
    modules = loaded_by(code)
    heavy = {"confluent_kafka", "sqlalchemy", "pydantic", "fastavro", "yaml", "click", "asyncio"}
    assert {m.partition(".")[0] for m in modules} & heavy == set()
    assert len(modules) <= AUTHORS_MODULES, f"{len(modules)} modules"


def test_declaring_a_pipeline_loads_nothing_more():
    code = (
        "from farandole import *; from schemas.events import FileLanded, TableStaged\n"
        "def stage(file: FileLanded) -> TableStaged: ...\n"
        "Some = type('Some', (Pipeline,), {'file': when(FileLanded, where=\"format == 'csv'\"), "
        "'steps': [stage], 'since': 'now'})"
    )
    modules = loaded_by(f"exec({code!r})")
    assert {m.partition(".")[0] for m in modules} & {"confluent_kafka", "sqlalchemy", "pydantic", "fastavro"} == set()
    assert len(modules) <= AUTHORS_MODULES, f"{len(modules)} modules"
