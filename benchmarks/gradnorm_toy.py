"""The toy of the GradNorm paper with 2 and with 10 tasks, for notebook 08.

python -m benchmarks.gradnorm_toy    writes results/08_gradnorm_toy.csv (about 10 minutes)

y_i = sigma_i tanh((B + E_i) x), x in R^250, y in R^100; a trunk of four ReLU layers of 100 units, a
linear head for each task. Left open by the paper, and chosen here: the distribution of x, fresh
batches of 100, 500 or 1000 steps of Adam. A seed draws the functions, the inputs, the test points
and the initial weights. Learning rates are picked for each setting and rule on two seeds that are
not in the record. All rules of a seed run side by side on the same batches. A record that is there
is completed.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import Tensor, nn

from benchmarks.record import Record
from mtl_utils.models import HardSharing, mlp

FILE = Path(__file__).resolve().parents[1] / "results" / "08_gradnorm_toy.csv"
INPUTS, OUTPUTS, WIDTH, BATCH, TEST = 250, 100, 100, 100, 1000
RATES, TUNING_SEEDS = (1e-3, 3e-3, 1e-2), (100, 101)
CHECKPOINTS = (50, 100, 200, 300, 500, 700, 1000)
SIGMA = {2: (1.0, 100.0), 10: (48.0, 3.0, 54.0, 16.0, 9.0, 30.0, 52.0, 26.0, 47.0, 81.0)}
RULES = {
    "equal": {},
    "uncertainty": {},
    "gradnorm": {"alpha": 0.12},
    "gradnorm, alpha 1.5": {"alpha": 1.5},
    "fixed, 1/sigma": {"power": 1},
    "fixed, 1/sigma^2": {"power": 2},
    "standardised targets": {},
}
ALONE = {"alone, task 1": {"only": 0}, "alone, task 2": {"only": 1}}


class Toy:
    """The functions of one seed.

    Args:
        seed: of everything.
        sigma: scale of each task.
        inputs: "sphere" (length 1), "normal", or "cube" (uniform in [0, 1]).
        spread: "std" if the 10 and 3.5 of N(0, 10) and N(0, 3.5) are standard deviations, or
            "variance".
    """

    def __init__(
        self, seed: int, sigma: tuple[float, ...], inputs: str = "sphere", spread: str = "std"
    ) -> None:
        self.seed, self.sigma, self.inputs = seed, torch.tensor(sigma), inputs
        power = 1.0 if spread == "std" else 0.5
        generator = self.generator(0)
        common = 10**power * torch.randn(OUTPUTS, INPUTS, generator=generator)
        own = 3.5**power * torch.randn(len(sigma), OUTPUTS, INPUTS, generator=generator)
        self.maps = (common + own).transpose(1, 2)  # [K, in, out]

    def generator(self, stream: int) -> torch.Generator:
        return torch.Generator().manual_seed(10_000 * stream + self.seed)

    def draw(self, n: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """Inputs [n, in] and targets [K, n, out]."""
        if self.inputs == "cube":
            x = torch.rand(n, INPUTS, generator=generator)
        else:
            x = torch.randn(n, INPUTS, generator=generator)
        if self.inputs == "sphere":
            x = x / x.norm(dim=1, keepdim=True)
        return x, self.sigma[:, None, None] * torch.tanh(x @ self.maps)

    def model(self) -> HardSharing:
        torch.manual_seed(self.seed)
        trunk = mlp(INPUTS, WIDTH, WIDTH, WIDTH, WIDTH, last=True)
        return HardSharing(trunk, [nn.Linear(WIDTH, OUTPUTS) for _ in self.sigma])


class Adam:
    """Adam's moments of one stacked tensor, first axis the members."""

    def __init__(self, like: Tensor) -> None:
        self.first, self.second, self.steps = torch.zeros_like(like), torch.zeros_like(like), 0

    def step(self, gradient: Tensor, rate: Tensor | float) -> Tensor:
        """What to take off the parameter."""
        self.steps += 1
        self.first.lerp_(gradient, 0.1)
        self.second.lerp_(gradient**2, 0.001)
        spread = (self.second / (1 - 0.999**self.steps)).sqrt() + 1e-8
        return rate * self.first / (1 - 0.9**self.steps) / spread


