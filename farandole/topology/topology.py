"""The repository's topology and the servers it should stand on, together: what commands and the demo call."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from farandole.find import find_declaration, services
from farandole.kafka.admin import Admin
from farandole.kafka.registry import Registry
from farandole.settings import Settings
from farandole.topology.actual import read_actual
from farandole.topology.apply import apply
from farandole.topology.desired import Desired, read_desired
from farandole.topology.plan import Change, Plan, make_plan


@dataclass(frozen=True, slots=True)
class Topology:
    """A repository, and a cluster with its registry; leaving it closes the connections."""

    desired: Desired
    admin: Admin
    registry: Registry

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.registry.close()

    def plan(self, *, accept_reorder: bool = False) -> Plan:
        """What would have to be done now. Raises Unreachable when broker or registry do not answer."""
        return make_plan(
            self.desired, read_actual(self.desired, self.admin, self.registry), accept_reorder=accept_reorder
        )

    def apply(self, plan: Plan, *, made: Callable[[Change], None] = lambda _: None) -> None:
        """Do it, and tell of each change that was made. Raises FarandoleError if any of it is refused."""
        apply(plan, self.admin, self.registry, made=made)


def open_topology(settings: Settings, *, root: Path | None = None, cluster: str = "local") -> Topology:
    """The topology of the repository at `root` (this folder), for the servers that the settings name.

    Raises DeclarationError for a mistake in its files, SettingsError where no server is named.
    """
    root = root or Path()
    declarations = [find_declaration(name, root) for name in services(root)]
    return Topology(
        read_desired(root, declarations, cluster=cluster),
        Admin(settings.bootstrap(), settings.client_properties()),
        Registry(settings.registry(), settings.schema_registry_basic_auth_user_info),
    )
