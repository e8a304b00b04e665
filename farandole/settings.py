"""Every setting, from flag, environment, ``farandole.toml`` or default, in that order.

Where neither names a broker and the embedded stack runs, its addresses are taken, so that
``farandole up`` is all that a pipeline needs.
"""

from __future__ import annotations

import json
import os
import tomllib
from pathlib import Path
from typing import Any, Literal
from urllib.parse import urlsplit

from pydantic import AliasChoices, Field, ValidationError, field_validator
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict, TomlConfigSettingsSource
from pydantic_settings.exceptions import SettingsError as UnreadableValue

from farandole.clock import seconds
from farandole.errors import SettingsError

CLIENT_PROPERTIES = (
    "client.id",
    "client.rack",
    "security.protocol",
    "sasl.mechanism",
    "sasl.mechanisms",
    "sasl.username",
    "sasl.password",
    "sasl.kerberos.service.name",
    "sasl.kerberos.principal",
    "sasl.kerberos.keytab",
    "sasl.oauthbearer.method",
    "sasl.oauthbearer.client.id",
    "sasl.oauthbearer.client.secret",
    "sasl.oauthbearer.scope",
    "sasl.oauthbearer.extensions",
    "sasl.oauthbearer.token.endpoint.url",
    "sasl.oauthbearer.config",
    "ssl.ca.location",
    "ssl.ca.pem",
    "ssl.certificate.location",
    "ssl.certificate.pem",
    "ssl.key.location",
    "ssl.key.pem",
    "ssl.key.password",
    "ssl.keystore.location",
    "ssl.keystore.password",
    "ssl.crl.location",
    "ssl.cipher.suites",
    "ssl.endpoint.identification.algorithm",
    "enable.ssl.certificate.verification",
)
"""The librdkafka properties that KAFKA_… variables may set. A list, because other things set KAFKA_ variables
too: Kubernetes gives every pod KAFKA_PORT and KAFKA_SERVICE_HOST beside a Service of that name."""

_NAMED = {
    "kafka_bootstrap_servers": "KAFKA_BOOTSTRAP_SERVERS",
    "schema_registry_url": "SCHEMA_REGISTRY_URL",
    "schema_registry_basic_auth_user_info": "SCHEMA_REGISTRY_BASIC_AUTH_USER_INFO",
    "state_dir": "FARANDOLE_STATE",
}
"""The variables whose name is not FARANDOLE_ and the setting's."""


class Settings(BaseSettings):
    """What differs between one machine, a test and production. Made by :func:`load_settings`."""

    model_config = SettingsConfigDict(
        env_prefix="FARANDOLE_", env_ignore_empty=True, extra="forbid", populate_by_name=True, frozen=True
    )

    kafka_bootstrap_servers: str = Field("", validation_alias=AliasChoices("KAFKA_BOOTSTRAP_SERVERS", "KAFKA_BROKERS"))
    schema_registry_url: str = Field("", validation_alias=AliasChoices("SCHEMA_REGISTRY_URL", "KAFKA_SCHEMA_REGISTRY"))
    schema_registry_basic_auth_user_info: str = Field(
        "",
        repr=False,
        validation_alias=AliasChoices("SCHEMA_REGISTRY_BASIC_AUTH_USER_INFO", "KAFKA_SCHEMA_REGISTRY_USER_INFO"),
    )
    kafka: dict[str, str] = Field(default_factory=dict, repr=False)
    """Client properties of ``farandole.toml``'s table ``[kafka]``; KAFKA_… variables override them."""
    alerts: dict[str, list[str]] = Field(default_factory=dict, repr=False)
    """``farandole.toml``'s table ``[alerts]``: ``routes``, the addresses that alerts go to."""
    alert_routes: str = Field("", repr=False)
    """The same addresses, with spaces between them; they take the place of the table's."""
    close_key: str = Field("", repr=False)
    """The secret with which closed books are signed, 16 characters at least."""
    database_url: str = Field("", repr=False)
    """SQLAlchemy URL of a pipeline's own tables; ``{pipeline}`` stands for its name."""
    lake: str = ""
    stack: Literal["local", "containers", "external"] = "local"
    state_dir: Path = Field(Path(".farandole"), validation_alias="FARANDOLE_STATE")
    maven_mirror: str = ""
    group_protocol: Literal["consumer", "classic"] = "consumer"
    commit_interval: float = 0.1
    """Seconds after which a batch is committed, however small; spans such as ``100ms`` are read too."""
    commit_records: int = Field(1000, ge=1)
    """Records after which a batch is committed, however soon."""
    shutdown_grace: float = 30.0
    """Seconds that steps under way may go on when the service is told to end; then they are handed over."""

    @field_validator("commit_interval", "shutdown_grace", mode="before")
    @classmethod
    def _span(cls, value: Any) -> float:
        found = seconds(float(value) if isinstance(value, str) and value.replace(".", "", 1).isdigit() else value)
        if found <= 0:
            msg = "must be more than nothing"
            raise ValueError(msg)
        return found

    @field_validator("database_url")
    @classmethod
    def _is_url(cls, value: str) -> str:
        if value and not urlsplit(value).scheme:
            msg = "is no URL; write it like postgresql+psycopg://user@host/name or sqlite:///folder/{pipeline}.db"
            raise ValueError(msg)
        return value

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,  # noqa: ARG003 - the signature is pydantic's
        file_secret_settings: PydanticBaseSettingsSource,  # noqa: ARG003
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Flag, environment, file, running stack. No dotenv and no secrets folder: they would hide an origin."""
        file = TomlConfigSettingsSource(settings_cls, toml_file=config_file())
        return init_settings, env_settings, file

    def bootstrap(self) -> str:
        """The brokers' addresses. Raises SettingsError when none is named and no stack runs."""
        if self.kafka_bootstrap_servers:
            return self.kafka_bootstrap_servers
        raise SettingsError(
            "no Kafka broker is named, and no stack runs here",
            place="KAFKA_BOOTSTRAP_SERVERS",
            hint="`farandole up` starts one on this machine; or set KAFKA_BOOTSTRAP_SERVERS=host:9092",
        )

    def registry(self) -> str:
        """The schema registry's address. Raises SettingsError when none is named and no stack runs."""
        if self.schema_registry_url:
            return self.schema_registry_url
        raise SettingsError(
            "no schema registry is named, and no stack runs here",
            place="SCHEMA_REGISTRY_URL",
            hint="`farandole up` starts one on this machine; or set SCHEMA_REGISTRY_URL=http://host:8081",
        )

    def client_properties(self) -> dict[str, str]:
        """What every Kafka client is made with: the brokers, and how to be let in. Raises SettingsError."""
        given = {name: os.environ.get("KAFKA_" + name.upper().replace(".", "_"), "") for name in CLIENT_PROPERTIES}
        return {**self.kafka, **{k: v for k, v in given.items() if v}, "bootstrap.servers": self.bootstrap()}

    def routes(self) -> list[str]:
        """The addresses that alerts go to. Raises SettingsError for a table ``[alerts]`` with other words."""
        if unknown := sorted(self.alerts.keys() - {"routes"}):
            raise SettingsError(
                f"[alerts] has an unknown key {unknown[0]!r}",
                place=str(config_file()),
                hint='write routes = ["json://…"]',
            )
        return self.alert_routes.split() or self.alerts.get("routes", [])

    def database(self, pipeline: str) -> str:
        """The URL of one pipeline's database; the folder of an SQLite file is made."""
        url = self.database_url.replace("{pipeline}", pipeline)
        if url.startswith("sqlite:///") and ":memory:" not in url:
            Path(url.removeprefix("sqlite:///").partition("?")[0]).parent.mkdir(parents=True, exist_ok=True)
        return url