def stack(model: HardSharing, members: int) -> list[Tensor]:
    """Weights and biases of four layers and of the heads (these [M, K, ...]), alike for all M."""
    layers = [layer for layer in model.trunk if isinstance(layer, nn.Linear)]
    parameters = [p for layer in layers for p in (layer.weight.T, layer.bias[None])]
    parameters.append(torch.stack([head.weight.T for head in model.heads]))
    parameters.append(torch.stack([head.bias[None] for head in model.heads]))
    return [p.detach().expand(members, *p.shape).clone().requires_grad_() for p in parameters]


def forward(parameters: list[Tensor], x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Outputs [M, K, B, out], output and input of the last shared layer [M, B, width]."""
    before = after = x.expand(len(parameters[0]), *x.shape)
    for weight, bias in zip(parameters[0:8:2], parameters[1:8:2], strict=True):
        before = after
        after = torch.relu(torch.baddbmm(bias, before, weight))
    return after[:, None] @ parameters[8] + parameters[9], after, before


def last_layer_norms(errors: Tensor, heads: Tensor, after: Tensor, before: Tensor) -> Tensor:
    """Norm of each task's gradient in the last shared layer, weight and bias, in closed form.

    Args:
        errors: outputs minus targets, [G, K, B, out].
        heads: [G, K, width, out].
        after, before: output and input of the layer, [G, B, width].
    """
    at_output = 2 / errors[0, 0].numel() * errors @ heads.transpose(-1, -2)
    at_output = at_output * (after > 0)[:, None]
    in_weight = before[:, None].transpose(-1, -2) @ at_output
    return (in_weight.square().sum((2, 3)) + at_output.sum(2).square().sum(2)).sqrt()


def train(
    toy: Toy, rules: list[tuple[dict, str, float]], steps: int
) -> dict[int, tuple[Tensor, Tensor]]:
    """Train M members on the same batches, from the same initial weights.

    Args:
        toy: the functions.
        rules: options, name and learning rate of each member.
        steps: how many.

    Returns:
        checkpoint -> normalised test losses L(t) / L(0) and weights, [M, K] each.
    """
    options, names, rates = zip(*rules, strict=True)
    n_members, n_tasks = len(rules), len(toy.sigma)
    parameters = stack(toy.model(), n_members)
    optimizers = [Adam(p) for p in parameters]
    rate = torch.tensor(rates)
    w, unit = torch.ones(n_members, n_tasks), torch.ones(n_members, n_tasks)
    for m, (option, name) in enumerate(zip(options, names, strict=True)):
        if "power" in option:
            w[m] = toy.sigma ** -option["power"]
            w[m] *= n_tasks / w[m].sum()
        if "only" in option:
            w[m] = torch.eye(n_tasks)[option["only"]]
        if name.startswith("standardised"):
            unit[m] = toy.sigma
    uw = [m for m, name in enumerate(names) if name == "uncertainty"]
    gn = [m for m, option in enumerate(options) if "alpha" in option]
    alpha = torch.tensor([options[m]["alpha"] for m in gn])[:, None]
    log_vars = torch.zeros(len(uw), n_tasks)
    adam_uw, adam_gn = Adam(log_vars), Adam(w[gn])

    def losses(x: Tensor, y: Tensor):
        outputs, after, before = forward(parameters, x)
        errors = outputs - y / unit[:, :, None, None]
        return errors.square().mean((2, 3)), errors, after, before

    test = toy.draw(TEST, toy.generator(1))
    with torch.no_grad():
        test_start = losses(*test)[0]
    stream = toy.generator(2)
    record = {}
    for step in range(1, steps + 1):
        w[uw] = torch.exp(-log_vars) / 2
        L, errors, after, before = losses(*toy.draw(BATCH, stream))
        gradients = torch.autograd.grad((w * L).sum(), parameters)
        with torch.no_grad():
            log_vars -= adam_uw.step(0.5 - torch.exp(-log_vars) * L[uw] / 2, 0.03)
            if step == 1:
                start = L[gn].clone()
            norms = last_layer_norms(errors[gn], parameters[8][gn], after[gn], before[gn])
            weighted, progress = w[gn] * norms, L[gn] / start
            target = weighted.mean(1, True) * (progress / progress.mean(1, True)) ** alpha
            moved = w[gn] - adam_gn.step(torch.sign(weighted - target) * norms, 0.025)
            moved = moved.clamp_min(1e-4)
            used = w.clone()
            w[gn] = n_tasks * moved / moved.sum(1, True)
            for p, gradient, optimizer in zip(parameters, gradients, optimizers, strict=True):
                p -= optimizer.step(gradient, rate.view(-1, *[1] * (p.dim() - 1)))
            if step in CHECKPOINTS:
                record[step] = losses(*test)[0] / test_start, used
    return record


def pick_rates(setting: Setting) -> dict[str, float]:
    """For each rule the rate with the lowest mean normalised test loss on the tuning seeds."""
    members = [(option, name, r) for name, option in setting.rules.items() for r in RATES]
    total = torch.zeros(len(members))
    for seed in TUNING_SEEDS:
        found = train(setting.toy(seed), members, setting.steps)[setting.steps][0]
        for m, (option, _, _) in enumerate(members):
            total[m] += found[m, option["only"]] if "only" in option else found[m].mean()
    best = total.nan_to_num(torch.inf).view(-1, len(RATES)).argmin(1)
    return {name: RATES[b] for name, b in zip(setting.rules, best, strict=True)}


@dataclass(frozen=True)
class Setting:
    """One comparison: rules on a toy with these options, over seeds 0, 1, ..."""

    n_tasks: int
    rules: dict[str, dict]
    seeds: int
    steps: int
    options: dict[str, str] = field(default_factory=dict)

    def toy(self, seed: int) -> Toy:
        return Toy(seed, SIGMA[self.n_tasks], **self.options)


FEW = ("equal", "uncertainty", "gradnorm", "fixed, 1/sigma^2", "standardised targets")
SHORT = {name: RULES[name] for name in FEW}
TEN = {name: option for name, option in RULES.items() if name != "gradnorm, alpha 1.5"}
SETTINGS = {
    "2 tasks": Setting(2, RULES | ALONE, 10, 1000),
    "10 tasks": Setting(10, TEN, 10, 500),
    "2 tasks, x normal": Setting(2, SHORT, 5, 500, {"inputs": "normal"}),
    "2 tasks, x in [0, 1]": Setting(2, SHORT, 5, 500, {"inputs": "cube"}),
    "2 tasks, variance": Setting(2, SHORT, 5, 500, {"spread": "variance"}),
}


def main() -> None:
    torch.set_default_dtype(torch.float32)
    torch.set_num_threads(1)
    columns = ["setting", "rule", "rate", "seed", "step", "losses", "weights"]
    record = Record(FILE, columns, key=("setting", "seed"))
    for name, setting in SETTINGS.items():
        rates = {r["rule"]: float(r["rate"]) for r in record.rows if r["setting"] == name}
        rates = rates or pick_rates(setting)
        members = [(option, rule, rates[rule]) for rule, option in setting.rules.items()]
        for seed in range(setting.seeds):
            if (name, seed) in record:
                continue
            found = train(setting.toy(seed), members, setting.steps)
            lines = []
            for m, (_, rule, rate) in enumerate(members):
                for step, (losses, weights) in found.items():
                    numbers = [" ".join(f"{v:.4g}" for v in t[m]) for t in (losses, weights)]
                    lines.append([name, rule, rate, seed, step, *numbers])
            record.add(lines)


if __name__ == "__main__":
    main()
