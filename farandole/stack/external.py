"""Servers that are somebody else's: named by the environment, and only asked whether they answer."""

from __future__ import annotations

from farandole.errors import RegistryUnreachable
from farandole.settings import Settings
from farandole.stack.state import Server


def check(settings: Settings, patience: float = 10) -> list[Server]:
    """The servers that the settings name, once each has answered.

    Raises SettingsError for one that is not named, BrokerUnreachable or RegistryUnreachable for one that is
    silent.
    """
    from farandole.kafka.probe import wait_for_broker

    bootstrap, registry = settings.bootstrap(), settings.registry()
    wait_for_broker(bootstrap, patience, settings.client_properties())
    ask_registry(settings)
    return [Server("kafka", bootstrap, {}), Server("registry", registry, {})]


def ask_registry(settings: Settings) -> str:
    """The ``Date`` that the registry answered with (it may be empty). Raises RegistryUnreachable."""
    import httpx2

    user, _, password = settings.schema_registry_basic_auth_user_info.partition(":")
    hint = "is it running (`farandole up`), and are SCHEMA_REGISTRY_URL and the credentials right?"
    try:
        answer = httpx2.get(
            f"{settings.registry()}/subjects",
            timeout=10,
            auth=(user, password) if user else None,
            trust_env=not settings.registry().startswith("http://127.0.0.1"),  # no proxy to ourselves
        )
    except httpx2.HTTPError as error:
        reason = f"the registry does not answer: {error}"
        raise RegistryUnreachable(reason, place=settings.registry(), hint=hint) from error
    if not answer.is_success:
        raise RegistryUnreachable(
            f"the registry answers {answer.status_code} {answer.reason_phrase} to a list of its subjects",
            place=settings.registry(),
            hint=f"the URL must end where /subjects begins, as in http://host:8081 or …/apis/ccompat/v7; {hint}",
        )
    return str(answer.headers.get("date", ""))
