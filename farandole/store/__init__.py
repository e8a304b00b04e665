"""What a pipeline remembers, in SQL: settled keys, positions, checkpoints, waiting events.

Start reading at `open_store`, then `inbox.py`. Only this room and the ledger's import SQLAlchemy.
"""

from __future__ import annotations

from contextlib import AbstractContextManager

from sqlalchemy import Connection, Engine

from farandole.orders import Range
from farandole.store.breakers import Breakers, Change, Guards
from farandole.store.checkpoints import Checkpoint, Checkpoints
from farandole.store.engine import Database
from farandole.store.epochs import Epochs
from farandole.store.inbox import Inbox
from farandole.store.leases import Leases
from farandole.store.migrate import VERSION_TABLE
from farandole.store.orders import Orders
from farandole.store.recovery import Recovery
from farandole.store.rows import Claim, Known, Lane, Lease, OutboxRow, Outcome, Settlement, Taken
from farandole.store.tables import metadata
from farandole.store.topics import KnownTopic, KnownTopics
from farandole.store.waiting import Joined, Member, WaitingRoom, WaitingSet

__all__ = [
    "Breakers",
    "Change",
    "Checkpoint",
    "Checkpoints",
    "Claim",
    "Epochs",
    "Guards",
    "Inbox",
    "Joined",
    "Known",
    "KnownTopic",
    "KnownTopics",
    "Lane",
    "Lease",
    "Leases",
    "Member",
    "Orders",
    "OutboxRow",
    "Outcome",
    "Range",
    "Settlement",
    "Store",
    "Taken",
    "WaitingRoom",
    "WaitingSet",
    "open_store",
]


class Store:
    """The database of one pipeline, shared by its instances and safe to use from any thread."""

    def __init__(self, database: Database, pipeline: str) -> None:
        self._database, self.pipeline = database, pipeline
        self.inbox = Inbox(database, pipeline)
        self.checkpoints = Checkpoints(database, pipeline)
        self.leases = Leases(database, pipeline)
        self.waiting = WaitingRoom(database, pipeline)
        self.epochs = Epochs(database, pipeline)
        self.orders = Orders(database, pipeline, self.epochs)
        self.breakers = Breakers(database, pipeline)
        self.guards = Guards(database, pipeline)
        self.topics = KnownTopics(database, pipeline)
        self.recovery = Recovery(database, pipeline, self.waiting, self.inbox.buckets)

    @property
    def engine(self) -> Engine:
        """The SQLAlchemy engine beneath."""
        return self._database.engine

    def transaction(self) -> AbstractContextManager[Connection]:
        """A transaction that may write: committed at the end of the block, rolled back by an exception.

        Raises DatabaseUnreachable where the database itself is the trouble; other SQL errors pass as they are.
        """
        return self._database.writing()

    def close(self) -> None:
        """Give all connections back."""
        self._database.close()


def open_store(url: str, pipeline: str) -> Store:
    """Open a pipeline's database, create what is missing, and be sure that it is ours to use.

    ``{pipeline}`` in `url` becomes the pipeline's name. Raises SettingsError if the URL or what it names
    is wrong, DatabaseUnreachable if the database does not answer.
    """
    database = Database(url, pipeline, [*metadata.tables, VERSION_TABLE])
    try:
        store = Store(database, pipeline)
        store.recovery.open()
        database.opening = False
    except BaseException:
        database.close()
        raise
    return store
