"""The examples run as a user would start them, and say what they promise."""

import os
import re
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).parents[2] / "examples"
pytestmark = pytest.mark.skipif(not EXAMPLES.is_dir(), reason="needs the source tree")


def run(name, *arguments, prologue="", path=""):
    """What an example printed; ``prologue`` is executed before it, ``path`` is a folder of further packages."""
    words = [str(EXAMPLES / name), *map(str, arguments)]
    start = f"import runpy, sys; sys.argv = {words!r}; sys.path += {[path] if path else []!r}\n"
    program = f"{start}{prologue}\nrunpy.run_path(sys.argv[0], run_name='__main__')"
    command = [sys.executable, "-c", program] if prologue else [sys.executable, *words]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False, env=environment)
    assert done.returncode == 0, done.stderr
    return done.stdout


def changes(printed):
    return [float(value) for value in re.findall(r"largest change of the output: (\S+)", printed)]


@pytest.mark.skipif(not find_spec("sklearn"), reason="needs scikit-learn")
def test_train_ddp_watches_the_whole_data():
    printed = run("train_ddp.py", "--processes", 2, "--epochs", 2)
    losses = [float(value) for value in re.findall(r"loss (\S+) on process 0", printed)]
    assert losses[1] < losses[0]
    measured = re.findall(r"samples measured: (\d+) by process 0, (\d+) by all", printed)
    assert len(measured) == 2
    assert all(int(everyone) == 2 * int(one) > 0 for one, everyone in measured)
    assert len(re.findall(r"^\d +relu ", printed, re.MULTILINE)) == 2 * 4


@pytest.mark.skipif(not find_spec("transformers"), reason="needs transformers")
def test_transformers_are_converted_and_watched(tmp_path):
    page = tmp_path / "page.html"
    printed = run("watch_transformers.py", "--html", page)
    assert len(changes(printed)) == 3
    assert max(changes(printed)) < 1e-5
    assert printed.count("SiLUActivation -> geoact.torch.SiLU") == 4
    assert printed.count("GELUActivation -> geoact.torch.GELU") == 8
    assert len(re.findall(r"^\S+act\S* +(silu|gelu) ", printed, re.MULTILINE)) == 12
    assert "ViT" in page.read_text(encoding="utf-8")


# timm needs torchvision, whose wheel for another build of torch lacks its compiled operators: timm uses none of them
# here, but transformers would. So both may lie in a folder of their own, which the variable names.
TIMM = os.environ.get("GEOACT_TEST_TIMM", "")
WITHOUT_TORCHVISION_OPERATORS = """
import torch
register = torch.library.register_fake
def register_those_there(name, *arguments, **named):
    if name.startswith("torchvision::"):
        return lambda function: function
    return register(name, *arguments, **named)
torch.library.register_fake = register_those_there
"""


@pytest.mark.skipif(not (TIMM or find_spec("timm")), reason="needs timm, installed or in the folder GEOACT_TEST_TIMM")
def test_a_timm_resnet_is_converted_and_watched():
    printed = run("watch_timm.py", prologue=WITHOUT_TORCHVISION_OPERATORS, path=TIMM)
    assert changes(printed) == [0.0]
    assert printed.count("ReLU -> geoact.torch.ReLU") == 17
    assert len(re.findall(r"^\S+ +relu ", printed, re.MULTILINE)) == 17
