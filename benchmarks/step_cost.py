"""What one training step costs with each rule, as a ratio to plain training of the same model.

    python benchmarks/step_cost.py                 # everything, about 15 minutes
    python benchmarks/step_cost.py --models mlp --tasks 10
    python benchmarks/step_cost.py --device cuda   # writes a file of its own

Every round runs all contenders one after another (one warm step, then timed ones), plain training
first; a ratio is the median over the rounds of step / plain step of the same round, so that a busy
machine disturbs both. One thread. A step is: zero_grad, forward, losses, backward with the rule,
Adam. "solve" is the time that the rule needs for its coefficients once it has the Gramian, as a
share of its step. Peak memory is that of a process of its own above that of plain training.

TorchJD (a test-only dependency), where it is installed, does the same step in each way that it
offers: `mtl_backward` with all tasks at once or one after another, and its engine for Gramians; its
"engine" row takes the mean of the gradients, the cheapest there is, and counts the fastest way.
"""

from __future__ import annotations

import argparse
import copy
import multiprocessing
import sys
import time
from pathlib import Path
from statistics import median

import pandas as pd
import torch
from torch import nn

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from mtl_utils import available_weightings, make_weighting  # noqa: E402
from mtl_utils.models import HardSharing, lenet_trunk, mlp  # noqa: E402
from mtl_utils.weighting import GradientWeighting, LossWeighting  # noqa: E402
from mtl_utils.weighting.base import weighting_class  # noqa: E402

MODELS = ("mlp", "mlp-deep-heads", "lenet")
TASKS = (2, 10, 40)
TORCHJD = ("all at once", "one by one", "engine")


def make_model(name: str, n_tasks: int, device: str):
    """The model, its inputs and targets [K, B]."""
    torch.manual_seed(0)
    if name == "lenet":
        trunk, heads = lenet_trunk(36), [mlp(50, 50, 10) for _ in range(n_tasks)]
        x, y = torch.randn(256, 1, 36, 36), torch.randint(10, (n_tasks, 256))
    else:
        trunk = mlp(256, 512, 512, last=True)
        sizes = (512, 1) if name == "mlp" else (512, 64, 1)
        heads = [mlp(*sizes) for _ in range(n_tasks)]
        x, y = torch.randn(128, 256), torch.randn(n_tasks, 128)
    return HardSharing(trunk, heads).to(device), x.to(device), y.to(device)


