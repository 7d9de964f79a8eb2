"""Watch a timm model: convert its activations, run it, print what every layer does to its data.

    python examples/watch_timm.py --model resnet18

Random weights; nothing is downloaded. Needs torch and timm.
"""

from __future__ import annotations

import argparse

import geoact.torch
import timm
import torch


def main() -> None:
    """Read the command line, run the model."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="resnet18")
    parser.add_argument("--size", type=int, default=64, help="height and width of the images")
    arguments = parser.parse_args()
    torch.manual_seed(0)
    model = timm.create_model(arguments.model, pretrained=False).eval()
    images = torch.randn(2, 3, arguments.size, arguments.size)
    with torch.no_grad():
        before = model(images)
        geoact.torch.convert(model)
        after = model(images)
    print(geoact.torch.conversion(model))
    print(f"largest change of the output: {(after - before).abs().max():.1e}")
    with geoact.torch.instrument(model, per="channel") as monitor:
        model(images).square().mean().backward()
    print(monitor)


if __name__ == "__main__":
    main()
