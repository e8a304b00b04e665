"""Where a setting comes from, and what is said about one that cannot be read."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from farandole.errors import SettingsError
from farandole.settings import Settings, load_settings


@pytest.fixture(autouse=True)
def nothing_set(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in list(os.environ):
        if name.startswith(("FARANDOLE_", "KAFKA_", "SCHEMA_REGISTRY_")):
            monkeypatch.delenv(name)
    monkeypatch.chdir(tmp_path)


def running(name: str, address: str, pid: int | None = None) -> dict:
    return {
        name: {
            "name": name,
            "address": address,
            "ports": {},
            "pid": os.getpid() if pid is None else pid,
            "started": 1.0,
        }
    }


def write_state(*servers: dict) -> None:
    Path(".farandole").mkdir(exist_ok=True)
    Path(".farandole/stack.json").write_text(json.dumps({"servers": {k: v for s in servers for k, v in s.items()}}))


def test_a_flag_wins_over_the_environment_over_the_file_over_the_default(monkeypatch):
    Path("farandole.toml").write_text("lake = 'file'\ngroup_protocol = 'classic'\nkafka_bootstrap_servers = 'file:1'\n")
    monkeypatch.setenv("FARANDOLE_LAKE", "environment")
    monkeypatch.setenv("KAFKA_BOOTSTRAP_SERVERS", "environment:1")

    settings = load_settings(kafka_bootstrap_servers="flag:1", lake=None)

    assert (settings.kafka_bootstrap_servers, settings.lake) == ("flag:1", "environment")
    assert (settings.group_protocol, settings.stack) == ("classic", "local")


def test_an_empty_variable_is_not_set(monkeypatch):
    Path("farandole.toml").write_text("kafka_bootstrap_servers = 'file:1'\n")
    monkeypatch.setenv("KAFKA_BOOTSTRAP_SERVERS", "")

    assert load_settings().bootstrap() == "file:1"


def test_client_properties_come_from_an_allow_list(monkeypatch):
    for name, value in {
        "KAFKA_BOOTSTRAP_SERVERS": "b:1",
        "KAFKA_SECURITY_PROTOCOL": "SASL_SSL",
        "KAFKA_SASL_USERNAME": "me",
        "KAFKA_PORT": "tcp://10.0.0.1:9092",  # Kubernetes
        "KAFKA_SERVICE_HOST": "10.0.0.1",
        "KAFKA_LOG_DIRS": "/var/lib",  # a broker image
    }.items():
        monkeypatch.setenv(name, value)

    assert load_settings().client_properties() == {
        "bootstrap.servers": "b:1",
        "security.protocol": "SASL_SSL",
        "sasl.username": "me",
    }


def test_the_file_gives_client_properties_that_the_environment_overrides(monkeypatch):
    Path("farandole.toml").write_text(
        'kafka_bootstrap_servers = "b:1"\n[kafka]\n"sasl.username" = "a"\n"linger.ms" = "1"\n'
    )
    monkeypatch.setenv("KAFKA_SASL_USERNAME", "b")

    properties = load_settings().client_properties()

    assert (properties["sasl.username"], properties["linger.ms"]) == ("b", "1")


def test_a_running_stack_is_found_when_no_broker_is_named():
    write_state(running("kafka", "127.0.0.1:1"), running("registry", "http://127.0.0.1:2/apis/ccompat/v7"))

    settings = load_settings()

    assert settings.bootstrap() == "127.0.0.1:1"
    assert settings.registry() == "http://127.0.0.1:2/apis/ccompat/v7"
    assert settings.database("p") == "sqlite:///.farandole/books/p.db"
    assert Path(".farandole/books").is_dir()


def test_a_running_postgres_keeps_the_tables():
    write_state(
        running("kafka", "127.0.0.1:1"), running("postgres", "postgresql+psycopg://postgres@127.0.0.1:5/farandole")
    )

    assert load_settings().database("p") == "postgresql+psycopg://postgres@127.0.0.1:5/farandole"


def test_a_named_broker_is_never_mixed_with_the_running_stack(monkeypatch):
    write_state(running("kafka", "127.0.0.1:1"), running("registry", "http://127.0.0.1:2"))
    monkeypatch.setenv("KAFKA_BOOTSTRAP_SERVERS", "production:9092")

    settings = load_settings()

    assert settings.bootstrap() == "production:9092"
    with pytest.raises(SettingsError, match="no schema registry is named"):
        settings.registry()


@pytest.mark.parametrize("pid", [0, 2**31 - 1])
def test_a_stopped_stack_is_not_taken_for_a_running_one(pid):
    write_state(running("kafka", "127.0.0.1:1", pid))

    with pytest.raises(SettingsError) as caught:
        load_settings().bootstrap()
    assert caught.value.place == "KAFKA_BOOTSTRAP_SERVERS"
    assert "farandole up" in caught.value.hint


@pytest.mark.parametrize(
    ("variable", "value", "says"),
    [
        ("FARANDOLE_STACK", "docker", "'local', 'containers' or 'external'"),
        ("FARANDOLE_COMMIT_RECORDS", "none", "valid integer"),
        ("FARANDOLE_COMMIT_INTERVAL", "soon", "write it like 250ms"),
        ("FARANDOLE_COMMIT_INTERVAL", "0s", "more than nothing"),
        ("FARANDOLE_DATABASE_URL", "books.db", "is no URL"),
        ("FARANDOLE_GROUP_PROTOCOL", "new", "'consumer' or 'classic'"),
    ],
)
def test_a_value_that_cannot_be_read_names_its_variable(monkeypatch, variable, value, says):
    monkeypatch.setenv(variable, value)

    with pytest.raises(SettingsError) as caught:
        load_settings()
    assert (caught.value.place, caught.value.exit_code) == (variable, 64)
    assert says in caught.value.message
    assert caught.value.hint


def test_a_password_is_in_no_message_and_no_repr(monkeypatch):
    monkeypatch.setenv("FARANDOLE_DATABASE_URL", "secret-without-scheme")
    with pytest.raises(SettingsError) as caught:
        load_settings()
    assert "secret" not in str(caught.value)

    monkeypatch.setenv("FARANDOLE_DATABASE_URL", "postgresql://me:secret@h/d")
    monkeypatch.setenv("SCHEMA_REGISTRY_BASIC_AUTH_USER_INFO", "me:secret")
    assert "secret" not in repr(load_settings())


def test_an_unknown_setting_in_the_file_is_named():
    Path("farandole.toml").write_text("kafka_bootstrap = 'x'\n")

    with pytest.raises(SettingsError, match="there is no setting 'kafka_bootstrap'") as caught:
        load_settings()
    assert "kafka_bootstrap_servers" in caught.value.hint


def test_a_file_that_is_no_toml_is_named():
    Path("farandole.toml").write_text("lake = \n")

    with pytest.raises(SettingsError, match="no TOML"):
        load_settings()


def test_there_are_at_most_twenty_settings():
    assert len(Settings.model_fields) <= 20
