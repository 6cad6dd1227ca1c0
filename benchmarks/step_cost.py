"""What one training step costs with each rule, as a ratio to plain training of the same model.

    python benchmarks/step_cost.py                 # everything, about an hour
    python benchmarks/step_cost.py --models mlp --tasks 10
    python benchmarks/step_cost.py --device cuda   # writes a file of its own

Every round runs all contenders one after another. Each takes turns with plain training, and a rule
also with its careful loop: one warm step each, then timed ones, of which the fastest counts. A
ratio is the median over the rounds, so that a busy machine disturbs both sides of it. One thread. A
step is: zero_grad, forward, losses, backward with the rule, Adam. "solve" is the time that the rule
needs for its coefficients once it has the Gramian, as a share of its step. Peak memory is that of a
process of its own above that of plain training.

"loop" is a careful loop: each loss once back through its own head and the trunk by autograd.grad,
the Jacobian put together, the rule's own coefficients, the update written. "naive" is what most
public code does: a backward pass through everything for each task. "to_loop" compares a rule with
the careful loop of the same round; with 7 rounds of 3 steps it is good to some 4 %, with
--rounds 15 --repeats 5 to some 2 %. GradNorm's loop passes the last layer alone, as its paper does.

TorchJD (a test-only dependency), where it is installed, does the same step in each way that it
offers: `mtl_backward` with all tasks at once or one after another, and its engine for Gramians; its
"engine" row takes the mean of the gradients, the cheapest there is, and counts the fastest way.
"""

from __future__ import annotations

import argparse
import copy
import ctypes
import multiprocessing
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from statistics import median

import pandas as pd
import torch

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from benchmarks.step_models import MODELS, TASKS, Work, errors, made  # noqa: E402
from mtl_utils import available_weightings, make_weighting  # noqa: E402
from mtl_utils.engine.task_gradients import last_layer_of  # noqa: E402
from mtl_utils.weighting import GradientWeighting, LossWeighting  # noqa: E402
from mtl_utils.weighting.base import weighting_class  # noqa: E402
from mtl_utils.weighting.kinds import CoordinateWeighting  # noqa: E402

TORCHJD = ("all at once", "one by one", "engine")