def config_file() -> Path:
    """Where ``farandole.toml`` is looked for: FARANDOLE_CONFIG, else this folder."""
    return Path(os.environ.get("FARANDOLE_CONFIG") or "farandole.toml")


def span(variable: str, unless: str) -> float:
    """Seconds of a span in the environment, such as ``60s``; `unless` where none is said. Raises SettingsError."""
    said = os.environ.get(variable, unless)
    try:
        return seconds(said)
    except ValueError as error:
        raise SettingsError(f"{said!r} is no span", place=variable, hint=f"write it like {unless} or 5m") from error


def load_settings(**flags: Any) -> Settings:
    """The settings; a flag that is None counts as not given.

    Raises SettingsError, which names the setting's variable and the remedy.
    """
    given = {name: value for name, value in flags.items() if value is not None}
    try:
        read = Settings(**given)
    except ValidationError as error:
        raise _unreadable(error) from error
    except UnreadableValue as error:
        raise SettingsError(
            str(error), place="FARANDOLE_KAFKA", hint='write it as JSON: {"client.id": "me"}'
        ) from error
    except tomllib.TOMLDecodeError as error:
        raise SettingsError(f"this is no TOML: {error}", place=str(config_file()), hint="mend that line") from error
    return read.model_copy(update=_found(read))


def _found(read: Settings) -> dict[str, str]:
    """What follows from other settings and from the running stack."""
    running = {} if read.kafka_bootstrap_servers or read.stack == "external" else running_stack(read.state_dir)
    brokers = ",".join(address for name, address in running.items() if name.partition("-")[0] == "kafka")
    return {
        "kafka_bootstrap_servers": read.kafka_bootstrap_servers or brokers,
        "schema_registry_url": (read.schema_registry_url or running.get("registry", "")).rstrip("/"),
        "database_url": read.database_url
        or running.get("postgres", "")
        or f"sqlite:///{read.state_dir / 'books'}/{{pipeline}}.db",
        "lake": read.lake or str(read.state_dir / "lake"),
    }


def running_stack(state_dir: Path) -> dict[str, str]:
    """The address of each server of the embedded stack that runs, by name; empty without one."""
    try:
        servers = json.loads((state_dir / "stack.json").read_text())["servers"]
        return {name: server["address"] for name, server in servers.items() if _runs(server)}
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return {}  # `farandole up` and `farandole doctor` say what is wrong with it


def _runs(server: dict[str, Any]) -> bool:
    if server.get("container"):
        return True
    pid = int(server["pid"])
    try:
        os.kill(pid, 0)
    except PermissionError:
        return True
    except (OSError, OverflowError):
        return False
    return pid > 0


def _unreadable(error: ValidationError) -> SettingsError:
    first = error.errors()[0]
    name = str(first["loc"][0])
    if first["type"] == "extra_forbidden":
        known = ", ".join(sorted(Settings.model_fields))
        return SettingsError(f"there is no setting {name!r}", place=str(config_file()), hint=f"there are: {known}")
    field = next((f for f in Settings.model_fields if name in (f, _variable(f))), name)
    reason = first["msg"].removeprefix("Value error, ")
    open_ = field in Settings.model_fields and Settings.model_fields[field].repr  # the others may hold a password
    return SettingsError(
        f"{first['input']!r} cannot be used: {reason}" if open_ else f"the value cannot be used: {reason}",
        place=_variable(field),
        hint=f"correct it in the environment, or `{field}` in {config_file()}",
    )


def _variable(field: str) -> str:
    return _NAMED.get(field, f"FARANDOLE_{field.upper()}")
