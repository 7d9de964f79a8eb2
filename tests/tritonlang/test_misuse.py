"""Wrong arguments raise an error that names them, before anything is written."""

import geoact
import pytest
import torch
from geoact.torch import triton as backend

X = torch.zeros(4, 3)
STATE = backend.new_state("forward", 3)
PLAIN = geoact.relu, X, ()

CASES = [
    (TypeError, "x must be a torch tensor", lambda: backend.forward(geoact.relu, [1.0], ())),
    (TypeError, "x has dtype torch.int64", lambda: backend.forward(geoact.relu, torch.zeros(3, dtype=torch.int64), ())),
    (TypeError, "x has layout", lambda: backend.forward(geoact.relu, X.to_sparse(), ())),
    (ValueError, "x is on the device meta", lambda: backend.forward(geoact.relu, X.to("meta"), ())),
    (ValueError, "out has shape", lambda: backend.forward(geoact.relu, X, (), torch.zeros(3, 4))),
    (ValueError, "out has several elements", lambda: backend.forward(geoact.relu, X, (), X[:, :1].expand(4, 3))),
    (TypeError, "values has 0 entries", lambda: backend.forward(geoact.elu, X, ())),
    (TypeError, "alpha must be a number", lambda: backend.forward(geoact.elu, X, ("1",))),
    (TypeError, "alpha must be a number", lambda: backend.forward(geoact.elu, X, (torch.ones(1),))),
    (ValueError, "weight has shape", lambda: backend.forward(geoact.prelu, X, (torch.ones(4),))),
    (ValueError, "weight has shape", lambda: backend.forward(geoact.prelu, X[0], (torch.ones(3),))),
    (ValueError, "weight_axis is 2", lambda: backend.forward(geoact.prelu, X, (torch.ones(3),), weight_axis=2)),
    (ValueError, "per is 'all'", lambda: backend.forward(geoact.relu, X, (), state=STATE, per="all")),
    (ValueError, "level is 'all'", lambda: backend.forward(geoact.relu, X, (), state=STATE, level="all")),
    (ValueError, "channel_axis is 2", lambda: backend.forward(*PLAIN, None, STATE, per="row", channel_axis=2)),
    (ValueError, "state must be contiguous", lambda: backend.forward(geoact.relu, X, (), state=STATE)),
    (ValueError, "state must be", lambda: backend.forward(geoact.relu, X, (), state=STATE.float(), per="channel")),
    (TypeError, "state must be a torch tensor", lambda: backend.forward(geoact.relu, X, (), state=[1.0])),
    (ValueError, "y has shape", lambda: backend.backward(geoact.relu, X, torch.zeros(3, 4), ())),
    (ValueError, "x has shape", lambda: backend.backward(geoact.silu, X, X.double(), ())),
    (ValueError, "state must be", lambda: backend.backward(geoact.relu, X, X, (), state=STATE, per="channel")),
]  # fmt: skip


@pytest.mark.parametrize(("error", "message", "call"), CASES, ids=[f"{i}-{c[1]}" for i, c in enumerate(CASES)])
def test_misuse(error, message, call):
    before = STATE.clone()
    with pytest.raises(error, match=message):
        call()
    assert torch.equal(STATE, before)
    assert (X == 0).all()


def test_cpu_tensors_need_the_interpreter(monkeypatch):
    monkeypatch.setattr(backend, "_INTERPRETED", False)
    with pytest.raises(ValueError, match="x is on the device cpu.*TRITON_INTERPRET=1"):
        backend.forward(geoact.relu, X, ())
