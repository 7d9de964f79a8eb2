"""Requests to valgrind, made from Python without a compiler and without valgrind's headers.

Valgrind recognises a sequence of machine code that does nothing on a processor (four rotations of a register by 128
bits in all, then a register exchanged with itself) and takes it for a request, whose number and arguments lie in a
block of six words. A few bytes of code in an executable page, called through ctypes, make any request. Outside
valgrind they do nothing and give back the default.

Sources: the sequence is ``__SPECIAL_INSTRUCTION_PREAMBLE`` and ``VALGRIND_DO_CLIENT_REQUEST_EXPR`` of valgrind.h for
amd64, the numbers are those of valgrind.h and callgrind.h (both under a BSD-style licence, made to be used by other
programs), their meaning that of the Valgrind manual, "The Client Request mechanism" and "Callgrind specific client
requests". Standard library only.
"""

from __future__ import annotations

import ctypes
import mmap
import platform
from collections.abc import Callable

from geoact.bench.instructions.errors import CountingError

_CODE = b"".join(
    (
        bytes.fromhex("4889f8"),  # mov rax, rdi: the block
        bytes.fromhex("4889f2"),  # mov rdx, rsi: the default, and then the answer
        bytes.fromhex("48c1c703 48c1c70d 48c1c73d 48c1c733"),  # rol rdi, 3; 13; 61; 51
        bytes.fromhex("4887db"),  # xchg rbx, rbx
        bytes.fromhex("4889d0 c3"),  # mov rax, rdx; ret
    )
)

_RUNNING_ON_VALGRIND = 0x1001
_CALLGRIND = ord("C") << 24 | ord("T") << 16
_ZERO_STATS, _DUMP_STATS_AT, _START_INSTRUMENTATION, _STOP_INSTRUMENTATION = (_CALLGRIND + n for n in (1, 3, 4, 5))


class Machine:
    """Machine code in an executable page, called as a C function of two words that returns a word."""

    def __init__(self, code: bytes) -> None:
        """Raises CountingError where this processor cannot run it or the system forbids it."""
        if platform.system() != "Linux" or platform.machine() != "x86_64":
            raise CountingError(
                f"instructions are counted on Linux x86_64 only, this is {platform.system()} {platform.machine()}: "
                "valgrind takes requests in another form there, and none was tried"
            )
        try:
            self._page = mmap.mmap(-1, mmap.PAGESIZE, prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC)
        except OSError as error:
            raise CountingError(f"this system allows no executable memory: {error}") from error
        self._page.write(code)
        self._first = ctypes.c_char.from_buffer(self._page)
        kind = ctypes.CFUNCTYPE(ctypes.c_size_t, ctypes.c_size_t, ctypes.c_size_t)
        self.call: Callable[[int, int], int] = kind(ctypes.addressof(self._first))


class Requests:
    """What counting asks of valgrind."""

    def __init__(self) -> None:
        """Raises CountingError where there is no way to ask."""
        self._machine = Machine(_CODE)

    def _ask(self, number: int, argument: int = 0) -> int:
        block = _block(number, argument)
        return self._machine.call(ctypes.addressof(block), 0)

    @property
    def answered(self) -> bool:
        """Whether this process runs under valgrind."""
        return self._ask(_RUNNING_ON_VALGRIND) != 0

    def count(self, run: Callable[[], object], label: str) -> None:
        """Run once and have callgrind write what was executed, under this label; without valgrind: just run.

        Instrumentation lasts for one run. It could last longer, and save the translation of the code that every start
        of it causes; but after a run in the same stretch a count is some dozens of instructions higher than without.
        Blocks are made beforehand: what lies between zeroing and writing is the run and a few hundred instructions of
        the interpreter.
        """
        text = ctypes.create_string_buffer(label.encode())
        blocks = [_block(number) for number in (_START_INSTRUMENTATION, _ZERO_STATS, _STOP_INSTRUMENTATION)]
        blocks.append(_block(_DUMP_STATS_AT, ctypes.addressof(text)))
        start, zero, stop, dump = map(ctypes.addressof, blocks)
        call = self._machine.call
        try:
            call(start, 0)
            call(zero, 0)
            run()
            call(dump, 0)
        finally:
            call(stop, 0)


def _block(number: int, argument: int = 0) -> ctypes.Array[ctypes.c_size_t]:
    return (ctypes.c_size_t * 6)(number, argument)
