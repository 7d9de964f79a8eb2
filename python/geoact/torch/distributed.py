"""Statistics of all ranks together: what data-parallel training needs to see its whole batch.

Every rank measures its shard; :func:`all_reduce` returns new accumulators that hold what one process would have
measured on all shards. The records are packed, so that a model of a hundred layers costs as many collectives as one:

1. one ``all_gather`` of three integers: do all ranks ask for the same thing?
2. one ``all_gather`` of a header per statistics: settings, dtype, groups, n. Whatever differs is found here, by every
   rank alike, so it ends in the same ``ValueError`` everywhere and nobody is left waiting.
3. one ``MAX`` of [-minima, maxima, means of the leading rank]; the others send -inf for those means.
4. one ``SUM`` of [sums, n (mean - p), M2 + n (mean - p)^2, C + n (mean_x - p_x) (mean_y - p_y)], where p, the pivot, is
   the leader's mean. Rows are not merged but appended: each rank fills its own columns of a table of zeros.

Why the sum is stable. With d = sum n_r (mean_r - p) / N, mean = p + d and M2 = A - N d^2, A being the summed third
entry. That is the textbook formula of the shifted variance, and it cancels as far as N d^2 is large against M2. The
leader has n_m elements whose mean lies d from the mean of all; the rest must then lie on the other side, so
M2 >= n_m d^2 N / (N - n_m), or N d^2 / M2 <= (N - n_m) / n_m. The leader is the rank with most elements, which makes
this at most (number of ranks - 1): a thousand ranks lose three of sixteen digits, however far apart their means lie
and however small their spread is. Taking the largest mean for the pivot would need no leader, but a rank with one
outlier among 10^12 elements then loses eleven digits. Reducing the means first and rebasing to them afterwards is as
stable, but extremes would then need a third reduction. A co-moment loses as much, relative to sqrt(M2_x M2_y)
(Cauchy-Schwarz). Chan, Golub, LeVeque (1983), "Algorithms for computing the sample variance: analysis and
recommendations", analyse shifted sums.

NaN. A maximum of NaN depends on the order of the ranks, so none is ever sent into the MAX: extremes ignore NaN when
they are measured, and a pivot that is not finite is replaced by 0. NaN and infinite means travel in the SUM, where they
propagate. A rank without data sends the neutral element. All ranks finish from the same reduced numbers, so all get
the same bits.

A rank that never joins is noticed by torch: its timeout, set in ``init_process_group`` or ``new_group``, ends the
others with torch's own error.
"""

from __future__ import annotations

import dataclasses
import hashlib
import math
from collections.abc import Callable, Sequence
from typing import Any, TypeVar, cast

import numpy as np
import numpy.typing as npt
import torch
import torch.distributed as dist

from geoact import _core
from geoact.statistics import GeometryStats, GradientStats
from geoact.torch.distributed_tiers import TierShare
from geoact.torch.reading import Layer, Reading

__all__ = ["all_reduce", "all_reduce_reading"]

_Stats = GeometryStats | GradientStats
_S = TypeVar("_S", GeometryStats, GradientStats, _Stats)
_Array = npt.NDArray[np.float64]

_DTYPES = ("", "float16", "bfloat16", "float32", "float64")  # "": nothing measured yet
_PER = ("tensor", "channel", "row")
_LEVELS = ("counts", "moments")
_KINDS = (GeometryStats, GradientStats)

# What ranks tell each other of one statistics. Every entry has 8 bytes, so a header travels as int64.
_HEADER = np.dtype(
    [
        ("kind", np.int64),
        ("per", np.int64),
        ("level", np.int64),
        ("channel_axis", np.int64),
        ("saturation", np.float64),
        ("dtype", np.int64),
        ("groups", np.int64),
        ("n", np.float64),
        ("calls", np.int64),
        ("tiers", np.int64),  # what of them was asked for
        ("layer_calls", np.int64),  # this and the next: of a layer
        ("index", np.int64),
    ]
)
_HISTOGRAMS = (False, True, "all")


def _asked(stats: _Stats) -> int:
    """The settings of the opt-in tiers as one number."""
    asked = stats._settings()
    code = _HISTOGRAMS.index(asked.get("histogram", False)) + 3 * bool(asked.get("pairs"))
    return code + 6 * int(asked.get("sketch", 0))


def _tiers_in_words(code: int) -> str:
    return f"histogram={_HISTOGRAMS[code % 3]!r}, pairs={bool(code // 3 % 2)}, sketch={code // 6}"


