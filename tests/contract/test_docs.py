"""The pages say what is so: links, files, commands, options and settings exist, and examples are executed."""

from __future__ import annotations

import importlib.util
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import fields, replace
from pathlib import Path
from types import ModuleType
from typing import NamedTuple

import click
import pytest

from farandole.cli import cli
from farandole.deadletter import Failure, LetterContext, letter_of
from farandole.event import Envelope, RawRecord
from farandole.expecting import read_expectations
from farandole.manifest import KEYS as MANIFEST
from farandole.manifest import read_manifest
from farandole.pipeline import WORDS, StepLabel
from farandole.points import POINTS
from farandole.schemagen import load_schemas
from farandole.settings import CLIENT_PROPERTIES, Settings
from farandole.sources.timetable import KEYS, read_timetable
from farandole.why import CAUSES, FINE

ROOT = Path(__file__).parents[2]
PAGES = sorted(
    [*ROOT.glob("docs/**/*.md"), *(ROOT / name for name in ("README.md", "CHANGELOG.md", "CONTRIBUTING.md"))]
)
FENCE = re.compile(r"^```(\w*)([^\n]*)\n(.*?)^```", re.MULTILINE | re.DOTALL)


class Block(NamedTuple):
    """A fenced block: its language, the file that it is said to be, its text."""

    language: str
    title: str
    text: str


def blocks(page: Path) -> list[Block]:
    found = FENCE.findall(page.read_text(encoding="utf-8"))
    return [Block(language, "".join(re.findall(r'title="([^"]+)"', rest)), text) for language, rest, text in found]


def prose(page: Path) -> str:
    return FENCE.sub("", page.read_text(encoding="utf-8"))


def name_of(page: Path) -> str:
    return str(page.relative_to(ROOT))


pages = pytest.mark.parametrize("page", PAGES, ids=name_of)


def anchors(page: Path) -> set[str]:
    titles = re.findall(r"^#+ (.+)$", prose(page), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title.lower()).strip().replace(" ", "-") for title in titles}


@pages
def test_every_link_leads_somewhere(page: Path):
    broken = []
    for target in re.findall(r"\]\(([^)\s]+)\)", prose(page)):
        if re.match(r"https?://", target):
            continue
        path, _, anchor = target.partition("#")
        there = (page.parent / path).resolve() if path else page
        if not there.exists() or (anchor and anchor not in anchors(there)):
            broken.append(target)
    assert broken == []


MADE_BY_THE_READER = {"services/busy_hours", "schemas/avro/desk.hour.flagged.v1.avsc", "topology/clusters/prod.yaml"}


@pages
def test_every_file_that_is_named_exists(page: Path):
    roots = "farandole|services|schemas|topology|tests|bench|docs|deploy"
    named = re.findall(rf"`((?:{roots})/[\w./-]*|\.importlinter|Makefile)`", prose(page))
    missing = [n for n in named if not (ROOT / n).exists() and not any(n.startswith(m) for m in MADE_BY_THE_READER)]
    assert missing == []


def spoken(page: Path) -> Iterator[list[str]]:
    """Every call of the command line on a page, as words."""
    lines = re.findall(r"`(farandole [^`]+)`", prose(page))
    for block in blocks(page):
        if block.language in ("sh", "console"):
            lines += [line.removeprefix("$ ") for line in block.text.splitlines()]
    for line in lines:
        for part in re.split(r"\s[|>&]\s?", line):
            words = shlex.split(part, comments=True)
            if words[:1] == ["farandole"]:
                yield words[1:]


def wrong(words: list[str]) -> str:
    """What is wrong with a call; empty if nothing is."""
    command: click.Command = cli
    rest = list(words)
    while isinstance(command, click.Group) and rest and not rest[0].startswith("-"):
        names = rest.pop(0).rstrip(",").split("|")
        found = [command.get_command(click.Context(command), name) for name in names]
        if None in found:
            return f"no command {' '.join(names)}"
        if len(found) > 1:
            return ""
        command = found[0]  # type: ignore[assignment]
    known = {o for p in command.params for o in (*p.opts, *p.secondary_opts)} | {"-h", "--help", "--debug"}
    unknown = [word for word in rest if word.startswith("-") and word.partition("=")[0] not in known]
    return f"{command.name} has no {', '.join(unknown)}" if unknown else ""


@pages
def test_every_command_and_option_that_is_named_exists(page: Path):
    assert [f"{' '.join(words)}: {why}" for words in spoken(page) if (why := wrong(words))] == []


