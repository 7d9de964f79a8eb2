"""What NVML and the driver tell of a CUDA device, and why they tell nothing. Read only."""

from __future__ import annotations

import ctypes
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
    """What NVML tells of the first device: read only. ``reason`` says why it tells nothing."""

    def __init__(self, uuid: str = "") -> None:
        self.reason, self._handle = "", None
        try:
            import pynvml

            pynvml.nvmlInit()
            self._nvml = pynvml
            try:
                self._handle = pynvml.nvmlDeviceGetHandleByUUID(uuid if uuid.startswith("GPU-") else f"GPU-{uuid}")
            except pynvml.NVMLError:
                self._handle = pynvml.nvmlDeviceGetHandleByIndex(0)
        except Exception as error:  # not installed, no library, no permission: nothing is measured by it
            self.reason = f"NVML: {type(error).__name__}: {error}"

    def _ask(self, question: Callable[[Any], Any], *more: Any) -> Any:
        try:
            return question(self._handle, *more)
        except self._nvml.NVMLError as error:
            return f"not known: {error}"

    def throttling(self) -> tuple[str, ...]:
        if self._handle is None:
            return ()
        bits = self._ask(self._nvml.nvmlDeviceGetCurrentClocksThrottleReasons)
        return () if isinstance(bits, str) else tuple(why for bit, why in THROTTLING.items() if bits & bit)

    def describe(self) -> dict[str, Any]:
        if self._handle is None:
            return {"nvml": self.reason}
        nvml, clocks = self._nvml, {}
        for name, kind in (("SM", nvml.NVML_CLOCK_SM), ("memory", nvml.NVML_CLOCK_MEM)):
            clocks[name] = {
                "now_MHz": self._ask(nvml.nvmlDeviceGetClockInfo, kind),
                "max_MHz": self._ask(nvml.nvmlDeviceGetMaxClockInfo, kind),
            }
        power = self._ask(nvml.nvmlDeviceGetEnforcedPowerLimit)
        return {
            "driver": nvml.nvmlSystemGetDriverVersion(),
            "clocks": clocks,
            "power_cap_W": power if isinstance(power, str) else power / 1e3,
            "throttled": list(self.throttling()),
        }


def reset_persisting_lines() -> str:
    """Give back L2 lines that somebody asked to keep; what the driver answered."""
    try:
        code = ctypes.CDLL("libcuda.so.1").cuCtxResetPersistingL2Cache()
    except (OSError, AttributeError) as error:
        return f"not reset: {error}"
    return "reset" if code == 0 else f"not reset: CUDA error {code}"