class Steps:
    """Training steps of one model, in every way that is compared."""

    def __init__(self, name: str, n_tasks: int, device: str) -> None:
        self.work = made(name, n_tasks, device)
        self.network, self.shared = self.work.network, self.work.shared
        own = {id(p) for p in self.shared}
        self.others = [p for p in self.network.parameters() if id(p) not in own]
        self.n_tasks, self.device = n_tasks, device
        self.optimizer = torch.optim.Adam(self.network.parameters(), lr=1e-5)
        self.rules: dict = {}
        self.engine = None

    def run(self, contender: str) -> None:
        self.optimizer.zero_grad()
        kind, _, rule = contender.partition(": ")
        getattr(self, kind)(rule)
        self.optimizer.step()

    def plain(self, rule: str) -> None:
        sum(self.work.losses()).backward()

    def ours(self, rule: str) -> None:
        weighting = self.weighting(rule)
        losses = torch.stack(self.work.losses())
        weighting.backward(losses, self.shared if weighting.needs_shared else None)
        if "losses_after_step" in weighting.observes:
            with torch.no_grad():
                after = torch.stack(self.work.losses())
            weighting.observe(losses_after_step=after)

    def forked(self, rule: str) -> None:
        outputs, features = self.work.hard.forked(self.work.batch[0])
        losses = torch.stack(errors(outputs, self.work.batch[1]))
        self.weighting(rule).backward(losses, self.shared, features)

    def loop(self, rule: str) -> None:
        """A careful loop: each loss once back through its own head and the trunk."""
        losses = self.work.losses()
        if rule == "gradnorm":
            self.loop_for_gradnorm(losses)
            return
        leaves, n_shared = [*self.shared, *self.others], len(self.shared)
        rows = [gradients_of(loss, leaves, loss is not losses[-1]) for loss in losses]
        weights = self.combine(rule, losses, [row[:n_shared] for row in rows])
        for p, *each in zip(self.others, *(row[n_shared:] for row in rows), strict=True):
            parts = [w * g for w, g in zip(weights, each, strict=True) if g is not None]
            p.grad = sum(parts[1:], parts[0]) if parts else None

    def loop_for_gradnorm(self, losses: list) -> None:
        """Norms in the last layer, one weighted pass, Adam's step on the weights."""
        last = last_layer_of(self.shared)
        rows = [self.flat(gradients_of(loss, last, True), last) for loss in losses]
        norms, values = torch.stack([row.norm() for row in rows]), torch.stack(losses)
        weighting = self.weighting("gradnorm")
        (weighting.weights_now() * values).sum().backward()
        weighting._learn(values.detach(), norms)

    def naive(self, rule: str) -> None:
        """A backward pass through everything for each task, as most public code does it: the
        gradients of the shared parameters are copied and set to zero, those of heads add up."""
        losses, found = self.work.losses(), []
        for loss in losses:
            for p in self.shared:
                p.grad = None
            loss.backward(retain_graph=True)
            found.append([None if p.grad is None else p.grad.clone() for p in self.shared])
        self.combine(rule, losses, found)

    def combine(self, rule: str, losses: list, rows: list) -> list[float]:
        """Write the rule's update of the shared parameters; the weights of the losses elsewhere."""
        jacobian = torch.stack([self.flat(row, self.shared) for row in rows])
        values = torch.stack(losses).detach()
        weighting, weights = self.weighting(rule), [1.0] * len(losses)
        if isinstance(weighting, CoordinateWeighting):
            update, _ = weighting.merge(jacobian, values)
            head_weights = weighting._head_weights(values)
            weights = weights if head_weights is None else head_weights.tolist()
        else:
            update = weighting._combine(jacobian @ jacobian.T, values) @ jacobian
        parts = update.split([p.numel() for p in self.shared])
        for p, part in zip(self.shared, parts, strict=True):
            p.grad = part.view_as(p)
        return weights

    @staticmethod
    def flat(gradients: Sequence, parameters: list) -> torch.Tensor:
        """Gradients of parameters in one vector."""
        pairs = zip(gradients, parameters, strict=True)
        return torch.cat([(torch.zeros_like(p) if g is None else g).flatten() for g, p in pairs])

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

        model, (x, y) = self.work.hard, self.work.batch
        name, _, way = rule.partition(", ")
        if way == "engine":
            if self.engine is None:  # hooks its model, so it gets one of its own
                self.hooked = copy.deepcopy(model)
                self.engine = autogram.Engine(self.hooked.trunk, batch_dim=None)
                for mine, its in zip(model.parameters(), self.hooked.parameters(), strict=True):
                    its.data = mine.data
            self.hooked.zero_grad()
            losses = torch.stack(errors(self.hooked(x), y))
            gramian = self.engine.compute_gramian(losses)
            losses.backward(getattr(aggregation, f"{name}Weighting")()(gramian))
            for mine, its in zip(model.parameters(), self.hooked.parameters(), strict=True):
                mine.grad = its.grad
            return
        features = model.trunk(x)
        losses = errors([head(features) for head in model.heads], y)
        chunk = 1 if way == "one by one" else None
        autojac.mtl_backward(losses, features=features, parallel_chunk_size=chunk)
        autojac.jac_to_grad(self.shared, getattr(aggregation, name)())

    def gramian(self) -> torch.Tensor:
        from mtl_utils.gradients import gramian

        return gramian(torch.stack(self.work.losses()), self.shared)


def gradients_of(loss: torch.Tensor, leaves: list, keep: bool) -> tuple:
    return torch.autograd.grad(loss, leaves, retain_graph=keep, allow_unused=True)


def contenders(work: Work) -> list[str]:
    """In the order in which they run: each of our rules on gradients beside the same rule in a
    careful loop."""
    names = available_weightings()
    rules = [n for n in names if issubclass(weighting_class(n), GradientWeighting)]
    found = ["plain", *(f"ours: {n}" for n in names if n not in rules)]
    for name in rules:
        found += [f"ours: {name}", f"loop: {name}"]
    found += ["naive: mgda", "ours: mgda on last_layer", "ours: mgda every 10"]
    if work.hard is None:
        return found
    found += ["ours: mgda on representation", "forked: mgda"]
    try:
        import torchjd  # noqa: F401
    except ImportError:
        print("  TorchJD is not installed: its rows are left out", flush=True)
        return found
    found += [f"torchjd: Mean, {way}" for way in TORCHJD]
    for name in ("MGDA", "UPGrad", "IMTLG", "AlignedMTL", "PCGrad"):
        found += [f"torchjd: {name}, {way}" for way in TORCHJD]
    return [*found, "torchjd: ConFIG, all at once"]


