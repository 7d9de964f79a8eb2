"""What this installation can run on: instruction set, threads, frameworks found, and why one is missing."""

from __future__ import annotations

import functools
import importlib.metadata
import importlib.util
import json
import os
import platform
import sys
from pathlib import Path

from geoact import _core
from geoact._arguments import whole


class Info(dict[str, object]):
    """What :func:`info` found; a dictionary that prints as a readable table."""

    def __str__(self) -> str:
        width = max(len(key) for key in self)
        return "\n".join(f"{key:<{width}}  {_line(value)}" for key, value in self.items())


def _line(value: object) -> str:
    return ", ".join(map(str, value)) if isinstance(value, (list, tuple)) else str(value)


def _package(name: str, purpose: str) -> str:
    """Version of an installed package, without importing it."""
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return f"not installed ({purpose})"


def _cupy_version() -> str:
    """CuPy is packaged once per CUDA version."""
    for name in ("cupy-cuda13x", "cupy-cuda12x", "cupy"):
        version = _package(name, "arrays on a GPU")
        if not version.startswith("not installed"):
            return version
    return version


def _cpu_name() -> str:
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as lines:
            for line in lines:
                if line.startswith(("model name", "Model name")):
                    return line.partition(":")[2].strip()
    except OSError:
        return platform.processor() or "unknown"  # not Linux
    return platform.processor() or platform.machine()


def torch_fast_path(version: str | None) -> tuple[str | None, str]:
    """The torch that ``geoact._torch`` was compiled for, and what that means for the torch of this ``version``."""
    try:
        built_for = Path(_core.__file__).with_name("_torch_built_for.txt").read_text(encoding="utf-8").strip()
    except OSError:
        return None, "not built (pip install --no-build-isolation builds it where torch is installed)"
    # Without torch loaded only the public version is known, as packages state it.
    same = version is None or version in (built_for, built_for.partition("+")[0])
    if same:
        return built_for, f"compiled for torch {built_for}"
    return built_for, f"not used (compiled for torch {built_for}, this is {version})"


_cuda_state: str | None = None


def load_cuda() -> str:
    """Let the CUDA kernels compute on CUDA arrays; "" where they can, else why not. Asked when the first one comes."""
    global _cuda_state
    if _cuda_state is None:
        _cuda_state = _load_cuda()
    return _cuda_state


def _load_cuda() -> str:
    try:
        if importlib.util.find_spec("geoact._cuda") is None:
            return "this installation has no CUDA kernels (it was built without nvcc, or with GEOACT_CUDA=OFF)"
        from geoact import _cuda

        why: str = _cuda.why_unavailable()
        if not why:
            _core.register_backend(_cuda._backend, [2, 13])  # CUDA and CUDA managed memory, as DLPack numbers them
    except Exception as error:  # whatever is wrong with it, the rest works, and the user is told
        return f"the CUDA kernels cannot be loaded: {type(error).__name__}: {error}"
    return why


def cuda_devices() -> list[str]:
    """Names of the CUDA devices that the kernels can use."""
    if load_cuda():
        return []
    from geoact import _cuda

    return [f"{name} (sm_{major}{minor}, {count} multiprocessors)" for name, major, minor, count in _cuda.devices()]


def _cuda_line() -> str | list[str]:
    why = load_cuda()
    return f"off: {why}" if why else cuda_devices()


# --- which kernels compute on torch tensors on a GPU ---

_GPU_BACKENDS = ("auto", "cuda", "triton")


def _known_gpu_backend(name: object, origin: str) -> str:
    if name not in _GPU_BACKENDS:
        raise ValueError(f"{origin} is {name!r} (accepted: {', '.join(map(repr, _GPU_BACKENDS))})")
    return str(name)


_gpu_backend = _known_gpu_backend(os.environ.get("GEOACT_GPU") or "auto", "GEOACT_GPU")


def gpu_backend() -> str:
    """Which kernels were asked for on a GPU: "auto", "cuda" or "triton" (environment: ``GEOACT_GPU``)."""
    return _gpu_backend


def set_gpu_backend(name: str) -> None:
    """Choose the kernels that compute on torch tensors on a GPU, for the whole process.

    Parameters
    ----------
    name : {"auto", "cuda", "triton"}
        "auto" takes what was measured to be faster for the activation, dtype and size where a table of ``make gpu`` is
        at hand (``GEOACT_GPU_PREFERENCES`` names one), else the CUDA kernels, else Triton's. CuPy arrays are always
        computed on by the CUDA kernels.

    Raises
    ------
    ValueError
        If ``name`` is none of these. That a backend cannot run here is said at the first call.
    """
    global _gpu_backend
    _gpu_backend = _known_gpu_backend(name, "name")
    choose_gpu_kernels.cache_clear()


def _is_there(name: str) -> bool:
    try:
        return importlib.util.find_spec(name) is not None
    except ValueError:  # a stand-in without a specification
        return False


