"""The methods of the course in one table: what each reads, what it costs, where it is taught."""

from __future__ import annotations

from dataclasses import dataclass

import pandas as pd

READS = {
    "nothing": "weights chosen beforehand or by chance",
    "losses": "loss values of this step",
    "history": "how losses or metrics changed",
    "gradients": "a gradient of each task",
    "gramian": "inner products of all task gradients",
}


@dataclass(frozen=True)
class Method:
    """One method.

    Attributes:
        name: as `make_weighting` knows it (or will).
        title: as papers write it.
        year: of publication.
        reads: a key of `READS`.
        notebook: number of the notebook that teaches it.
        source: authors and where to find the paper.
    """

    name: str
    title: str
    year: int
    reads: str
    notebook: str
    source: str


METHODS = (
    Method("equal", "Equal weights", 1997, "nothing", "02", "Caruana 1997"),
    Method("fixed", "Fixed weights", 1997, "nothing", "02", "linear scalarisation"),
    Method("random", "Random weights (RLW)", 2022, "nothing", "13", "arXiv 2111.10603"),
    Method("uncertainty", "Uncertainty weighting", 2018, "losses", "03", "arXiv 1705.07115"),
    Method("liebel", "Liebel and Koerner", 2018, "losses", "03", "arXiv 1805.06334"),
    Method("log", "Sum of logs (SI)", 2022, "losses", "13", "arXiv 2202.01017"),
    Method("geometric", "Geometric mean (GLS)", 2019, "losses", "13", "CVPR workshops 2019"),
    Method("imtl_l", "IMTL-L", 2021, "losses", "13", "ICLR 2021"),
    Method("famo", "FAMO", 2023, "losses", "13", "arXiv 2306.03792"),
    Method("uncertainty_soft", "UW-SO", 2024, "losses", "03", "arXiv 2408.07985"),
    Method("stch", "Smooth Tchebycheff", 2024, "losses", "13", "arXiv 2402.19078"),
    Method("loss_trend", "Validation-loss trend", 2017, "history", "11", "ACM MM 2017"),
    Method("dtp", "Dynamic task priority (DTP)", 2018, "history", "07", "ECCV 2018"),
    Method("dwa", "Dynamic weight average (DWA)", 2019, "history", "06", "arXiv 1803.10704"),
    Method("gradnorm", "GradNorm", 2018, "gradients", "08", "arXiv 1711.02257"),
    Method("graddrop", "GradDrop", 2020, "gradients", "12", "arXiv 2010.06808"),
    Method("db_mtl", "DB-MTL", 2023, "gradients", "13", "arXiv 2308.12029"),
    Method("mgda", "MGDA", 2018, "gramian", "09", "arXiv 1810.04650"),
    Method("pareto_mtl", "Pareto MTL", 2019, "gramian", "10", "NeurIPS 2019"),
    Method("pcgrad", "PCGrad", 2020, "gramian", "12", "arXiv 2001.06782"),
    Method("gradvac", "GradVac", 2021, "gramian", "12", "arXiv 2010.05874"),
    Method("cagrad", "CAGrad", 2021, "gramian", "12", "arXiv 2110.14048"),
    Method("imtl_g", "IMTL-G", 2021, "gramian", "12", "ICLR 2021"),
    Method("nash_mtl", "Nash-MTL", 2022, "gramian", "12", "arXiv 2202.01017"),
    Method("aligned_mtl", "Aligned-MTL", 2023, "gramian", "12", "arXiv 2305.19000"),
    Method("upgrad", "UPGrad", 2024, "gramian", "12", "arXiv 2406.16232"),
    Method("dualproj", "Dual-cone projection", 2017, "gramian", "12", "arXiv 1706.08840"),
    Method("fairgrad", "FairGrad", 2024, "gramian", "12", "arXiv 2402.15638"),
    Method("config", "ConFIG", 2024, "gramian", "12", "arXiv 2408.11104"),
)


def methods_table() -> pd.DataFrame:
    """A row for each method, columns as the attributes of `Method`."""
    return pd.DataFrame([vars(method) for method in METHODS])