def loop_of(name: str) -> str:
    """The careful loop with the same rule; an empty string where there can be none."""
    kind, _, rule = name.partition(": ")
    return f"loop: {rule}" if kind == "ours" else ""


def side_by_side(names: Sequence[str]) -> list[list[str]]:
    """Who takes turns: plain training and one other, and if this is a rule also its loop."""
    loops = {loop_of(name) for name in names}
    others = [name for name in names if name != "plain" and name not in loops]
    return [["plain", n, *({loop_of(n)} & set(names))] for n in others]


def timed(steps: Steps, names: Sequence[str], repeats: int) -> dict[str, float]:
    """Fastest of a few steps of each, in seconds, after one to warm up; they take turns.

    On one thread of a CPU the clock counts this thread's own time, so that whatever else the
    machine does is left out, but for the caches that it uses.
    """
    clock = time.perf_counter if steps.device == "cuda" else time.thread_time
    best = dict.fromkeys(names, float("inf"))
    for name in names:
        steps.run(name)
    for _ in range(repeats):
        for name in names:
            if steps.device == "cuda":
                torch.cuda.synchronize()
            start = clock()
            steps.run(name)
            if steps.device == "cuda":
                torch.cuda.synchronize()
            best[name] = min(best[name], clock() - start)
    return best


def keep_memory() -> None:
    """Let the allocator of a Linux process keep what it has. Else a step now and then hands tens of
    MiB back and fetches them again, page by page: up to a tenth of its time, by chance of sizes."""
    if sys.platform == "linux":
        library, (trim, mmap) = ctypes.CDLL(None), (-1, -3)  # numbers of malloc.h
        if hasattr(library, "mallopt"):
            library.mallopt(trim, 2**31 - 1)
            library.mallopt(mmap, 2**30)


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
    names = contenders(steps.work)
    if options.only:
        names = [n for n in names if n == "plain" or n.startswith(tuple(options.only))]
    seconds: dict[str, list[float]] = {name: [] for name in names}
    ratios: dict[str, list[float]] = {name: [] for name in names}
    broken = {}
    for _ in range(rounds):
        for group in side_by_side(names):
            if group[1] in broken:
                continue
            try:
                taken = timed(steps, group, repeats)
            except Exception as error:  # a way that a library does not offer for this model
                broken[group[1]] = f"{type(error).__name__}: {error}"[:100]
                continue
            for name, best in taken.items():
                seconds[name].append(best)
                ratios[name].append(best / taken["plain"])
    rows = []
    for name in names:
        if name in broken:
            print(f"  {name}: {broken[name]}", flush=True)
            continue
        middle = median(seconds[name])
        share = solve_time(steps, name) / middle if name != "plain" else float("nan")
        to_loop, loop = float("nan"), seconds.get(loop_of(name))
        if loop:
            to_loop = median(a / b for a, b in zip(seconds[name], loop, strict=True))
        rows.append((model, n_tasks, name, middle * 1e3, median(ratios[name]), to_loop, share))
    columns = ["model", "tasks", "contender", "ms", "ratio", "to_loop", "solve_share"]
    return pd.DataFrame(rows, columns=columns)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--models", nargs="+", default=list(MODELS), choices=list(MODELS))
    parser.add_argument("--tasks", nargs="+", type=int, help="by default as in step_models.py")
    parser.add_argument("--device", default="cpu", choices=["cpu", "cuda"])
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--only", nargs="+", help="contenders whose names begin so")
    parser.add_argument("--no-memory", action="store_true")
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    torch.set_num_threads(1)
    keep_memory()
    suffix = "" if options.device == "cpu" else f"_{options.device}"
    out = options.out or ROOT / "results" / f"step_cost{suffix}.csv"
    tables = [pd.read_csv(out)] if out.exists() else []
    for model in options.models:
        for n_tasks in options.tasks or TASKS[model]:
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
    to_loop = table.set_index("contender").to_loop.dropna()
    if len(to_loop):
        lines.append(
            f"of the careful loop with the same rule: median {to_loop.median():.2f}, "
            f"most {to_loop.max():.2f} ({to_loop.idxmax()[6:]})"
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