class Steps:
    """Training steps of one model, in every way that is compared."""

    def __init__(self, name: str, n_tasks: int, device: str) -> None:
        self.model, self.x, self.y = make_model(name, n_tasks, device)
        self.n_tasks, self.device = n_tasks, device
        self.shared = list(self.model.trunk.parameters())
        self.optimizer = torch.optim.Adam(self.model.parameters(), lr=1e-5)
        self.rules: dict = {}
        self.engine = None

    def losses(self, outputs) -> list[torch.Tensor]:
        if self.y.is_floating_point():
            return [(o[:, 0] - t).square().mean() for o, t in zip(outputs, self.y, strict=True)]
        return [nn.functional.cross_entropy(o, t) for o, t in zip(outputs, self.y, strict=True)]

    def run(self, contender: str) -> None:
        self.optimizer.zero_grad()
        kind, _, rule = contender.partition(": ")
        getattr(self, kind)(rule)
        self.optimizer.step()

    def plain(self, rule: str) -> None:
        sum(self.losses(self.model(self.x))).backward()

    def ours(self, rule: str) -> None:
        weighting = self.weighting(rule)
        if weighting.needs_shared:
            outputs, features = self.model.forked(self.x)
            weighting.backward(torch.stack(self.losses(outputs)), self.shared, features)
        else:
            weighting.backward(torch.stack(self.losses(self.model(self.x))))
        if "losses_after_step" in weighting.observes:
            with torch.no_grad():
                after = torch.stack(self.losses(self.model(self.x)))
            weighting.observe(losses_after_step=after)

    def unforked(self, rule: str) -> None:
        losses = torch.stack(self.losses(self.model(self.x)))
        self.weighting(rule).backward(losses, self.shared)

    def naive(self, rule: str) -> None:
        """A backward pass through everything for each task, as most public code does it."""
        losses, rows = self.losses(self.model(self.x)), []
        for loss in losses:
            self.model.zero_grad()
            loss.backward(retain_graph=True)
            rows.append(torch.cat([p.grad.flatten() for p in self.shared]))
        jacobian = torch.stack(rows)
        alpha = self.weighting(rule).coefficients(jacobian @ jacobian.T)
        update = alpha @ jacobian
        for p, part in zip(
            self.shared, update.split([p.numel() for p in self.shared]), strict=True
        ):
            p.grad = part.view_as(p)

    def weighting(self, rule: str):
        if rule not in self.rules:
            name, _, gramian = rule.partition(" on ")
            name, _, every = name.partition(" every ")
            options: dict = {}
            if name == "fixed":
                options["weights"] = [1.0] * self.n_tasks
            if name == "pareto_mtl":
                options |= {"preferences": torch.eye(self.n_tasks), "index": 0}
            if gramian:
                options["gramian"] = gramian
            if every:
                options["every"] = int(every)
            weighting = make_weighting(name, self.n_tasks, **options).to(self.device)
            for quantity in weighting.observes:
                if quantity != "losses_after_step":
                    weighting.observe(**{quantity: [0.5] * self.n_tasks})
            if list(weighting.parameters()):
                self.optimizer.add_param_group({"params": list(weighting.parameters())})
            self.rules[rule] = weighting
        return self.rules[rule]

    def torchjd(self, rule: str) -> None:
        from torchjd import aggregation, autogram, autojac

        name, _, way = rule.partition(", ")
        if way == "engine":
            if self.engine is None:  # hooks its model, so it gets one of its own
                self.hooked = copy.deepcopy(self.model)
                self.engine = autogram.Engine(self.hooked.trunk, batch_dim=None)
                for mine, its in zip(
                    self.model.parameters(), self.hooked.parameters(), strict=True
                ):
                    its.data = mine.data
            self.hooked.zero_grad()
            losses = torch.stack(self.losses(self.hooked(self.x)))
            gramian = self.engine.compute_gramian(losses)
            losses.backward(getattr(aggregation, f"{name}Weighting")()(gramian))
            for mine, its in zip(self.model.parameters(), self.hooked.parameters(), strict=True):
                mine.grad = its.grad
            return
        features = self.model.trunk(self.x)
        losses = self.losses([head(features) for head in self.model.heads])
        chunk = 1 if way == "one by one" else None
        autojac.mtl_backward(losses, features=features, parallel_chunk_size=chunk)
        autojac.jac_to_grad(self.shared, getattr(aggregation, name)())

    def gramian(self) -> torch.Tensor:
        from mtl_utils.gradients import gramian

        return gramian(torch.stack(self.losses(self.model(self.x))), self.shared)


def contenders() -> list[str]:
    names = available_weightings()
    loss_rules = [n for n in names if issubclass(weighting_class(n), LossWeighting)]
    rules = [n for n in names if issubclass(weighting_class(n), GradientWeighting)]
    found = ["plain", *(f"ours: {n}" for n in [*loss_rules, *rules])]
    found += [f"ours: mgda on {g}" for g in ("representation", "last_layer")]
    found += ["ours: mgda every 10", "unforked: mgda", "naive: mgda"]
    try:
        import torchjd  # noqa: F401
    except ImportError:
        return found
    found += [f"torchjd: Mean, {way}" for way in TORCHJD]
    for name in ("MGDA", "UPGrad", "IMTLG", "AlignedMTL", "PCGrad"):
        found += [f"torchjd: {name}, {way}" for way in TORCHJD]
    return [*found, "torchjd: ConFIG, all at once"]