_SETTINGS: dict[str, Callable[[Any], object]] = {
    "tiers": lambda code: _tiers_in_words(int(code)),
    "kind": lambda code: _KINDS[code].__name__,
    "per": lambda code: _PER[code],
    "level": lambda code: _LEVELS[code],
    "channel_axis": int,
    "saturation": float,
}
_WRONG = -1  # length sent by a rank whose arguments are wrong


def all_reduce(stats: Sequence[_S], group: dist.ProcessGroup | None = None) -> list[_S]:
    """Statistics of all ranks together; a collective call, which every rank of the group must make.

    Parameters
    ----------
    stats : sequence of GeometryStats and GradientStats
        This rank's records; as many, of the same kinds and settings and in the same order, on every rank. They stay
        as they are, so reducing again never counts anything twice. A rank that measured nothing takes part as well.
    group : torch.distributed.ProcessGroup, optional
        The ranks that take part; default: all.

    Returns
    -------
    list of GeometryStats and GradientStats
        New objects, the same bits on every rank. Rows (per="row") come in the order of the ranks; other records have
        as many groups as those of the ranks. Counts and extremes are exact, the rest differs from a merge in one
        process by rounding (see the module).

    Raises
    ------
    TypeError
        If stats is no sequence of statistics. The other ranks get a ValueError.
    ValueError
        If one of stats has a reservoir. On every rank, naming the position in stats, if number, kind, settings, dtype
        or number of channels differ between ranks; or if this process is not in the group.
    RuntimeError
        If there is no process group. Errors of torch, its timeout included, pass through.

    Notes
    -----
    Four collectives for any number of statistics; their data are float64 and travel on the CPU where the group can do
    that (gloo, mpi), else on the current CUDA device (nccl; set it with ``torch.cuda.set_device`` first. The CUDA way
    has not been run by the tests).
    """
    ranks = _Ranks(group)
    error = _wrong_stats(stats)
    # Copies: what is announced must be what is sent, even if another thread measures meanwhile.
    results = [] if error else [entry.copy() for entry in stats]
    ranks.agree(_WRONG if error else len(results), 0, 0, error)
    labels = [f"stats[{i}]" for i in range(len(results))]
    headers = ranks.exchange(np.array([_header(entry) for entry in results], _HEADER), labels)
    _reduce(results, headers, ranks)
    return results


def all_reduce_reading(reading: Reading, group: dist.ProcessGroup | None = None) -> Reading:
    """The reading of all ranks together; a collective call, which every rank of the group must make.

    Parameters
    ----------
    reading : Reading
        This rank's, with the same layers on every rank; a layer that a rank never ran is there, without data. It
        stays as it is.
    group : torch.distributed.ProcessGroup, optional
        The ranks that take part; default: all.

    Returns
    -------
    Reading
        The same on every rank: records as from :func:`all_reduce`, calls summed, the last step of any rank, no
        alerts. Layers are in the order in which they first ran on any rank, and numbered anew in that order.

    Raises
    ------
    TypeError
        If reading is no Reading. The other ranks get a ValueError.
    ValueError, RuntimeError
        As :func:`all_reduce`; ValueError on every rank as well if the layers differ in name, activation or in whether
        gradients are measured.
    """
    ranks = _Ranks(group)
    error = None if isinstance(reading, Reading) else TypeError(f"reading must be a Reading, got {_name(reading)}")
    layers = [] if error else sorted(reading.layers, key=lambda layer: layer.name)
    records = [(layer, s.copy()) for layer in layers for s in (layer.forward, layer.backward) if s is not None]
    step = ranks.agree(_WRONG if error else len(records), _signature(layers), 0 if error else reading.step, error)
    headers = ranks.exchange(
        np.array([_header(s, layer.calls, layer.index) for layer, s in records], _HEADER),
        [f"{_name(s)} of layer {layer.name!r}" for layer, s in records],
    )
    results = [s for _, s in records]
    _reduce(results, headers, ranks)
    reduced = iter(zip(results, headers.T, strict=True))
    merged: list[tuple[float, Layer]] = []
    for layer in layers:
        first, head = next(reduced)
        forward = cast(GeometryStats, first)
        backward = None if layer.backward is None else cast(GradientStats, next(reduced)[0])
        ran = head["index"][head["layer_calls"] > 0]  # a rank that never ran it says nothing of its place
        place = float(ran.min()) if ran.size else math.inf
        calls = int(head["layer_calls"].sum())
        merged.append((place, dataclasses.replace(layer, calls=calls, forward=forward, backward=backward)))
    merged.sort(key=lambda pair: pair[0])  # stable: layers of one place stay in order of their names
    numbered = tuple(dataclasses.replace(layer, index=index) for index, (_, layer) in enumerate(merged))
    return dataclasses.replace(reading, step=step, layers=numbered, alerts=())


