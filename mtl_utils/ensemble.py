"""Many trainings at once: the same small network M times over, in one vectorised run.

The M members share nothing. They may differ in initial weights, data, order of the rows, learning
rate, weight decay, and in their weighting rule. Their parameters are stacked and `torch.func` runs
the networks side by side; the rules stay outside as M ordinary objects (`ensemble_rules`). Each
member ends where a training loop of its own would have taken it.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call, stack_module_state, vmap
from torch.nn.modules.batchnorm import _BatchNorm
from tqdm.auto import tqdm

from mtl_utils.datasets.base import check_count
from mtl_utils.ensemble_optim import SCHEDULES
from mtl_utils.ensemble_rules import Rules
from mtl_utils.weighting import Weighting

GIVEN_BY_THE_LOOP = {"train_losses", "losses_after_step"}
ALL = slice(None)
Make = Callable[[], tuple[nn.Module, Weighting]]


@dataclass
class Ensemble:
    """M trained members.

    Attributes:
        parameters: name -> stacked parameter, [M, ...]; "model.<name>" and "weighting.<name>".
        losses: mean task losses of each epoch, [epochs, M, K]; inf from where a member failed.
        history: name -> a recorded parameter after each epoch, [epochs, M, ...]; "weights" and what
            `observe` returned, such as "kpis": means over the steps of each epoch, [epochs, M, K].
        predict: function of (inputs [N, ...] or [M, N, ...]) that returns the K outputs of all
            members, each [M, N, ...].
        epochs: after how many epochs the members were evaluated, [E].
        curves: name of a split -> the metric there, [E, M, K]; inf where it is not finite or the
            member had failed.
        failures: member -> why its rule gave up.
    """

    parameters: dict[str, Tensor]
    losses: Tensor
    history: dict[str, Tensor]
    predict: Callable[[Tensor], Sequence[Tensor]]
    epochs: list[int] = field(default_factory=list)
    curves: dict[str, Tensor] = field(default_factory=dict)
    failures: dict[int, str] = field(default_factory=dict)


def train_many(
    make: Make | Sequence[Make],
    losses: Callable[..., Tensor],
    tensors: Sequence[Tensor],
    seeds: Sequence[int],
    epochs: int,
    batch_size: int,
    optimizer: Callable[[dict[str, Tensor]], torch.optim.Optimizer],
    *,
    generator: torch.Generator | None = None,
    order_seeds: Sequence[int] | None = None,
    own_data: bool | Sequence[int] = False,
    observe: Callable[..., dict[str, Tensor]] | None = None,
    record: Sequence[str] = (),
    schedule: str = "constant",
    metric: Callable[..., Tensor] | None = None,
    splits: Mapping[str, Sequence[Tensor]] | None = None,
    evaluate_at: Sequence[int] | None = None,
    shared: Callable[[str], bool] | None = None,
    device: torch.device | str = "cpu",
    progress: bool = True,
) -> Ensemble:
    """Train M members side by side.

    Args:
        make: returns a fresh model and a weighting, any of `make_weighting` or a class of your own;
            one function for all members, or one for each. Called after `torch.manual_seed`. The
            models of all members have the same architecture.
        losses: function of (model, *batch) that returns the K task losses, [K]. It is called once a
            step, for all members at once, and consists of tensor operations.
        tensors: inputs and targets, each [N, ...], or [D, N, ...] with `own_data`.
        seeds: one for each of the M members.
        epochs, batch_size: as in `mtl_utils.training.train`.
        optimizer: from the stacked parameters by name to an optimiser that works entry by entry:
            one of torch.optim, or `many_optimizer` where each member has rates of its own.
        generator: draws a new order of the rows each epoch, one for each member; without it and
            without `order_seeds` the rows keep their order.
        order_seeds: instead, a seed for each member: members with the same one see the rows in the
            same order, whatever else trains beside them.
        own_data: members have rows of their own, D = M; or for each member which of the D it has.
        observe: function of (model, *batch) as in `mtl_utils.training.train`, for rules that
            observe something else than training losses; called before each step without gradients,
            for one member at a time, so that it has to consist of tensor operations.
        record: names of parameters to keep after each epoch, such as "weighting.log_vars".
        schedule: of all learning rates over the steps: "constant", or "linear" or "cosine" to 0.
        metric: function of (model, *rows) that returns a number for each task, [K], of tensor
            operations; evaluated on all `splits`.
        splits: name -> tensors as `tensors` (validation rows, test rows).
        evaluate_at: after which epochs, increasing; 0 is before the first. Default: after each.
        shared: which parameters of the model, by name, are those of the trunk; default: those whose
            name begins with "trunk.". Rules that read gradients need some.
        device: where to train.
        progress: show a progress bar.

    A rule that refuses to go on, as rules do where losses are no longer finite, ends its own
    member only. In the first step it raises: that is no divergence.
    """
    check_count("epochs", epochs)
    check_count("batch_size", batch_size)
    models, weightings = _members(make, seeds)
    rules = Rules(weightings, device)
    if (wanted := rules.observes - GIVEN_BY_THE_LOOP) and observe is None:
        name = next(rule.name for rule in weightings if wanted & set(rule.observes))
        raise ValueError(f"observe: {name} needs it, to return {' and '.join(sorted(wanted))}")
    rows = _Rows(tensors, len(models), own_data, device)
    network = _Network(models, device, shared)
    parameters = network.parameters | rules.parameters
    if unknown := set(record) - set(parameters):
        raise ValueError(f"record: no parameter {unknown.pop()!r}; there are {sorted(parameters)}")
    if rules.reads != "losses" and not network.trunk:
        raise ValueError("shared: there is no trunk; say by name which parameters are shared")
    if schedule not in SCHEDULES:
        raise ValueError(f"schedule: expected one of {', '.join(SCHEDULES)}, got {schedule!r}")
    evaluation = _Evaluation(network, rows, metric, splits, evaluate_at, epochs)
    optim = optimizer(parameters)
    base_rates = [group["lr"] for group in optim.param_groups]
    n_steps = math.ceil(rows.count / batch_size)
    orders = _orders(rows.count, len(models), generator, order_seeds)

    all_losses: list[Tensor] = []
    history: dict[str, list[Tensor]] = defaultdict(list)
    evaluation.after(0, rules)
    for epoch in tqdm(range(epochs), disable=not progress, leave=False):
        order = orders().to(device)
        total: Any = 0.0
        means: dict[str, Any] = defaultdict(float)
        for step in range(n_steps):
            batch = rows.batch(order, step * batch_size, batch_size)
            if observe is not None:
                seen = network.evaluate(observe, *batch)
                rules.observe(seen)
                for key, values in seen.items():
                    means[key] = means[key] + values / n_steps
            share = (epoch * n_steps + step) / (epochs * n_steps)
            if schedule != "constant":  # else the optimiser may have a schedule of its own
                for group, rate in zip(optim.param_groups, base_rates, strict=True):
                    group["lr"] = rate * SCHEDULES[schedule](share)
            found, weights = network.fill(losses, batch, rules)
            optim.step()
            if "losses_after_step" in rules.observes:
                rules.observe({"losses_after_step": network.evaluate(losses, *batch)})
            total = total + found * batch[0].shape[1]
            means["weights"] = means["weights"] + weights / n_steps
        all_losses.append(_inf(total / rows.count, rules))
        rules.observe({"train_losses": all_losses[-1]})
        for key, values in means.items():
            history[key].append(values)
        for name in record:
            history[name].append(parameters[name].detach().clone())
        evaluation.after(epoch + 1, rules)

    return Ensemble(
        {name: value.detach() for name, value in parameters.items()},
        torch.stack(all_losses),
        {name: torch.stack(values) for name, values in history.items()},
        lambda inputs: network.predict(inputs, rows.dims),
        evaluation.epochs,
        {name: torch.stack(values) for name, values in evaluation.curves.items()},
        rules.failures,
    )


def early_stopping(
    val: Tensor, *others: Tensor, per_task: bool = False
) -> tuple[Tensor, list[Tensor]]:
    """Values where the validation metric (lower is better) is best.

    Args:
        val: validation metric, [E, M, K].
        others: further curves, such as the test metric, [E, M, K].
        per_task: choose for each task by itself (networks that share nothing), not by the mean.

    Returns:
        index of the evaluation chosen, [M, K], and the values of each curve there, [M, K]
        (first those of `val` itself).

    >>> index, (best, test) = early_stopping(torch.tensor([[[3.0]], [[1.0]], [[2.0]]]),
    ...                                      torch.tensor([[[3.5]], [[1.5]], [[2.5]]]))
    >>> index.item(), best.item(), test.item()
    (1, 1.0, 1.5)
    """
    judged = val if per_task else val.mean(-1, keepdim=True).expand_as(val)
    index = judged.nan_to_num(math.inf, math.inf).argmin(0)
    return index, [curve.gather(0, index[None])[0] for curve in (val, *others)]


def _members(make: Make | Sequence[Make], seeds: Sequence[int]) -> tuple[list, list[Weighting]]:
    if len(seeds) == 0:
        raise ValueError("seeds: expected at least one, got none")
    makes = [make] * len(seeds) if callable(make) else list(make)
    if len(makes) != len(seeds):
        raise ValueError(f"make: expected one for each of {len(seeds)} seeds, got {len(makes)}")
    models, weightings = [], []
    for seed, make_one in zip(seeds, makes, strict=True):
        torch.manual_seed(seed)
        model, weighting = make_one()
        models.append(model)
        weightings.append(weighting)
    if any(isinstance(module, _BatchNorm) for module in models[0].modules()):
        raise ValueError("make: batch normalisation keeps statistics, which members cannot")
    return models, weightings


class _Rows:
    """The rows of all members: D data sets, and which of them each member has."""

    def __init__(
        self,
        tensors: Sequence[Tensor],
        n_members: int,
        own_data: bool | Sequence[int],
        device: torch.device | str,
    ) -> None:
        self.own, self.device = own_data is not False, device
        if isinstance(own_data, bool):
            set_of = list(range(n_members)) if own_data else [0] * n_members
        else:
            set_of = [int(which) for which in own_data]
            if len(set_of) != n_members:
                raise ValueError(f"own_data: expected one for each of {n_members} members")
        n_sets = max(set_of) + 1
        wrong = [t for t in tensors if len(t) < n_sets or (own_data is True and len(t) > n_sets)]
        if self.own and wrong:
            raise ValueError(f"tensors: with own_data expected [{n_sets}, N, ...] each")
        self.of_member = torch.tensor(set_of, device=device)
        self.tensors = self.stacked(tensors)
        self.count, self.dims = self.tensors[0].shape[1], self.tensors[0].dim()

    def stacked(self, tensors: Sequence[Tensor]) -> list[Tensor]:
        """Each [D, N, ...] on the device."""
        moved = [t.to(self.device) for t in tensors]
        return moved if self.own else [t[None] for t in moved]

    def batch(self, order: Tensor, first: int, size: int) -> list[Tensor]:
        """Rows of every member, each tensor [M, B, ...]."""
        index = order[:, first : first + size]
        return [t[self.of_member[:, None], index] for t in self.tensors]


def _orders(
    n_rows: int,
    n_members: int,
    generator: torch.Generator | None,
    order_seeds: Sequence[int] | None,
) -> Callable[[], Tensor]:
    """A function that returns the order of the rows in the next epoch, [M, N]."""
    if order_seeds is not None:
        if len(order_seeds) != n_members:
            raise ValueError(f"order_seeds: expected one for each of {n_members} members")
        own = {seed: torch.Generator().manual_seed(seed) for seed in order_seeds}
        which = torch.tensor([list(own).index(seed) for seed in order_seeds])

        def by_seed() -> Tensor:
            drawn = [torch.randperm(n_rows, generator=g) for g in own.values()]
            return torch.stack(drawn)[which]

        return by_seed
    if generator is not None:
        return lambda: torch.rand(n_members, n_rows, generator=generator).argsort(1)
    return lambda: torch.arange(n_rows).expand(n_members, n_rows)


class _Call(nn.Module):
    """A function of (model, *rows) as a module, which `functional_call` can call."""

    def __init__(self, model: nn.Module, function: Callable[..., Any]) -> None:
        super().__init__()
        self.model = model
        self.function = function

    def forward(self, *rows: Tensor) -> Any:
        return self.function(self.model, *rows)


class _CallAndWatch(_Call):
    """The same, and the representation: what the model's `trunk` returned."""

    def forward(self, *rows: Tensor) -> Any:
        seen: list[Tensor] = []
        trunk = self.model.get_submodule("trunk")
        hook = trunk.register_forward_hook(lambda module, inputs, z: seen.append(z))
        try:
            return self.function(self.model, *rows), seen[0]
        finally:
            hook.remove()