@pages
def test_every_target_of_make_that_is_named_exists(page: Path):
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    text = prose(page) + "".join(b.text for b in blocks(page) if b.language in ("sh", "console"))
    named = re.findall(r"(?:`|^\$ |^)make ([a-z-]+)", text, re.MULTILINE)
    assert set(named) - targets == set()


@pages
def test_every_setting_that_is_named_exists(page: Path):
    code = "".join(p.read_text() for folder in ("farandole", "services") for p in ROOT.glob(f"{folder}/**/*.py"))
    client = {"KAFKA_" + name.upper().replace(".", "_") for name in CLIENT_PROPERTIES}
    ours = {f"FARANDOLE_{name.upper()}" for name in Settings.model_fields}
    named = set(re.findall(r"\b(?:FARANDOLE|KAFKA|SCHEMA_REGISTRY)_[A-Z_]*[A-Z]\b", page.read_text(encoding="utf-8")))
    assert {n for n in named if n not in client | ours and f'"{n}"' not in code} == set()


@pages
def test_a_page_uses_the_words_of_the_glossary_and_names_no_machine(page: Path):
    said = re.sub(r"`[^`]*`", "", prose(page))
    assert re.findall(r"\b(jobs?|tasks?|workflows?|DAGs?|triggers?)\b", said, re.IGNORECASE) == []
    assert re.findall(r"/(?:work|tmp|root|home)/|pypi\.org|maven\.org|maven2", page.read_text(encoding="utf-8")) == []


