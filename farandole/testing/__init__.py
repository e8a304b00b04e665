"""What authors test with: a stage that runs a pipeline without Kafka, and the laws that it must obey.

>>> from farandole.testing import Stage
"""

from __future__ import annotations

from farandole.clock import ManualClock
from farandole.testing.laws import conservation, one_effect
from farandole.testing.stage import Stage

__all__ = ["ManualClock", "Stage", "conservation", "one_effect"]