class _Network:
    """M networks with stacked parameters."""

    def __init__(
        self,
        models: Sequence[nn.Module],
        device: torch.device | str,
        shared: Callable[[str], bool] | None,
    ) -> None:
        self.device, self.n_members = device, len(models)
        state, buffers = stack_module_state(list(models))
        self.parameters = {f"model.{n}": v.detach().to(device) for n, v in state.items()}
        for value in self.parameters.values():
            value.requires_grad_()
        self.buffers = {f"model.{n}": value.to(device) for n, value in buffers.items()}
        self.template = models[0].to("meta")
        is_shared = shared or (lambda name: name.startswith("trunk."))
        self.trunk = [p for n, p in self.parameters.items() if is_shared(n.removeprefix("model."))]
        trunk_ids = {id(p) for p in self.trunk}
        self.rest = [p for p in self.parameters.values() if id(p) not in trunk_ids]

    def run(
        self,
        function: Callable[..., Any],
        *rows: Tensor,
        members: slice = ALL,
        call: type[_Call] = _Call,
    ) -> Any:
        """A function of (model, *rows) for every member, or some; rows [members, N, ...]."""
        module = call(self.template, function)
        side_by_side = vmap(lambda p, b, *own: functional_call(module, (p, b), own))
        parameters, buffers = self.parameters, self.buffers
        if members != ALL:
            parameters = {name: p[members] for name, p in parameters.items()}
            buffers = {name: b[members] for name, b in buffers.items()}
        return side_by_side(parameters, buffers, *rows)

    @torch.no_grad()
    def evaluate(self, function: Callable[..., Any], *rows: Tensor, members: slice = ALL) -> Any:
        """The same without gradients."""
        return self.run(function, *rows, members=members)

    def predict(self, inputs: Tensor, dims: int) -> Any:
        inputs = inputs.to(self.device)
        if inputs.dim() == dims - 1:  # [N, ...], the same for all members
            inputs = inputs.expand(self.n_members, *inputs.shape)
        return self.evaluate(lambda model, x: model(x), inputs)

    def fill(
        self, function: Callable[..., Tensor], batch: Sequence[Tensor], rules: Rules
    ) -> tuple[Tensor, Tensor]:
        """Fill `.grad` of all parameters as the rules' `backward` would.

        Returns:
            losses and weights, [M, K] each, detached.
        """
        representation = None
        if rules.representation:
            losses, representation = self.run(function, *batch, call=_CallAndWatch)
        else:
            losses = self.run(function, *batch)  # [M, K]
        values = losses.detach()
        if rules.reads == "gradients":
            return values, self._fill_by_task(losses, rules, representation)
        if rules.reads == "last layer":
            last = _last_layer(self.trunk)
            jacobian, _ = _task_gradients(losses, last, [])
            _, weights, _ = rules.combine(values, jacobian, [p.shape[1:] for p in last])
        else:
            weights = rules.weigh(values)
        parameters = list(self.parameters.values())
        gradients = torch.autograd.grad(losses, parameters, weights, allow_unused=True)
        for parameter, gradient in zip(parameters, gradients, strict=True):
            # fused optimisers step wrongly, without a word, on gradients of another layout
            parameter.grad = None if gradient is None else gradient.contiguous()
        return values, weights

    def _fill_by_task(self, losses: Tensor, rules: Rules, representation: Tensor | None) -> Tensor:
        at_z = None
        if representation is not None:
            at_z, _ = _task_gradients(losses, [representation], [])
        jacobian, by_task = _task_gradients(losses, self.trunk, self.rest)
        shapes = [p.shape[1:] for p in self.trunk]
        updates, heads, weights = rules.combine(losses.detach(), jacobian, shapes, at_z)
        sizes = [math.prod(shape) for shape in shapes]
        for parameter, part in zip(self.trunk, updates.split(sizes, 1), strict=True):
            parameter.grad = part.reshape(parameter.shape).contiguous()
        for parameter, gradients in zip(self.rest, by_task, strict=True):
            parameter.grad = None
            for k, gradient in enumerate(gradients):
                if gradient is not None:
                    factor = heads[:, k].reshape(-1, *[1] * (gradient.dim() - 1))
                    weighted = (factor * gradient).contiguous()
                    parameter.grad = (
                        weighted if parameter.grad is None else parameter.grad + weighted
                    )
        return weights


