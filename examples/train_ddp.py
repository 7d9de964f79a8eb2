"""Watch the activations of a model that trains on several processes.

    python examples/train_ddp.py --processes 2 --epochs 3

Every process trains on its shard of scikit-learn's handwritten digits with DistributedDataParallel (gloo, on the CPU)
and measures its own activations. Once per epoch the records of all processes are put together: what is printed are the
statistics of the whole data, not of one shard. Needs torch and scikit-learn: pip install 'geoact[torch,study]'.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

import geoact.torch
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from torch import nn
from torch.nn.parallel import DistributedDataParallel

try:
    from sklearn.datasets import load_digits
except ImportError as error:
    raise SystemExit("this example needs scikit-learn: pip install scikit-learn") from error

BATCH = 32


def load_shard(rank: int, processes: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Images (n, 64) scaled to mean 0 and labels (n,) of one process; n is the same on all."""
    images, labels = load_digits(return_X_y=True)
    order = torch.randperm(len(labels), generator=torch.Generator().manual_seed(0))
    shard = order[: len(order) // processes * processes][rank::processes]
    return torch.tensor(images / 8 - 1, dtype=torch.float32)[shard], torch.tensor(labels)[shard]


def make_model(width: int = 64, depth: int = 4) -> nn.Sequential:
    """Classifier of 64 pixels into ten digits."""
    layers: list[nn.Module] = []
    for inputs in [64, *[width] * (depth - 1)]:
        layers += [nn.Linear(inputs, width), nn.ReLU()]
    return nn.Sequential(*layers, nn.Linear(width, 10))


def train(rank: int, processes: int, epochs: int, store: str) -> None:
    """What each process does."""
    dist.init_process_group("gloo", store=dist.FileStore(store, processes), rank=rank, world_size=processes)
    torch.set_num_threads(1)
    torch.manual_seed(0)  # every process starts from the same weights
    images, labels = load_shard(rank, processes)
    model = make_model()
    batches = -(-len(labels) // BATCH)
    # Instrument the model, not its wrapper: layers then keep the names they have without DDP. One reading per epoch.
    with geoact.torch.instrument(model, per="channel", window=batches) as monitor:
        parallel = DistributedDataParallel(model)
        optimizer = torch.optim.AdamW(parallel.parameters(), lr=2e-3)
        for epoch in range(epochs):
            for batch in torch.randperm(len(labels)).split(BATCH):
                optimizer.zero_grad()
                loss = nn.functional.cross_entropy(parallel(images[batch]), labels[batch])
                loss.backward()
                optimizer.step()
                monitor.step()
            shard = monitor.read()
            everything = monitor.all_reduce()  # a collective call: every process makes it, one prints
            if rank == 0:
                measured = [int(reading.layers[0].forward.n[0]) for reading in (shard, everything)]
                print(f"epoch {epoch + 1}: loss {loss.item():.3f} on process 0")
                print(f"samples measured: {measured[0]} by process 0, {measured[1]} by all")
                print(everything, end="\n\n", flush=True)
    dist.destroy_process_group()


def main() -> None:
    """Read the command line and start the processes."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--epochs", type=int, default=3)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        mp.spawn(
            train,
            args=(arguments.processes, arguments.epochs, str(Path(folder) / "store")),
            nprocs=arguments.processes,
        )


if __name__ == "__main__":
    main()
