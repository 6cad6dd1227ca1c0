"""Data of the course. Nothing downloads; every set names its source and licence."""

from mtl_utils.datasets.base import MultiTaskData
from mtl_utils.datasets.digits import overlapping_digits
from mtl_utils.datasets.folders import DenseFolder
from mtl_utils.datasets.glyphs import glyph_attributes
from mtl_utils.datasets.rooms import rooms
from mtl_utils.datasets.synthetic import RelatedTasks, related_regressions
from mtl_utils.datasets.tabular import diamonds
from mtl_utils.datasets.text import foldoc, movie_genres, reuters
from mtl_utils.datasets.toy import two_regressions

__all__ = [
    "DenseFolder",
    "MultiTaskData",
    "RelatedTasks",
    "diamonds",
    "foldoc",
    "glyph_attributes",
    "movie_genres",
    "overlapping_digits",
    "related_regressions",
    "reuters",
    "rooms",
    "two_regressions",
]