def _task_gradients(
    losses: Tensor, trunk: Sequence[Tensor], rest: Sequence[Tensor]
) -> tuple[Tensor, list[list[Tensor | None]]]:
    """Gradients of each of the K losses: in the trunk, [M, K, P]; in each tensor of the rest."""
    rows, others = [], []
    for k in range(losses.shape[1]):
        found = torch.autograd.grad(
            losses[:, k].sum(), [*trunk, *rest], retain_graph=True, allow_unused=True
        )
        in_trunk = [
            torch.zeros_like(p) if gradient is None else gradient
            for p, gradient in zip(trunk, found, strict=False)
        ]
        rows.append(torch.cat([gradient.flatten(1) for gradient in in_trunk], 1))
        others.append(found[len(trunk) :])
    return torch.stack(rows, 1), [list(gradients) for gradients in zip(*others, strict=True)]


def _last_layer(trunk: Sequence[Tensor]) -> list[Tensor]:
    """The last stacked tensor of two or more dimensions a member, and what follows it."""
    matrices = [i for i, p in enumerate(trunk) if p.dim() >= 3]
    return list(trunk[matrices[-1] :] if matrices else trunk[-1:])


class _Evaluation:
    """The metric on every split after the chosen epochs."""

    CHUNK = 64  # members at once: bounds the memory, as all their rows are copied

    def __init__(
        self,
        network: _Network,
        rows: _Rows,
        metric: Callable[..., Tensor] | None,
        splits: Mapping[str, Sequence[Tensor]] | None,
        evaluate_at: Sequence[int] | None,
        epochs: int,
    ) -> None:
        if (metric is None) != (not splits):
            raise ValueError("metric, splits: expected both or neither")
        self.network, self.metric, self.of_member = network, metric, rows.of_member
        self.splits = {name: rows.stacked(t) for name, t in (splits or {}).items()}
        wanted = range(1, epochs + 1) if evaluate_at is None else evaluate_at
        self.epochs = list(wanted) if metric is not None else []
        if sorted(set(self.epochs)) != self.epochs or any(
            not 0 <= epoch <= epochs for epoch in self.epochs
        ):
            raise ValueError(f"evaluate_at: expected increasing epochs in 0 to {epochs}")
        self.curves: dict[str, list[Tensor]] = {name: [] for name in self.splits}

    def after(self, epoch: int, rules: Rules) -> None:
        """Evaluate, if this epoch is one of the chosen."""
        if epoch not in self.epochs or self.metric is None:
            return
        for name, tensors in self.splits.items():
            found = []
            for first in range(0, self.network.n_members, self.CHUNK):
                members = slice(first, first + self.CHUNK)
                mine = [t[self.of_member[members]] for t in tensors]
                found.append(self.network.evaluate(self.metric, *mine, members=members))
            self.curves[name].append(_inf(torch.cat(found), rules))


def _inf(values: Tensor, rules: Rules) -> Tensor:
    """Values [M, K] with inf where they are not finite, and for members that failed."""
    lost = ~torch.isfinite(values) | rules.failed.to(values.device)[:, None]
    return values.masked_fill(lost, math.inf)
