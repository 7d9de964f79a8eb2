"""The code in docs/torch.md runs, block after block, as a reader would type it."""

import re
from pathlib import Path

import pytest

pytest.importorskip("torch.distributed")  # of an installed torch; "torch" alone would also find a folder of that name

GUIDE = Path(__file__).parents[2] / "docs" / "torch.md"


@pytest.mark.skipif(not GUIDE.exists(), reason="needs the source tree")
def test_the_code_of_the_guide_runs(capsys):
    blocks = re.findall(r"```python\n(.*?)```", GUIDE.read_text(encoding="utf-8"), flags=re.S)
    assert len(blocks) >= 6
    scope = {}
    for block in blocks:
        exec(compile(block, str(GUIDE), "exec"), scope)
    assert capsys.readouterr().out.count("relu") == 2  # two monitors were printed