def test_generated_pages_are_fresh():
    # a process of its own: a command that another test has called keeps the help option of that call
    done = subprocess.run(
        [sys.executable, "docs/generate.py", "--check"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, f"stale, python docs/generate.py writes them again:\n{done.stdout}{done.stderr}"


def test_the_page_of_kill_points_has_them_all_in_their_order():
    text = (ROOT / "docs/reference/kill-points.md").read_text()
    assert tuple(re.findall(r"^\| `([a-z_]+\.[a-z_]+)` \|", text, re.MULTILINE)) == POINTS


def test_the_page_of_headers_names_every_header_that_is_written():
    envelope = Envelope("i", "s", "t", "t", "s", "c", "c", "r", 1, "p", "s")
    failure = Failure("E", "m", "run", "step", "trace", "f", 1, None, "decode.corrupt")
    raw = RawRecord("t", "id", 0, 0, value=b"x" * 2000)
    where = LetterContext("dlq.p", 1, "p", "1", "r", 1)
    letters = [letter_of(raw, failure, where), letter_of(raw, failure, where, max_bytes=1500)]
    written = {name for name, _ in envelope.headers()} | {name for one in letters for name, _ in one.headers}
    named = set(re.findall(r"`([^`]+)`", (ROOT / "docs/reference/headers.md").read_text()))
    assert written - named == set()


def test_the_page_of_dead_letters_names_every_reason():
    code = "".join(p.read_text() for p in (ROOT / "farandole").rglob("*.py"))
    page = (ROOT / "docs/howto/read-dead-letters.md").read_text()
    assert {reason for reason in re.findall(r'"(decode\.[a-z-]+)"', code) if f"`{reason}`" not in page} == set()


def test_the_table_of_causes_is_the_closed_list():
    page = (ROOT / "docs/howto/why-did-it-not-run.md").read_text()
    rows = re.findall(r"^\| `([a-z-]+)` \| (.+?) \| (yes|no) \|$", page, re.MULTILINE)
    assert {cause: means for cause, means, _ in rows} == CAUSES
    assert {cause for cause, _, needed in rows if needed == "no"} == FINE


def test_the_table_of_taking_over_names_every_fact():
    code = "".join((ROOT / f"farandole/{name}.py").read_text() for name in ("rewind", "takeover", "identity", "watch"))
    page = (ROOT / "docs/internals.md").read_text()
    facts = re.findall(r'(?:Start|_note)\([^()]*?"([a-z]+\.[a-z_.]+)"', code)
    facts += re.findall(r'^[A-Z]+ = "([a-z]+\.[a-z_.]+)"', code, re.MULTILINE)
    assert facts
    assert {fact for fact in facts if f"`{fact}`" not in page} == set()


def test_the_map_of_the_code_has_every_module():
    text = (ROOT / "docs/internals.md").read_text()
    library = ROOT / "farandole"
    rooms = {f"farandole/{p.parent.name}/" for p in library.glob("*/__init__.py")}
    modules = {f"farandole/{p.name}" for p in library.glob("*.py") if not p.name.startswith("__")}
    small = {"farandole/plain.py", "farandole/problem.py", "farandole/attempt.py", "farandole/yamlnode.py"}
    assert {name for name in rooms | modules if f"`{name}`" not in text} - small - {"farandole/steps/"} == set()


def test_every_word_of_a_declaration_is_explained():
    page = prose(ROOT / "docs/reference/declaration.md")
    of_pipeline, of_step = page.split("## Of a step")
    slots = {"slots", "ordering"}
    assert [w for w in {*WORDS, *MANIFEST, *slots} if not re.search(rf"`[^`]*\b{w}\b[^`]*`", of_pipeline)] == []
    assert [f.name for f in fields(StepLabel) if f"| `{f.name}` |" not in of_step] == []


# ---- examples are executed


def module_of(page: Path, folder: Path) -> ModuleType:
    """All Python of a page, in its order, as one module."""
    name = "docs_" + page.stem.replace("-", "_").lower()
    path = folder / f"{name}.py"
    text = "\n".join(b.text for b in blocks(page) if b.language == "python" and not b.title)
    path.write_text(text, encoding="utf-8")
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # a step is named by its module
    spec.loader.exec_module(module)
    return module


EXECUTED = (
    "README.md",
    "docs/howto/write-a-pipeline.md",
    "docs/howto/run-something-every-night.md",
    "docs/howto/notice-what-did-not-happen.md",
    "docs/howto/when-a-dependency-is-down.md",
    "docs/howto/work-for-long.md",
    "docs/howto/use-faust.md",
)


def test_the_expectation_of_the_page_is_one(tmp_path: Path):
    page = ROOT / "docs/howto/notice-what-did-not-happen.md"
    (tmp_path / "expectations.yaml").write_text(next(b.text for b in blocks(page) if b.language == "yaml"))
    read = read_expectations(tmp_path / "expectations.yaml", load_schemas(ROOT / "schemas/avro"))
    assert [one.name for one in read] == ["weather-files"]


@pytest.mark.parametrize("name", EXECUTED)
def test_the_examples_of_a_page_do_what_it_says(name: str, tmp_path: Path):
    module = module_of(ROOT / name, tmp_path)

    tests = [value for key, value in vars(module).items() if key.startswith("test_")]
    assert tests
    for test in tests:
        test()


def test_a_first_pipeline_takes_less_than_fifteen_lines():
    first = next(b for b in blocks(ROOT / "README.md") if b.language == "python")
    assert len(first.text.splitlines()) < 15


def test_the_manifest_of_the_page_is_the_pipeline_of_the_page(tmp_path: Path):
    page = ROOT / "docs/howto/write-a-pipeline.md"
    coded = module_of(page, tmp_path).LoadOrders.declaration
    (manifest,) = [b for b in blocks(page) if b.language == "yaml"]
    (tmp_path / "handlers.py").write_text("")
    (tmp_path / "pipeline.yaml").write_text(manifest.text)

    written = read_manifest(tmp_path / "pipeline.yaml")

    def plain(declaration):
        steps = tuple(
            replace(
                s,
                call=s.call.rpartition(":")[2],
                catch=tuple(replace(c, call=c.call.rpartition(":")[2]) for c in s.catch),
            )
            for s in declaration.steps
        )
        return replace(declaration, steps=steps)

    assert plain(written) == plain(coded)


def test_the_timetables_of_the_pages_are_right_and_what_comes_of_them_is_shown(tmp_path: Path):
    howto, reference = ROOT / "docs/howto/run-something-every-night.md", ROOT / "docs/reference/schedules.md"
    for page in (howto, reference):
        (timetable,) = [b for b in blocks(page) if b.language == "yaml"]
        (tmp_path / f"{page.stem}.yaml").write_text(timetable.text)
    shown = next(b for b in blocks(howto) if "schedules next" in b.text).text.splitlines()

    done = subprocess.run(
        [sys.executable, "-m", *shlex.split(shown[0].removeprefix("$ ")), "--file", tmp_path / f"{howto.stem}.yaml", "-o", "table"],
        cwd=ROOT, capture_output=True, text=True, check=True,
    )  # fmt: skip

    assert done.stdout.splitlines() == shown[1:]
    (told,) = read_timetable(tmp_path / f"{reference.stem}.yaml").values()
    assert (told.calendar, told.each) == ("XNYS", "business")
    rows = re.findall(r"^\| `([a-z_]+)` \|", reference.read_text(encoding="utf-8"), re.MULTILINE)
    assert sorted(rows) == sorted(KEYS)


def test_every_example_of_a_manifest_and_a_stage_is_executed_or_says_why_not():
    """A Python block stands on a page that is executed, or is a file that the tutorial's test writes."""
    left = [
        name_of(page)
        for page in PAGES
        if name_of(page) not in EXECUTED and any(b.language == "python" and not b.title for b in blocks(page))
    ]
    assert left == []
