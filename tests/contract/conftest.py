"""The store's suite runs on both databases."""

from __future__ import annotations

import pytest

from farandole.store import open_store


@pytest.fixture(params=["sqlite", "postgresql"])
def store_url(request, tmp_path):
    """The URL of an empty database."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path}/stores/shared.db"
    return request.getfixturevalue("stack").postgres_url()


@pytest.fixture
def another_store(store_url):
    """Opens the pipeline's store as one more instance."""
    opened = []

    def another(pipeline="merge"):
        opened.append(open_store(store_url, pipeline))
        return opened[-1]

    yield another
    for store in opened:
        store.close()


@pytest.fixture
def store(another_store):
    return another_store()