# --- what ranks tell each other -------------------------------------------------------------------


class _Ranks:
    """The ranks of a group, and the two collectives used. Alone, a rank exchanges nothing."""

    def __init__(self, group: dist.ProcessGroup | None) -> None:
        if not dist.is_available() or not dist.is_initialized():
            raise RuntimeError(
                "there is no process group: call torch.distributed.init_process_group(...) on every rank first "
                "(or start with torchrun), or use the statistics of this process as they are"
            )
        self.group = group
        self.size = dist.get_world_size(group)
        if self.size < 1:
            raise ValueError("group does not contain this process: only its ranks may reduce over it")
        self.rank = dist.get_rank(group)
        # A group of gloo or mpi says "cpu:gloo,cuda:gloo", one of nccl "cuda:nccl".
        on_cpu = "cpu:" in str(dist.get_backend_config(group))
        self.device = torch.device("cpu") if on_cpu else torch.device("cuda", torch.cuda.current_device())

    def gather(self, values: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
        """Values (n,) of every rank, as (ranks, n)."""
        if self.size == 1:
            return values[None]
        sent = torch.from_numpy(values).to(self.device)
        received = [torch.empty_like(sent) for _ in range(self.size)]
        dist.all_gather(received, sent, group=self.group)
        return np.stack([tensor.cpu().numpy() for tensor in received])

    def reduce(self, parts: Sequence[_Array], operation: dist.ReduceOp.RedOpType) -> _Array:
        """Parts of any shape, packed into (total,) and reduced over the ranks."""
        values = np.concatenate([np.ravel(part) for part in parts] or [np.empty(0)])
        if not values.size:  # on no rank, for the layout is agreed
            return values
        # A copy: what a collective writes to must not be this rank's.
        buffer = torch.from_numpy(values.copy()).to(self.device)
        dist.all_reduce(buffer, op=operation, group=self.group)
        result: _Array = buffer.cpu().numpy()
        return result

    def agree(self, length: int, signature: int, step: int, error: Exception | None) -> int:
        """Raise on every rank unless all want the same; return the last step of any."""
        said = self.gather(np.array([length, signature, step], np.int64))
        if error:
            raise error
        lengths, signatures = said[:, 0], said[:, 1]
        for rank in range(self.size):
            if lengths[rank] == _WRONG:
                raise ValueError(f"rank {rank} called all_reduce with wrong arguments: see its error")
        for rank in range(self.size):
            if (signatures[rank] == 0) != (signatures[0] == 0):
                raise ValueError(f"ranks 0 and {rank} do not reduce the same: one a reading, the other statistics")
            if signatures[rank] != signatures[0]:
                raise ValueError(
                    f"reading has other layers on rank {rank} than on rank 0: their names, activations, or whether "
                    f"gradients are measured differ ({lengths[0]} records on rank 0, {lengths[rank]} on rank {rank})"
                )
            if lengths[rank] != lengths[0]:
                raise ValueError(
                    f"stats must hold as many statistics on every rank, "
                    f"got {lengths[0]} on rank 0 and {lengths[rank]} on rank {rank}"
                )
        return int(said[:, 2].max())

    def exchange(self, headers: npt.NDArray[Any], labels: Sequence[str]) -> npt.NDArray[Any]:
        """Headers (statistics,) of every rank, as (ranks, statistics); raise on every rank if they do not fit."""
        if not headers.size:
            return np.empty((self.size, 0), _HEADER)
        table = self.gather(headers.view(np.int64)).view(_HEADER)
        for column, label in zip(table.T, labels, strict=True):
            for name, text in _SETTINGS.items():
                _must_agree(label, name, column[name], range(self.size), text)
            measured = np.flatnonzero(column["dtype"]).tolist()
            _must_agree(label, "dtype", column["dtype"], measured, lambda code: _DTYPES[code])
            if column["per"][0] == _PER.index("channel"):
                _must_agree(label, "number of channels", column["groups"], measured, int)
        return table


def _must_agree(
    label: str, name: str, values: npt.NDArray[Any], ranks: Sequence[int], text: Callable[[Any], object]
) -> None:
    for rank in ranks:
        if values[rank] != values[ranks[0]]:
            raise ValueError(
                f"{label} differs between ranks in {name}: {text(values[ranks[0]])!r} on rank {ranks[0]}, "
                f"{text(values[rank])!r} on rank {rank}; only like statistics merge"
            )


def _header(stats: _Stats, calls: int = 0, index: int = 0) -> tuple[float, ...]:
    return (
        _KINDS.index(GeometryStats if isinstance(stats, GeometryStats) else GradientStats),
        _PER.index(stats.per),
        _LEVELS.index(stats.level),
        0 if stats.per == "tensor" and not _asked(stats) else stats.channel_axis,  # merge does not ask for it there
        stats.saturation,
        _DTYPES.index(stats.dtype),
        stats.groups if stats.dtype else 0,
        float(np.sum(stats._record()["n"])),
        stats.calls,
        _asked(stats),
        calls,
        index,
    )


def _signature(layers: Sequence[Layer]) -> int:
    """A number other than 0 that differs where layers differ; sent in their place."""
    text = "\n".join(f"{layer.name}\t{layer.activation}\t{layer.backward is None}" for layer in layers)
    digest = hashlib.blake2b(text.encode(), digest_size=8).digest()
    return int.from_bytes(digest, "little", signed=True) or 1


def _name(value: object) -> str:
    return type(value).__name__


def _wrong_stats(stats: object) -> TypeError | ValueError | None:
    accepted = "GeometryStats and GradientStats"
    if not isinstance(stats, Sequence) or isinstance(stats, str):
        return TypeError(f"stats must be a sequence of {accepted}, got {_name(stats)}")
    for i, entry in enumerate(stats):
        if not isinstance(entry, _KINDS):
            return TypeError(f"stats[{i}] must be one of {accepted}, got {_name(entry)}")
        if entry._reservoir is not None:
            return ValueError(
                f"stats[{i}] has a reservoir, whose rows are not sent between ranks; merge pickled statistics with +"
            )
    return None


# --- the reduction --------------------------------------------------------------------------------


def _reduce(stats: Sequence[_Stats], headers: npt.NDArray[Any], ranks: _Ranks) -> None:
    """Replace the cells of each of stats by those of all ranks together."""
    if ranks.size == 1:
        return
    shares: list[_Table | _Moments | TierShare] = []
    for entry, column in zip(stats, headers.T, strict=True):
        if column["dtype"].any():  # else nobody measured anything, and there is nothing to add
            kind = _Table if entry.per == "row" else _Moments
            shares.append(kind(entry, column, ranks.rank))
            if column["tiers"][0]:
                shares.append(TierShare(entry._accumulator, leads=ranks.rank == int(np.argmax(column["n"]))))
    # 0 / 0 is what a group without data gives, and infinities are data
    with np.errstate(all="ignore"):
        extremes = _Cursor(ranks.reduce([share.extremes() for share in shares], dist.ReduceOp.MAX))
        for share in shares:
            share.take_extremes(extremes)
        sums = _Cursor(ranks.reduce([share.sums() for share in shares], dist.ReduceOp.SUM))
        for share in shares:
            share.take_sums(sums)


class _Cursor:
    """Reads a packed buffer from its beginning to its end."""

    def __init__(self, values: _Array) -> None:
        self.values = values
        self.position = 0

    def take(self, rows: int, columns: int) -> _Array:
        start, self.position = self.position, self.position + rows * columns
        return self.values[start : self.position].reshape(rows, columns)


class _Table:
    """Rows of this rank, put behind those of the ranks before it."""

    def __init__(self, stats: _Stats, headers: npt.NDArray[Any], rank: int) -> None:
        self.stats = stats
        self.dtype = _DTYPES[headers["dtype"].max()]
        self.calls = int(headers["calls"].sum())
        self.rows = int(headers["groups"].sum())
        self.first = int(headers["groups"][:rank].sum())

    def extremes(self) -> _Array:
        return np.empty(0)

    def take_extremes(self, received: _Cursor) -> None:
        pass

    def sums(self) -> _Array:
        own = self.stats._accumulator.cells()
        table = np.zeros((len(own), self.rows))
        table[:, self.first : self.first + own.shape[1]] = own
        return table

    def take_sums(self, received: _Cursor) -> None:
        fields = len(self.stats._accumulator.cells())
        self.stats._accumulator.set_cells(received.take(fields, self.rows), self.dtype, self.calls)


class _Moments:
    """Share of this rank in a record that is merged cell by cell. Arrays are (fields of one kind, groups)."""

    def __init__(self, stats: _Stats, headers: npt.NDArray[Any], rank: int) -> None:
        self.stats = stats
        self.dtype = _DTYPES[headers["dtype"].max()]
        self.calls = int(headers["calls"].sum())
        self.groups = int(headers["groups"].max())
        self.leads = rank == int(np.argmax(headers["n"]))
        # A power of two, so it costs no digit: n times a mean would overflow where a mean of means does not.
        self.unit = 0.5 ** math.frexp(float(headers["n"].sum()))[1]
        own = stats._accumulator.cells()
        fields = _core.fields(stats._direction)[: len(own)]
        self.at = {name: k for k, (name, _) in enumerate(fields)}
        self.of_kind: dict[str, list[int]] = {}
        for k, (_, merge) in enumerate(fields):
            self.of_kind.setdefault(merge, []).append(k)
        self.cells = own if stats.dtype else self._neutral(fields)
        self.pivot = np.empty((0, self.groups))

    def _neutral(self, fields: Sequence[tuple[str, str]]) -> _Array:
        neutral = {"minimum": math.inf, "maximum": -math.inf}
        column = np.array([[neutral.get(merge, 0.0)] for _, merge in fields])
        return np.repeat(column, self.groups, axis=1)

    def _select(self, merge: str) -> list[int]:
        return self.of_kind.get(merge, [])

    def _factors(self, name: str) -> tuple[int, int]:
        """Which two means a deviation is taken from: m2_x from mean_x twice, c_xy from mean_x and mean_y."""
        variables = name.split("_")[1]
        means = [self.at[f"mean_{variable}"] for variable in (variables[0], variables[-1])]
        first, second = (self._select("mean").index(k) for k in means)
        return first, second

    def _deviations(self) -> list[tuple[int, int, int]]:
        """Cell of each squared or co-deviation, and the two rows of the means it is taken from."""
        names = {k: name for name, k in self.at.items()}
        cells = self._select("squared_deviation") + self._select("co_deviation")
        return [(k, *self._factors(names[k])) for k in cells]

    def extremes(self) -> _Array:
        means = self.cells[self._select("mean")]
        pivot = np.where(np.isfinite(means), means, 0.0) if self.leads else np.full_like(means, -np.inf)
        return np.concatenate([-self.cells[self._select("minimum")], self.cells[self._select("maximum")], pivot])

    def take_extremes(self, received: _Cursor) -> None:
        minima, maxima = self._select("minimum"), self._select("maximum")
        self.lowest = -received.take(len(minima), self.groups)
        self.highest = received.take(len(maxima), self.groups)
        self.pivot = received.take(len(self._select("mean")), self.groups)

    def sums(self) -> _Array:
        n = self.cells[self.at["n"]]
        offset = self.cells[self._select("mean")] - self.pivot
        deviations = [self.cells[k] + offset[i] * (offset[j] * n) for k, i, j in self._deviations()]
        return np.concatenate(
            [
                self.cells[self._select("sum")],
                offset * (n * self.unit),
                np.reshape(deviations, (-1, self.groups)),
            ]
        )

    def take_sums(self, received: _Cursor) -> None:
        cells = np.empty((len(self.at), self.groups))
        cells[self._select("minimum")] = self.lowest
        cells[self._select("maximum")] = self.highest
        cells[self._select("sum")] = received.take(len(self._select("sum")), self.groups)
        n = cells[self.at["n"]]
        offset = received.take(len(self.pivot), self.groups)
        offset = np.where(n > 0, offset / (n * self.unit), 0.0)
        cells[self._select("mean")] = self.pivot + offset
        deviations = self._deviations()
        about_pivot = received.take(len(deviations), self.groups)
        for (k, i, j), value in zip(deviations, about_pivot, strict=True):
            # Overflow stays what it is: infinity minus infinity would make a NaN of it.
            moved = np.where(np.isinf(value), value, value - offset[i] * (offset[j] * n))
            # A square that underflows rounds by more than its size, which may leave less than nothing.
            cells[k] = np.maximum(moved, 0.0) if i == j else moved
        self.stats._accumulator.set_cells(cells, self.dtype, self.calls)