def why_no_triton() -> str:
    """Why Triton's kernels cannot be used, or "" if they can."""
    missing = [name for name in ("torch", "triton") if not _is_there(name)]
    return f"{' and '.join(missing)} not installed" if missing else ""


def why_no_gpu() -> str:
    """Why torch tensors on a GPU cannot be computed on, or "" if they can."""
    why = load_cuda()
    if why and _gpu_backend != "cuda" and not why_no_triton():
        return ""
    return why


@functools.lru_cache(maxsize=4096)
def choose_gpu_kernels(activation: str, dtype: str, log2_elements: int, device: str) -> str:
    """Which kernels take a call on a torch tensor: "cuda" or "triton".

    Raises
    ------
    ValueError
        If the kernels that were asked for, or all, cannot run here.
    """
    no_cuda, no_triton = load_cuda(), why_no_triton()
    if _gpu_backend == "cuda" or (_gpu_backend == "auto" and no_triton):
        if no_cuda:
            raise ValueError(f"the CUDA kernels cannot run: {no_cuda}; see geoact.info()")
        return "cuda"
    if _gpu_backend == "triton" or no_cuda:
        if no_triton:
            raise ValueError(f"Triton's kernels cannot run: {no_triton}; pip install geoact[triton]")
        return "triton"
    sizes = _preferences().get(device, {}).get(activation, {}).get(dtype, {})
    if not sizes:
        return "cuda"
    nearest = min(sorted(sizes), key=lambda n: abs(n.bit_length() - log2_elements))
    return "triton" if sizes[nearest] == "triton" else "cuda"


def _faster(choice: str) -> str:
    if choice not in ("cuda", "triton", "either"):
        raise ValueError(f"{choice!r} is no choice")
    return choice


@functools.lru_cache(maxsize=1)
def _preferences() -> dict[str, dict[str, dict[str, dict[int, str]]]]:
    """Device, activation, dtype, elements: the faster kernels, as ``make gpu`` measured them."""
    path = os.environ.get("GEOACT_GPU_PREFERENCES")
    if not path:
        return {}
    try:
        document = json.loads(Path(path).read_text(encoding="utf-8"))
        table = {
            row: {dtype: {int(n): _faster(choice) for n, choice in sizes.items()} for dtype, sizes in dtypes.items()}
            for row, dtypes in document["preferences"].items()
        }
        return {document["environment"]["gpu"]["name"]: table}
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"GEOACT_GPU_PREFERENCES is {path!r}, which is no result of make gpu: {error}") from error


def _torch_state() -> str:
    loaded = sys.modules.get("geoact.torch.fast")
    if loaded is not None:
        return str(loaded.state)
    torch = sys.modules.get("torch")
    try:
        version = torch.__version__ if torch else importlib.metadata.version("torch")
    except (AttributeError, importlib.metadata.PackageNotFoundError):
        version = None
    return torch_fast_path(version)[1]


def info() -> Info:
    """Describe this installation: version, processor, instruction sets, threads, packages.

    Returns
    -------
    Info
        A dictionary of plain values; ``print`` shows it as a table. Sizes are in bytes.
    """
    from geoact import __version__

    return Info(
        version=__version__,
        cpu=_cpu_name(),
        isa=_core.isa(),
        isas_supported=_core.supported_isas(),
        isas_compiled=_core.isas(),
        threads=_core.num_threads(),
        processors=os.cpu_count() or 1,
        last_level_cache_bytes=_core.last_level_cache_bytes(),
        python=platform.python_version(),
        numpy=_package("numpy", "required"),
        ml_dtypes=_package("ml_dtypes", "bfloat16 arrays for NumPy"),
        torch=_package("torch", "for geoact.torch"),
        torch_fast_path=_torch_state(),
        cuda=_cuda_line(),
        gpu_backend=gpu_backend(),
        cupy=_cupy_version(),
        triton=_package("triton", "kernels for torch on a GPU, geoact.kernels"),
    )


def isa() -> str:
    """Name of the instruction set that runs the kernels."""
    return _core.isa()


def set_isa(name: str) -> None:
    """Choose the instruction set that runs the kernels, for the whole process.

    Raises
    ------
    ValueError
        If ``name`` is not compiled in, or this processor cannot run it. Never falls back silently.
    """
    _core.set_isa(name)


def num_threads() -> int:
    """Threads a call may use (environment: ``GEOACT_NUM_THREADS``)."""
    return _core.num_threads()


def set_num_threads(n: int) -> None:
    """Set how many threads a call may use. Results do not depend on it.

    Raises
    ------
    TypeError, ValueError
        If ``n`` is no int, or not within 1 ... 2^31 - 1.
    """
    number = whole("n", n, 1)
    if number >= 2**31:
        raise ValueError(f"n is {n} (accepted: 1 ... 2147483647)")
    _core.set_num_threads(number)
