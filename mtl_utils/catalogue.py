"""The methods of the course in one table: what each reads, what it costs, where it is taught.

It follows from the cards in `mtl_utils/weighting/methods/`.
"""

from __future__ import annotations

import pandas as pd

from mtl_utils.weighting.base import READS, cards

__all__ = ["READS", "methods_table"]


def methods_table() -> pd.DataFrame:
    """A row for each method, in the order of the course; columns as the attributes of a
    `mtl_utils.weighting.base.Card`: name, title, year, reads, notebook, source."""
    return pd.DataFrame([vars(card) for card in cards()])
