"""Published rows of the benchmark Cityscapes with two tasks, as a table of LDC-MTL prints them.

Source: the figure of results in the repository OptMN-Lab/LDC-MTL (arXiv 2502.08585), whose rows
come from the papers of the methods. Segmentation: mIoU and pixel accuracy, per cent; depth:
absolute error, and relative error in per cent. The last column is its delta-m, of which less is
better there.
"""

from __future__ import annotations

import io

import pandas as pd

from mtl_utils.metrics import delta_m

METRICS = ["mIoU", "pixel accuracy", "absolute error", "relative error"]
HIGHER = [True, True, False, False]
ALONE = [74.01, 93.16, 0.0125, 27.77]  # a network for each task
ROWS = """
LS, 75.18, 93.49, 0.0155, 46.77, 22.60
SI, 70.95, 91.73, 0.0161, 33.83, 14.11
RLW, 74.57, 93.41, 0.0158, 47.79, 24.38
DWA, 75.24, 93.52, 0.0160, 44.37, 21.45
UW, 72.02, 92.85, 0.0140, 30.13, 5.89
FAMO, 74.54, 93.29, 0.0145, 32.59, 8.13
GO4Align, 72.63, 93.03, 0.0164, 27.58, 8.11
MGDA, 68.84, 91.54, 0.0309, 33.50, 44.14
PCGrad, 75.13, 93.48, 0.0154, 42.07, 18.29
GradDrop, 75.27, 93.53, 0.0157, 47.54, 23.73
CAGrad, 75.16, 93.48, 0.0141, 37.60, 11.64
IMTL-G, 75.33, 93.49, 0.0135, 38.41, 11.10
MoCo, 75.42, 93.55, 0.0149, 34.19, 9.90
Nash-MTL, 75.41, 93.66, 0.0129, 35.02, 6.82
FairGrad, 75.72, 93.68, 0.0134, 32.25, 5.18
LDC-MTL, 74.53, 93.42, 0.0128, 26.79, -0.57
"""


def table() -> pd.DataFrame:
    """A row a method: its four metrics, `printed`, the published delta-m, and `delta_m`, ours from
    the metrics, of which more is better."""
    columns = ["method", *METRICS, "printed"]
    rows = pd.read_csv(io.StringIO(ROWS), names=columns, skipinitialspace=True)
    gains = [delta_m(row, ALONE, HIGHER) for row in rows[METRICS].to_numpy()]
    return rows.assign(delta_m=gains)
