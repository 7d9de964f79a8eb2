"""One rank that trains GAL. Usage: support_gal_ranks.py RANK WORLD FOLDER. Writes FOLDER/RANK.pickle."""

import pickle
import sys
from datetime import timedelta
from pathlib import Path

import torch
import torch.distributed as dist
from geoact.torch.adaptive import GAL
from torch import nn
from torch.nn.parallel import DistributedDataParallel

SIZES = [(30, 7), (1, 64), (0, 12), (20, 20)]  # rows that either rank gets at every step


def shards(step):
    """What the two ranks are given; together it is what a single process is given."""
    x = torch.randn(sum(SIZES[step]), 5, generator=torch.Generator().manual_seed(step)) * 3 - 1
    if step == 3:
        x[25, 2] = torch.nan  # the second rank's
    return x.split(list(SIZES[step]))


def state(module):
    return {name: value.clone() for name, value in module.state_dict().items()}


def network():
    torch.manual_seed(4)
    return nn.Sequential(nn.Linear(5, 16), GAL(10, 0.5), nn.Linear(16, 16), GAL(10, 0.5), nn.Linear(16, 1)).double()


def train(model, take):
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05)
    for step in range(4):
        x = torch.randn(24, 5, generator=torch.Generator().manual_seed(100 + step), dtype=torch.float64)
        optimizer.zero_grad()
        model(take(x)).square().mean().backward()
        optimizer.step()


def main(rank, world, folder):
    store = dist.FileStore(str(folder / "store"), world)
    dist.init_process_group("gloo", store=store, rank=rank, world_size=world, timeout=timedelta(seconds=60))
    results = {}

    module, results["steps"] = GAL(20, 1.0), []
    for step in range(len(SIZES)):
        module(shards(step)[rank])
        results["steps"].append(state(module))
    module.eval()
    if rank == 0:
        module(torch.ones(3))  # in eval mode a call is nobody else's business

    alone = [dist.new_group([other]) for other in range(world)]
    module = GAL(20, 1.0, process_group=alone[rank])
    module(shards(0)[rank])
    results["own group"] = state(module)

    model = DistributedDataParallel(network())
    train(model, lambda x: x[rank::world])
    results["trained"] = state(model.module)

    (folder / f"{rank}.pickle").write_bytes(pickle.dumps(results))
    dist.barrier()
    dist.destroy_process_group()


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]), Path(sys.argv[3]))