def timed(steps: Steps, contender: str, repeats: int) -> float:
    """Fastest of a few steps, in seconds, after one to warm up.

    On one thread of a CPU the clock counts this thread's own time, so that whatever else the
    machine does is left out, but for the caches that it uses.
    """
    clock = time.perf_counter if steps.device == "cuda" else time.thread_time
    steps.run(contender)
    best = float("inf")
    for _ in range(repeats):
        if steps.device == "cuda":
            torch.cuda.synchronize()
        start = clock()
        steps.run(contender)
        if steps.device == "cuda":
            torch.cuda.synchronize()
        best = min(best, clock() - start)
    return best


def _resident_peak() -> float:
    """Largest resident memory of this process since the last call, in MiB; the count begins anew.

    Linux only. (`ru_maxrss` will not do: a child begins with its parent's.)
    """
    status = Path("/proc/self/status").read_text()
    Path("/proc/self/clear_refs").write_text("5")
    return int(status.partition("VmHWM:")[2].split()[0]) / 1024


def _peak(model: str, n_tasks: int, contender: str, queue) -> None:
    torch.set_num_threads(1)
    steps = Steps(model, n_tasks, "cpu")
    steps.run(contender)  # what it imports does not count
    peaks = []
    for what in ("plain", contender):
        for _ in range(2):  # the first round is to warm up
            _resident_peak()
            for _ in range(3):
                steps.run(what)
        peaks.append(_resident_peak())
    queue.put(peaks[1] - peaks[0])


def peak_memory(model: str, n_tasks: int, contender: str, device: str) -> float:
    """MiB above plain training; NaN where the system does not tell."""
    if device == "cuda":
        steps = Steps(model, n_tasks, device)
        peaks = []
        for what in ("plain", contender):
            steps.run(what)
            torch.cuda.reset_peak_memory_stats()
            steps.run(what)
            peaks.append(torch.cuda.max_memory_allocated() / 2**20)
        return peaks[1] - peaks[0]
    if not Path("/proc/self/clear_refs").exists():
        return float("nan")
    context = multiprocessing.get_context("spawn")
    queue = context.Queue()
    process = context.Process(target=_peak, args=(model, n_tasks, contender, queue))
    process.start()
    mebibytes = queue.get()
    process.join()
    return mebibytes


def solve_time(steps: Steps, contender: str) -> float:
    """Seconds that the rule needs for its coefficients, given the Gramian of this model."""
    if not contender.startswith("ours"):
        return float("nan")
    weighting = steps.weighting(contender.partition(": ")[2])
    if not hasattr(weighting, "rule"):
        return float("nan")
    gramian, seconds = steps.gramian(), []
    losses = torch.ones(steps.n_tasks, device=steps.device)
    for _ in range(7):
        start = time.perf_counter()
        weighting._combine(gramian, losses)
        seconds.append(time.perf_counter() - start)
    return median(seconds)


