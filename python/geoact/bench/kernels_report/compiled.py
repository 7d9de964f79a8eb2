"""Reports on what Triton compiled, without importing Triton: its results are recognised by what they carry."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from geoact.bench.kernels_report.errors import ReportError
from geoact.bench.kernels_report.reading import Source, of_sources
from geoact.bench.kernels_report.report import Report
from geoact.bench.kernels_report.tools import Cuobjdump


def of_triton(*compiled: Any, cuobjdump: str | Path | None = None) -> Report:
    """Report on results of ``triton.compile``, or on all that a ``@triton.jit`` function has compiled so far.

    One compiled kernel is called after its function. Several are called after what they were specialised for:
    ``add[*bf16, *bf16, i32, B=1024, warps=4]``. Threads per block and shared memory are those of the compilation.
    """
    found = [kernel for one in compiled for kernel in _compiled_kernels(one)]
    if not found:
        raise ReportError("nothing compiled: pass the result of triton.compile, or a JIT function after it was called")
    unique = {(_label(kernel), bytes(kernel.asm["cubin"])): kernel for kernel in found}
    alone = len(unique) == 1
    sources = [
        Source(
            content,
            _name(kernel) if alone else label,
            f"the cubin of {label}",
            int(getattr(kernel.metadata, "shared", 0) or 0),
        )
        for (label, content), kernel in unique.items()
    ]
    return of_sources(sources, Cuobjdump.find(cuobjdump), naming="file")


def _compiled_kernels(one: object) -> Iterator[Any]:
    """Compiled kernels in a compile result, a JIT function, an autotuned one, or the caches in them."""
    asm = getattr(one, "asm", None)
    if asm is not None:
        if "cubin" not in asm:
            raise ReportError(f"{_name(one)} was not compiled for an NVIDIA GPU: it has {', '.join(asm) or 'nothing'}")
        yield one
    elif isinstance(one, Mapping):
        for value in one.values():
            yield from _compiled_kernels(value)
    elif isinstance(one, (tuple, list)):
        for value in one:
            # The per-device tuple also holds a binder and a backend, which carry no code.
            yield from _compiled_kernels(value)
    else:
        # Newer Triton keeps device_caches, older cache; Autotuner and Heuristics wrap the function as fn.
        for attribute in ("device_caches", "cache"):
            value = getattr(one, attribute, None)
            if isinstance(value, Mapping):
                yield from _compiled_kernels(dict(value))
        wrapped = getattr(one, "fn", None)
        if wrapped is not None:
            yield from _compiled_kernels(wrapped)


def _name(kernel: Any) -> str:
    return str(getattr(getattr(kernel, "metadata", None), "name", None) or getattr(kernel, "name", None) or "kernel")


def _label(kernel: Any) -> str:
    """Function and specialisation; never a hash, which would change with every edit of the source."""
    source = getattr(kernel, "src", None)
    signature = getattr(source, "signature", None)
    words: list[str] = []
    if isinstance(signature, Mapping):
        constants = {_last(key): value for key, value in dict(getattr(source, "constants", None) or {}).items()}
        for place, (argument, kind) in enumerate(signature.items()):
            if kind == "constexpr":
                value = constants.get(argument, constants.get(place, "?"))
                words.append(f"{argument}={getattr(value, '__name__', value)}")
            else:
                words.append(str(kind))
    warps = getattr(kernel.metadata, "num_warps", None)
    if warps is not None:
        words.append(f"warps={warps}")
    return f"{_name(kernel)}[{', '.join(words)}]"


def _last(key: object) -> object:
    return key[-1] if isinstance(key, tuple) and key else key
