"""Catch calls of torch's activation functions while a block of code runs: F.relu, torch.sigmoid, x.relu(), ..."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Any

from torch.overrides import TorchFunctionMode

from geoact.torch import known


class intercept(TorchFunctionMode):
    """Within ``with geoact.torch.intercept() as caught:`` torch's activation functions are computed by geoact.

    Functions, methods and in-place variants of every activation that torch has. Tensors that geoact cannot compute on
    (integers, other devices) and arguments it does not take (``out=``) go to torch as before. Nothing outside the block
    changes; blocks nest.

    Attributes
    ----------
    calls : collections.Counter
        Calls caught, by the name of the activation.
    passed : collections.Counter
        Calls of such functions that went to torch.
    """

    def __init__(self) -> None:
        super().__init__()
        self.calls: Counter[str] = Counter()
        self.passed: Counter[str] = Counter()

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Any,  # noqa: ANN401
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:  # noqa: ANN401
        """Called by torch for each of its functions."""
        kwargs = kwargs or {}
        ours = known.function_for(func)
        if ours is None:
            return func(*args, **kwargs)
        name = known.FUNCTIONS[func][0]
        if not known.takes(name, args, kwargs):
            self.passed[name] += 1
            return func(*args, **kwargs)
        self.calls[name] += 1
        return ours(*args, **{key: value for key, value in kwargs.items() if key != "out"})
