"""`farandole schemas generate` and `check`: from schemas/avro to schemas/events.py."""

from __future__ import annotations

from pathlib import Path

import click

from farandole.errors import DIFFERENCES, FINE

FOLDER, TARGET = Path("schemas/avro"), Path("schemas/events.py")

_CHECK = "Write nothing; leave with 2 when the file is stale."


@click.group()
def schemas() -> None:
    """The event classes: made from schemas/avro, committed as schemas/events.py."""


@schemas.command()
@click.option("--check", "only_check", is_flag=True, help=_CHECK)
def generate(only_check: bool) -> int:
    """Write schemas/events.py from the schemas in schemas/avro.

    \b
    Examples:
      farandole schemas generate
      farandole schemas generate --check
    """  # noqa: D301 - \b is click's mark for lines that stay as they are
    text = _text()
    if _stands() == text:
        click.echo(f"{TARGET} is fresh")
        return FINE
    if only_check:
        return _stale()
    TARGET.write_text(text, encoding="utf-8")
    click.echo(f"{TARGET} written")
    return FINE


@schemas.command()
def check() -> int:
    """Read every schema and say whether schemas/events.py is what they give; leave with 2 when it is stale."""
    text = _text()
    if _stands() != text:
        return _stale()
    click.echo(f"{TARGET} is fresh")
    return FINE


def _text() -> str:
    from farandole.schemagen import generate, load_schemas

    return generate(load_schemas(FOLDER), FOLDER.as_posix())


def _stands() -> str:
    return TARGET.read_text(encoding="utf-8") if TARGET.is_file() else ""


def _stale() -> int:
    click.echo(f"{TARGET} is not what {FOLDER} gives\n  hint  farandole schemas generate", err=True)
    return DIFFERENCES
