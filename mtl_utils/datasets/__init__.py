"""Data of the course. Nothing downloads; every set names its source and licence."""

from mtl_utils.datasets.base import MultiTaskData
from mtl_utils.datasets.digits import overlapping_digits
from mtl_utils.datasets.tabular import diamonds
from mtl_utils.datasets.toy import two_regressions

__all__ = ["MultiTaskData", "diamonds", "overlapping_digits", "two_regressions"]
