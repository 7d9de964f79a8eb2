"""The code in docs/adaptive.md runs."""

import re
from importlib.util import find_spec
from pathlib import Path

import pytest

GUIDE = Path(__file__).parents[1] / "docs" / "adaptive.md"
BLOCKS = re.findall(r"```python\n(.*?)```", GUIDE.read_text(encoding="utf-8"), flags=re.S) if GUIDE.exists() else []


@pytest.mark.skipif(not GUIDE.exists(), reason="needs the source tree")
def test_there_are_examples():
    assert len(BLOCKS) == 2


@pytest.mark.parametrize("block", BLOCKS, ids=["torch", "numpy"][: len(BLOCKS)])
def test_an_example_runs(block):
    if "torch" in block and find_spec("torch.distributed" if find_spec("torch") else "torch") is None:
        pytest.skip("needs torch")
    exec(compile(block, str(GUIDE), "exec"), {})
