"""One branch per declared source, and no code for any of them."""

from __future__ import annotations

from farandole import Pipeline, when
from schemas.events import FileLanded
from services.relationalize.handlers import stage


class Relationalize(Pipeline):
    """Turn every landed file (CSV, JSON lines, XML, change logs) into staged rows of its tables."""

    file = when(FileLanded)
    steps = [stage]
    since = "beginning"
    owner = "team-lake"
