"""What landing should have told by now: the reconciler compares it with the topic."""

from __future__ import annotations

from farandole.lake import open_lake
from farandole.sources.files import Seen
from farandole.sources.inventory import Inventory, Listing
from farandole.sources.metadata import open_sources
from schemas.events import FileLanded
from services.landing.handlers import landed_events


def listed(seen: Seen) -> Listing:
    """The files of all declared sources in the raw folder that are new or changed since `seen`."""
    good, bad = open_sources().all()
    return Listing([*landed_events(open_lake().raw, good, seen)], [str(error) for error in bad])


inventory = Inventory(FileLanded, listed)