def measure(model: str, n_tasks: int, options: argparse.Namespace) -> pd.DataFrame:
    device, rounds, repeats = options.device, options.rounds, options.repeats
    steps = Steps(model, n_tasks, device)
    names = contenders()
    if options.only:
        names = [n for n in names if n == "plain" or n.startswith(tuple(options.only))]
    seconds: dict[str, list[float]] = {name: [] for name in names}
    ratios: dict[str, list[float]] = {name: [] for name in names}
    broken = {}
    for _ in range(rounds):
        plain = timed(steps, "plain", repeats)
        for name in names:
            if name in broken:
                continue
            try:
                taken = plain if name == "plain" else timed(steps, name, repeats)
            except Exception as error:  # a way that a library does not offer for this model
                broken[name] = f"{type(error).__name__}: {error}"[:100]
                continue
            seconds[name].append(taken)
            # plain training beside it: caches and clocks drift within a round
            beside = timed(steps, "plain", max(1, repeats // 2))
            ratios[name].append(taken / beside)
    rows = []
    for name in names:
        if name in broken:
            print(f"  {name}: {broken[name]}", flush=True)
            continue
        middle = median(seconds[name])
        share = solve_time(steps, name) / middle if name != "plain" else float("nan")
        rows.append((model, n_tasks, name, middle * 1e3, median(ratios[name]), share))
    columns = ["model", "tasks", "contender", "ms", "ratio", "solve_share"]
    return pd.DataFrame(rows, columns=columns)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--models", nargs="+", default=MODELS, choices=MODELS)
    parser.add_argument("--tasks", nargs="+", type=int, default=TASKS)
    parser.add_argument("--device", default="cpu", choices=["cpu", "cuda"])
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--only", nargs="+", help="contenders whose names begin so")
    parser.add_argument("--no-memory", action="store_true")
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    torch.set_num_threads(1)
    suffix = "" if options.device == "cpu" else f"_{options.device}"
    out = options.out or ROOT / "results" / f"step_cost{suffix}.csv"
    tables = [pd.read_csv(out)] if out.exists() else []
    for model in options.models:
        for n_tasks in options.tasks:
            table = measure(model, n_tasks, options)
            if not options.no_memory:
                shown = ["ours: mgda", "naive: mgda"]
                shown += [c for c in table.contender if c.startswith("torchjd: Mean")]
                peaks = {c: peak_memory(model, n_tasks, c, options.device) for c in shown}
                table["peak_mib"] = table.contender.map(peaks)
            # a model and number of tasks that were measured before are replaced
            tables = [t[(t.model != model) | (t.tasks != n_tasks)] for t in tables] + [table]
            pd.concat(tables).to_csv(out, index=False, float_format="%.4g")
            print(table.round(3).to_string(index=False), flush=True)
            print(summary(table), end="\n\n", flush=True)


SAME = {
    "mgda": "MGDA",
    "upgrad": "UPGrad",
    "imtl_g": "IMTLG",
    "aligned_mtl": "AlignedMTL",
    "pcgrad": "PCGrad",
}


def summary(table: pd.DataFrame) -> str:
    """The bars that this project sets itself, in a few lines."""
    ms = table.set_index("contender").ms
    ratio = table.set_index("contender").ratio
    names = {c: c.removeprefix("ours: ") for c in ratio.index}
    known = available_weightings()
    kinds = {c: weighting_class(n) if n in known else None for c, n in names.items()}
    loss = [c for c, k in kinds.items() if k is not None and issubclass(k, LossWeighting)]
    gramian = [c for c, k in kinds.items() if hasattr(k, "rule")]
    lines = []
    if loss:
        slowest = ratio[loss].drop("ours: famo", errors="ignore")
        lines.append(
            f"loss rules: median {slowest.median():.2f}, most {slowest.max():.2f} x plain "
            "(but for famo, which runs the model twice)"
        )
    shares = []
    for ours, theirs in SAME.items():
        ways = [c for c in ms.index if c.startswith(f"torchjd: {theirs},")]
        if ways and f"ours: {ours}" in ms:
            shares.append(f"{ours} {ms[f'ours: {ours}'] / ms[ways].min():.2f}")
    if shares:
        lines.append("of the time of TorchJD's fastest way to the same rule: " + ", ".join(shares))
    mean = [c for c in ms.index if c.startswith("torchjd: Mean")]
    if mean and gramian:
        share = ms[gramian] / ms[mean].min()
        lines.append(
            f"of TorchJD's fastest way to the mean: median {share.median():.2f}, "
            f"most {share.max():.2f} ({share.idxmax()[6:]})"
        )
    solve = table[table.contender.isin(gramian)].solve_share
    lines.append(f"solve: at most {100 * solve.max():.1f} % of the step")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
