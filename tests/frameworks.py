"""The framework recipes of notebook 16 on one of several processes, for tests/test_recipes.py.

python -m tests.frameworks OUT, with the variables of torchrun in the environment
"""

from __future__ import annotations

import os
import sys
import tempfile

import torch
from accelerate import Accelerator
from torch import Tensor
from torch.utils.data import DataLoader, TensorDataset

from tests import recipes

RULES = ("uncertainty", "gradnorm", "mgda")
RANK, WORLD = int(os.environ.get("RANK", 0)), int(os.environ.get("WORLD_SIZE", 1))


def with_accelerate(rule: str, folder: str) -> Tensor:
    names = recipes.names()
    recipes.run("accelerate", names)
    net, weighting, optimizer = recipes.build(names, rule)
    loader = recipes.loader(recipes.ROWS // WORLD)
    names["train_with"](Accelerator(cpu=True), net, weighting, optimizer, loader)
    return recipes.flat(net, weighting)


def with_lightning(rule: str, folder: str) -> Tensor:
    names = recipes.names()
    recipes.run("lightning", names)
    station = recipes.station(names, rule)
    own = TensorDataset(*(column[RANK::WORLD] for column in recipes.rows()))
    options = {"devices": WORLD, "strategy": "ddp", "use_distributed_sampler": False}
    trainer = recipes.lightning_trainer(folder, **options)
    trainer.fit(station, DataLoader(own, recipes.ROWS // WORLD))
    return recipes.flat(station.net, station.weighting)


def with_trainer(rule: str, folder: str) -> Tensor:
    names = recipes.names()
    recipes.run("transformers", names)
    options = {"per_device_train_batch_size": recipes.ROWS // WORLD, "ddp_backend": "gloo"}
    options["ddp_find_unused_parameters"] = False
    trainer = recipes.hugging_face_trainer(names, rule, folder, **options)
    trainer.model.weighting.use(group=torch.distributed.group.WORLD)
    trainer.train()
    return recipes.flat(trainer.model.net, trainer.model.weighting)


FRAMEWORKS = {
    "accelerate": with_accelerate,
    "lightning": with_lightning,
    "transformers": with_trainer,
}


def main(out: str) -> None:
    torch.set_num_threads(1)
    found: dict = {}
    for framework, train in FRAMEWORKS.items():
        for rule in RULES:
            with tempfile.TemporaryDirectory() as folder:
                try:
                    found[framework, rule] = train(rule, folder)
                except Exception as error:
                    found[framework, rule] = f"{type(error).__name__}: {error}"
    torch.save(found, f"{out}.{RANK}")
    torch.distributed.barrier()
    sys.stdout.flush()
    os._exit(0)  # gloo's threads may abort an ordinary exit


if __name__ == "__main__":
    main(sys.argv[1])
