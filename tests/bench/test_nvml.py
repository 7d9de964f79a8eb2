"""NVML behind a stand-in: it is asked about the device that is measured, and says so where it knows nothing."""

import sys
import types

import pytest
from geoact.bench import nvml


class FakeNvml(types.ModuleType):
    """Devices by index, with what each of them answers."""

    NVML_CLOCK_SM, NVML_CLOCK_MEM = 1, 2

    class NVMLError(Exception):
        pass

    def __init__(self, devices, reasons=0):
        super().__init__("pynvml")
        self.devices, self.reasons, self.refuses = devices, reasons, False
        self.nvmlInit = lambda: None
        self.nvmlDeviceGetCount = lambda: len(devices)
        self.nvmlDeviceGetHandleByIndex = lambda index: devices[index]
        self.nvmlDeviceGetHandleByUUID = self.nvmlDeviceGetHandleByPciBusId = self.find
        self.nvmlDeviceGetUUID = lambda handle: handle
        self.nvmlDeviceGetClockInfo = lambda handle, kind: self.answer(2619 if kind == 2 else 1980)
        self.nvmlDeviceGetMaxClockInfo = lambda handle, kind: self.answer(2700)
        self.nvmlDeviceGetEnforcedPowerLimit = lambda handle: self.answer(700_000)
        self.nvmlDeviceGetCurrentClocksThrottleReasons = lambda handle: self.answer(self.reasons)
        self.nvmlSystemGetDriverVersion = lambda: "580.1"

    def find(self, identity):
        if identity not in self.devices:
            raise self.NVMLError("Not Found")
        return identity

    def answer(self, value):
        if self.refuses:
            raise self.NVMLError("Not Supported")
        return value


def management(monkeypatch, fake, identity=""):
    monkeypatch.setitem(sys.modules, "pynvml", fake)
    return nvml.Management(identity)


@pytest.mark.parametrize(("identity", "found"), [("2", "GPU-2"), ("GPU-1", "GPU-1"), ("0000:3B:00.0", "0000:3B:00.0")])
def test_nvml_is_asked_about_the_device_that_is_measured(monkeypatch, identity, found):
    told = management(monkeypatch, FakeNvml(["GPU-1", "GPU-2", "0000:3B:00.0"]), identity).describe()
    assert told["uuid"] == found
    assert told["clocks"]["memory"] == {"now_MHz": 2619, "max_MHz": 2700}
    assert (told["driver"], told["power_cap_W"], told["throttled"]) == ("580.1", 700, [])


def test_the_clocks_of_another_device_are_no_evidence(monkeypatch):
    found = management(monkeypatch, FakeNvml(["GPU-1", "GPU-2"]), "GPU-3")
    assert found.describe() == {"nvml": "NVML: NVMLError: Not Found"}
    assert (found.throttling(), found.memory_hertz()) == ((), None)
    assert "it is not known which" in management(monkeypatch, FakeNvml(["GPU-1", "GPU-2"])).reason


def test_the_only_device_is_the_one_whatever_it_is_called(monkeypatch):
    assert management(monkeypatch, FakeNvml(["GPU-1"]), "MIG-7").describe()["uuid"] == "GPU-1"


def test_reasons_to_be_slow_are_told_and_idling_is_none(monkeypatch):
    fake = FakeNvml(["GPU-1"], reasons=0x1 | 0x4 | 0x40)
    assert management(monkeypatch, fake).throttling() == ("power cap", "temperature (hardware)")
    assert management(monkeypatch, fake).memory_hertz() == 2.619e9


def test_what_nvml_refuses_to_say_is_not_known(monkeypatch):
    fake = FakeNvml(["GPU-1"])
    fake.refuses = True
    found = management(monkeypatch, fake)
    assert (found.throttling(), found.memory_hertz()) == ((), None)
    told = found.describe()
    assert {told["power_cap_W"], told["throttled"], told["clocks"]["SM"]["now_MHz"]} == {"not known: Not Supported"}


def test_nvml_that_is_not_there_says_why(monkeypatch):
    monkeypatch.setitem(sys.modules, "pynvml", None)
    found = nvml.Management()
    assert found.reason.startswith("NVML: ModuleNotFoundError")
    assert found.describe() == {"nvml": found.reason}
    assert found.throttling() == ()
