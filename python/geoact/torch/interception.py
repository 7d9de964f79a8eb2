"""Catch calls of torch's activation functions while a block of code runs: F.relu, torch.sigmoid, x.relu(), ..."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Any

from geoact.torch.catching import Catching


class intercept(Catching):
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

    def catch(
        self,
        name: str,
        ours: Callable[..., Any] | None,
        theirs: Callable[..., Any],
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
    ) -> Any:  # noqa: ANN401
        """Count the call and compute it."""
        (self.passed if ours is None else self.calls)[name] += 1
        return (ours or theirs)(*args, **kwargs)
