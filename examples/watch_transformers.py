"""Watch Hugging Face models: convert their activations, run them, print what every layer does to its data.

    python examples/watch_transformers.py --html report.html

Llama, BERT and ViT with random weights from small configurations; nothing is downloaded. Needs torch and transformers.
"""

from __future__ import annotations

import argparse

import geoact.torch
import torch
from geoact.torch import sinks
from transformers import BertConfig, BertModel, LlamaConfig, LlamaForCausalLM, PreTrainedModel, ViTConfig, ViTModel

SIZES = {"hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 4, "num_attention_heads": 4}


def models() -> dict[str, tuple[PreTrainedModel, torch.Tensor]]:
    """Each model and an input: token ids (batch, length) or images (batch, 3, height, width)."""
    tokens = torch.randint(0, 500, (4, 32))
    images = torch.randn(4, 3, 32, 32)
    return {
        "Llama": (LlamaForCausalLM(LlamaConfig(vocab_size=500, **SIZES)), tokens),
        "BERT": (BertModel(BertConfig(vocab_size=500, **SIZES)), tokens),
        "ViT": (ViTModel(ViTConfig(image_size=32, patch_size=8, **SIZES)), images),
    }


def main() -> None:
    """Read the command line, run the models."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--html", metavar="FILE", help="also write the page of the last model")
    arguments = parser.parse_args()
    torch.manual_seed(0)
    for name, (model, data) in models().items():
        with torch.no_grad():
            before = model.eval()(data)[0]
            geoact.torch.convert(model)
            after = model(data)[0]
        print(f"{name}: {geoact.torch.conversion(model)}")
        print(f"largest change of the output: {(after - before).abs().max():.1e}")
        pages = [sinks.HTML(arguments.html, title=name)] if arguments.html else []
        with geoact.torch.instrument(model, per="channel", sinks=pages) as monitor:
            model(data)[0].square().mean().backward()
        print(monitor, end="\n\n")


if __name__ == "__main__":
    main()
