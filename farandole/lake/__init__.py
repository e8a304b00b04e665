"""The lake: landed files become Parquet, Delta tables and marts, in a folder or a bucket."""

from farandole.lake.lake import Lake, open_lake
from farandole.lake.outcome import BadRows, Merged, Refreshed, Staged, TableBusy

__all__ = ["BadRows", "Lake", "Merged", "Refreshed", "Staged", "TableBusy", "open_lake"]
