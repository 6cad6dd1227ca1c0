"""One readable training loop; its history is a pandas frame, its checkpoint resumes exactly."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from torch import Tensor, nn
from torch.utils.data import (
    BatchSampler,
    DataLoader,
    RandomSampler,
    SequentialSampler,
    TensorDataset,
)
from tqdm.auto import tqdm

from mtl_utils.weighting import Weighting
from mtl_utils.weighting.present import check_present

Losses = Callable[..., Tensor | tuple[Tensor, Sequence[Tensor]]]


def batches(
    tensors: Sequence[Tensor],
    batch_size: int,
    generator: torch.Generator | None = None,
    drop_last: bool = False,
) -> DataLoader:
    """A loader that slices whole batches out of tensors in memory.

    Args:
        tensors: inputs and targets, each [N, ...].
        batch_size: at most this many rows a batch.
        generator: shuffles the rows anew each epoch; None keeps their order.
        drop_last: leave out the last batch where it is smaller.
    """
    dataset = TensorDataset(*tensors)
    if generator is None:
        rows: Any = SequentialSampler(dataset)
    else:
        rows = RandomSampler(dataset, generator=generator)
    sampler = BatchSampler(rows, batch_size, drop_last)
    return DataLoader(dataset, sampler=sampler, batch_size=None, generator=generator)


def train(
    model: nn.Module,
    losses: Losses,
    loader: DataLoader,
    weighting: Weighting,
    optimizer: torch.optim.Optimizer,
    epochs: int,
    *,
    tasks: Sequence[str] | None = None,
    shared: Sequence[Tensor] | None = None,
    present: Callable[..., Tensor | Sequence[bool]] | None = None,
    observe: Callable[..., dict[str, Tensor | Sequence[float]]] | None = None,
    evaluate: Callable[[nn.Module], dict[str, Sequence[float]]] | None = None,
    scheduler: Any = None,
    checkpoint: str | Path | None = None,
    progress: bool = True,
) -> pd.DataFrame:
    """Train a multi-task model.

    Args:
        model: the network, left in training mode.
        losses: function of (model, *batch) that returns the K task losses, [K], or these and the
            forked features. A batch that is a mapping, as some data sets give, is handed over as it
            is: losses(model, batch).
        loader: yields batches; see `batches`. Their rows are counted by the first entry.
        weighting: a rule from `make_weighting`. Where several of its calls make a step
            (`accumulate` of `Weighting.use`), the optimiser steps once for these, and those left
            over at the end of an epoch are dropped.
        optimizer: holds the parameters of the model and of the weighting.
        epochs: number of passes over the data, counted from the first, also when resuming.
        tasks: names of the tasks for the history; default "task 0", "task 1", ...
        shared: shared parameters; default, for rules that need them, `model.trunk.parameters()`
            where there is a trunk.
        present: function of (*batch) that says which tasks have labels in it, [K] booleans; default
            all. The loss of an absent task may be NaN; see `Weighting.backward`.
        observe: function of (model, *batch), called before each step in evaluation mode without
            gradients; what it returns is handed to `weighting.observe`, such as {"kpis": ...} or
            {"val_losses": ...}.
            The epoch's `train_losses`, and `losses_after_step` for rules that ask for them, are
            handed over by the loop itself.
        evaluate: called after each epoch, in evaluation mode without gradients; returns for each
            metric K values, which become columns of the history.
        scheduler: its `step()` is called after each epoch.
        checkpoint: file that is written after each epoch; if it exists, training goes on from
            there, bit for bit as if it had never stopped.
        progress: show a progress bar.

    Returns:
        A row for each epoch and task: epoch (from 1), task, loss (mean over the epoch's rows),
        weight (mean over its steps), and a column for each metric. Batches in which a task is
        absent do not count for it; NaN where it was absent from all.
    """
    names = list(tasks) if tasks is not None else [f"task {k}" for k in range(weighting.n_tasks)]
    if len(names) != weighting.n_tasks:
        raise ValueError(f"tasks: expected {weighting.n_tasks} names, got {len(names)}")
    trunk = getattr(model, "trunk", None)
    if shared is None and weighting.needs_shared and isinstance(trunk, nn.Module):
        shared = list(trunk.parameters())
    learned = {id(p) for group in optimizer.param_groups for p in group["params"]}
    for own, parameter in weighting.named_parameters():
        if parameter.requires_grad and id(parameter) not in learned:
            raise ValueError(
                f"optimizer: it does not hold {own!r} of the weighting {weighting.name!r}; "
                "add weighting.parameters()"
            )
    # the weighting comes first: it refuses a checkpoint of other options before anything changed
    parts = {"weighting": weighting, "model": model, "optimizer": optimizer}
    if scheduler is not None:
        parts["scheduler"] = scheduler
    rows: list[dict[str, Any]] = []
    done = 0
    if checkpoint is not None and Path(checkpoint).exists():
        done, rows = _load(Path(checkpoint), parts, loader, names)

    for epoch in tqdm(range(done + 1, epochs + 1), disable=not progress, leave=False):
        model.train()
        total, seen = torch.zeros(()), torch.zeros(())  # of each task, over rows
        weights, steps = torch.zeros(()), torch.zeros(())  # of each task, over batches
        for batch in loader:
            if observe is not None:
                model.eval()
                with torch.no_grad():
                    weighting.observe(**observe(model, *_arguments(batch)))
                model.train()
            here = None if present is None else present(*_arguments(batch))
            task_losses, features = _losses_and_features(losses, model, batch)
            optimizer.zero_grad()
            step_weights = weighting.backward(
                task_losses, shared=shared, features=features, present=here
            )
            away = ~check_present(here, weighting.n_tasks).to(task_losses.device)
            n_rows = _n_rows(batch)
            total = total + task_losses.detach().masked_fill(away, 0) * n_rows
            seen = seen + ~away * n_rows
            if getattr(weighting, "waits", False):
                continue
            optimizer.step()
            weights, steps = weights + step_weights, steps + ~away
            if "losses_after_step" in weighting.observes:
                with torch.no_grad():
                    after = _losses_and_features(losses, model, batch)[0]
                weighting.observe(losses_after_step=after.masked_fill(away, torch.nan))
        if getattr(weighting, "waits", False):
            weighting.drop_held()
        if seen.dim() == 0:
            raise ValueError("loader: expected at least one batch an epoch, got none")
        if steps.dim() == 0:
            raise ValueError(
                f"loader: expected at least {weighting.accumulate} batches an epoch, which make a "
                f"step of {weighting.name}"
            )
        mean_losses = total / seen
        weighting.observe(train_losses=mean_losses)
        if scheduler is not None:
            scheduler.step()
        metrics: dict[str, Sequence[float]] = {}
        if evaluate is not None:
            model.eval()
            with torch.no_grad():
                metrics = evaluate(model)
        for k, name in enumerate(names):
            row = {"epoch": epoch, "task": name}
            row |= {"loss": mean_losses[k].item(), "weight": (weights / steps)[k].item()}
            row |= {metric: float(values[k]) for metric, values in metrics.items()}
            rows.append(row)
        if checkpoint is not None:
            _save(Path(checkpoint), parts, loader, names, epoch, rows)
    model.train()
    return pd.DataFrame(rows)


def _losses_and_features(losses, model, batch):
    """Task losses of a batch, and the forked features where the function returns them."""
    found = losses(model, *_arguments(batch))
    return found if isinstance(found, tuple) else (found, None)


def _arguments(batch) -> Sequence[Any]:
    """What a function of (model, *batch) is called with: a mapping is one argument."""
    return (batch,) if isinstance(batch, Mapping) else batch


def _n_rows(batch) -> int:
    return len(next(iter(batch.values())) if isinstance(batch, Mapping) else batch[0])


def _save(path, parts, loader, tasks, epoch, rows) -> None:
    """Write the whole state to a file, in one piece or not at all."""
    state = {name: part.state_dict() for name, part in parts.items()}
    state |= {"tasks": tasks, "epoch": epoch, "rows": rows, "torch_rng": torch.get_rng_state()}
    if loader.generator is not None:
        state["loader_rng"] = loader.generator.get_state()
    if torch.cuda.is_available():
        state["cuda_rng"] = torch.cuda.get_rng_state_all()
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(path.name + ".part")
    torch.save(state, temporary)
    os.replace(temporary, path)


def _load(path, parts, loader, tasks) -> tuple[int, list[dict[str, Any]]]:
    """Restore the whole state; ValueError if the checkpoint is of another training."""
    state = torch.load(path, weights_only=True, map_location="cpu")
    if state["tasks"] != tasks:
        raise ValueError(f"checkpoint: {path} is of the tasks {state['tasks']}, not {tasks}")
    if set(parts) - set(state):
        raise ValueError(f"checkpoint: {path} holds no {', '.join(set(parts) - set(state))}")
    if "scheduler" in state and "scheduler" not in parts:
        raise ValueError(f"checkpoint: {path} is of a training with a scheduler, this has none")
    if (loader.generator is None) == ("loader_rng" in state):
        raise ValueError(f"checkpoint: {path} and this loader differ in shuffling")
    for name, part in parts.items():
        part.load_state_dict(state[name])
    if loader.generator is not None:
        loader.generator.set_state(state["loader_rng"])
    torch.set_rng_state(state["torch_rng"])
    if "cuda_rng" in state and torch.cuda.is_available():
        torch.cuda.set_rng_state_all(state["cuda_rng"])
    return state["epoch"], state["rows"]


def accuracy(logits: Tensor, classes: Tensor) -> float:
    """Fraction of rows whose largest logit is at the right class."""
    return (logits.argmax(-1) == classes).double().mean().item()
