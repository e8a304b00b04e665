"""What a database URL may be, and which revision is the newest."""

from __future__ import annotations

from pathlib import Path

import pytest
from alembic.config import Config
from alembic.script import ScriptDirectory

from farandole.errors import SettingsError
from farandole.store import migrate
from farandole.store.engine import Database


@pytest.mark.parametrize(
    ("url", "says"),
    [
        ("", "no database URL"),
        ("over there", "no database URL"),
        ("mysql://host/name", "mysql"),
        ("postgresql+psycopg2://host/name", "psycopg2"),
        ("sqlite://", "without a file"),
        ("sqlite:///:memory:", "without a file"),
    ],
)
def test_a_url_that_cannot_be_used_is_refused_with_an_example(url, says):
    with pytest.raises(SettingsError, match=says) as raised:
        Database(url, "merge")

    assert raised.value.place == "FARANDOLE_DATABASE_URL"
    assert "postgresql://" in raised.value.hint


@pytest.mark.parametrize("scheme", ["postgresql", "postgres", "postgresql+psycopg"])
def test_postgresql_is_spoken_by_psycopg_3(scheme):
    database = Database(f"{scheme}://user:secret@host/name_of_{{pipeline}}", "merge")

    assert database.engine.dialect.driver == "psycopg"
    assert database.place == "postgresql+psycopg://user:***@host/name_of_merge"
    database.close()


def test_the_newest_revision_is_the_one_that_a_start_looks_for():
    config = Config()
    config.set_main_option("script_location", str(Path(migrate.__file__).with_name("migrations")))
    config.set_main_option("path_separator", "os")

    assert ScriptDirectory.from_config(config).get_heads() == [migrate.HEAD]
