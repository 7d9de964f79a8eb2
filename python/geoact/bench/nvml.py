"""What NVML and the driver tell of a CUDA device, and why they tell nothing. Read only."""

from __future__ import annotations

import ctypes
import importlib
from collections.abc import Callable
from typing import Any

THROTTLING = {
    0x4: "power cap",
    0x8: "hardware slowdown",
    0x20: "temperature (software)",
    0x40: "temperature (hardware)",
    0x80: "power brake",
}
"""The bits of NVML's reasons that slow a device down against its will."""


class Management:
    """What NVML tells of a device: read only. ``reason`` says why it tells nothing.

    Parameters
    ----------
    identity : str
        UUID, with or without "GPU-" ahead of it, or PCI bus address. Empty: the only device there is.
    """

    def __init__(self, identity: str = "") -> None:
        self.reason, self._handle = "", None
        try:
            self._nvml: Any = importlib.import_module("pynvml")
            self._nvml.nvmlInit()
            self._handle = self._find(identity)
        except Exception as error:  # not installed, no library, no permission: nothing is measured by it
            self.reason = f"NVML: {type(error).__name__}: {error}"

    def _find(self, identity: str) -> Any:
        nvml = self._nvml
        try:
            if ":" in identity:
                return nvml.nvmlDeviceGetHandleByPciBusId(identity)
            if identity:
                return nvml.nvmlDeviceGetHandleByUUID(identity if identity.startswith("GPU-") else f"GPU-{identity}")
        except nvml.NVMLError:
            if nvml.nvmlDeviceGetCount() != 1:  # of several, another one's clocks would be no evidence
                raise
        if nvml.nvmlDeviceGetCount() != 1:
            raise LookupError("there are several devices and it is not known which one is meant")
        return nvml.nvmlDeviceGetHandleByIndex(0)

    def _ask(self, question: Callable[..., Any], *more: object) -> Any:
        try:
            return question(self._handle, *more)
        except self._nvml.NVMLError as error:
            return f"not known: {error}"

    def throttling(self) -> tuple[str, ...]:
        """Why the device is slower than it could be; empty where it is not, or NVML does not say."""
        if self._handle is None:
            return ()
        bits = self._ask(self._nvml.nvmlDeviceGetCurrentClocksThrottleReasons)
        return () if isinstance(bits, str) else tuple(why for bit, why in THROTTLING.items() if bits & bit)

    def memory_hertz(self) -> float | None:
        """Clock rate of the memory, or None where NVML does not say."""
        if self._handle is None:
            return None
        rate = self._ask(self._nvml.nvmlDeviceGetClockInfo, self._nvml.NVML_CLOCK_MEM)
        return None if isinstance(rate, str) else rate * 1e6

    def describe(self) -> dict[str, Any]:
        """For the environment block: driver, clock rates, power cap."""
        if self._handle is None:
            return {"nvml": self.reason}
        nvml, clocks = self._nvml, {}
        for name, kind in (("SM", nvml.NVML_CLOCK_SM), ("memory", nvml.NVML_CLOCK_MEM)):
            clocks[name] = {
                "now_MHz": self._ask(nvml.nvmlDeviceGetClockInfo, kind),
                "max_MHz": self._ask(nvml.nvmlDeviceGetMaxClockInfo, kind),
            }
        power = self._ask(nvml.nvmlDeviceGetEnforcedPowerLimit)
        bits = self._ask(nvml.nvmlDeviceGetCurrentClocksThrottleReasons)
        return {
            "uuid": self._ask(nvml.nvmlDeviceGetUUID),
            "driver": nvml.nvmlSystemGetDriverVersion(),
            "clocks": clocks,
            "power_cap_W": power if isinstance(power, str) else power / 1e3,
            "throttled": bits if isinstance(bits, str) else list(self.throttling()),
        }


def reset_persisting_lines() -> str:
    """Give back L2 lines that somebody asked to keep; what the driver answered."""
    try:
        code = ctypes.CDLL("libcuda.so.1").cuCtxResetPersistingL2Cache()
    except (OSError, AttributeError) as error:
        return f"not reset: {error}"
    return "reset" if code == 0 else f"not reset: CUDA error {code}"
