"""SASS instructions: what kind of work each one is, and how wide it reaches into memory.

The tables cover sm_75 to sm_120. An opcode that they do not know counts as ``other`` and is named by the report, so
that a new instruction set shows up instead of being filed wrongly.
"""

from __future__ import annotations

from typing import NamedTuple

CLASSES = (
    "fp32",
    "fp64",
    "half",
    "integer",
    "conversion",
    "transcendental",
    "tensor",
    "move",
    "memory",
    "sync",
    "control",
    "other",
)
"""Every instruction but padding belongs to exactly one of these."""

WIDTHS = (8, 16, 32, 64, 128, 256)
"""Bits that one thread moves with one global load or store."""


class Instruction(NamedTuple):
    """One line of a disassembly: ``/*0210*/ @!P0 BRA 0xe0 ;``."""

    address: int
    guard: str
    opcode: str
    modifiers: tuple[str, ...]
    operands: str

    @property
    def guarded(self) -> bool:
        """Whether a predicate decides if it runs."""
        return self.guard not in ("", "@PT", "@UPT")


_WORDS = {
    "fp32": """FADD FADD2 FADD32I FMUL FMUL2 FMUL32I FFMA FFMA2 FFMA32I FMNMX FMNMX3 FSETP FSET FCMP FCHK FSWZADD
        FHADD FHFMA""",
    "fp64": "DADD DMUL DFMA DSETP DSET DMNMX",
    "half": "HADD2 HADD2_32I HMUL2 HMUL2_32I HFMA2 HFMA2_32I HSETP2 HSET2 HMNMX2 VHMNMX",
    "integer": """IADD IADD2 IADD3 IADD32I IADD64 IMAD IMAD32I IMUL IMUL32I IMNMX IABS ISETP ISET ISCADD ISCADD32I
        IDP IDP4A LEA LOP LOP3 LOP32I SHF SHL SHR BFE BFI FLO POPC BREV BMSK SGXT VABSDIFF VABSDIFF4 VIADD VIADDMNMX
        VIMNMX VIMNMX3 XMAD""",
    "conversion": "F2F F2I I2F I2I F2FP I2FP F2IP I2IP FRND",
    "transcendental": "MUFU",
    "tensor": """HMMA IMMA BMMA DMMA QMMA OMMA HGMMA IGMMA QGMMA BGMMA UTCHMMA UTCIMMA UTCQMMA UTCOMMA UTCMXQMMA
        WARPGROUP WARPGROUPSET""",
    "move": """MOV MOV32I MOVM SEL FSEL DSEL PRMT S2R S2UR CS2R CS2UR R2UR UR2UP UP2UR P2R R2P R2B B2R PLOP3 PSETP
        PSET LEPC GETLMEMBASE SETLMEMBASE PIXLD AL2P BMOV""",
    "memory": """LD ST LDG STG LDL STL LDS STS LDC LDCU LDSM STSM LDGSTS LDGDEPBAR LDTM STTM LDT STT LDGMC STAS
        ATOM ATOMS ATOMG RED REDS REDG REDAS CCTL CCTLL CCTLT QSPC SULD SUST SUATOM SURED TEX TLD TLD4 TMML
        TXD TXQ UBLKCP UBLKPF UBLKRED UTMALDG UTMASTG UTMAPF UTMAREDG UTMACCTL UTMACMDFLUSH UTCCP UTCSHIFT UTCATOMSWS
        TEXS TLDS TLD4S""",
    "sync": """BAR DEPBAR MEMBAR ERRBAR FENCE SHFL VOTE VOTEU MATCH REDUX CREDUX ELECT WARPSYNC SYNCS ARRIVES
        NANOSLEEP YIELD CGAERRBAR UCGABAR_ARV UCGABAR_WAIT ENDCOLLECTIVE UTCBAR SETCTAID ACQBULK ACQSHMINIT
        ACQSHMFREE""",
    "control": """BRA BRX BRXU JMP JMX JMXU CALL RET EXIT BSSY BSYNC BREAK BPT KILL RTT RPCMOV PREEXIT USETMAXREG
        SETMAXREG USETSHMSZ USETRESIDENCY NOP""",
}
_CLASS = {word: kind for kind, words in _WORDS.items() for word in words.split()}

GLOBAL_LOADS = frozenset({"LDG", "LD", "LDGSTS"})
GLOBAL_STORES = frozenset({"STG", "ST"})
GENERIC = frozenset({"LD", "ST"})
BULK = frozenset({"UBLKCP", "UBLKRED", "UTMALDG", "UTMASTG", "UTMAREDG"})
SHARED_LOADS = frozenset({"LDS", "LDSM"})
SHARED_STORES = frozenset({"STS", "STSM", "LDGSTS"})
LOCAL_LOADS = frozenset({"LDL"})
LOCAL_STORES = frozenset({"STL"})
BARRIERS = frozenset({"BAR", "SYNCS", "UCGABAR_ARV", "UCGABAR_WAIT"})
SHUFFLES = frozenset({"SHFL", "VOTE", "VOTEU", "MATCH", "REDUX", "CREDUX"})
ATOMICS = frozenset({"ATOM", "ATOMS", "ATOMG", "RED", "REDS", "REDG", "REDAS", "SUATOM", "SURED"})
CALLS = frozenset({"CALL"})
BRANCHES = frozenset({"BRA", "BRX", "BRXU", "JMP", "JMX", "JMXU"})

_WIDTH = {"U8": 8, "S8": 8, "U16": 16, "S16": 16, "64": 64, "128": 128, "256": 256, "ENL2": 256}


def width(instruction: Instruction) -> int:
    """Bits per thread of a load or store; without a modifier SASS means 32."""
    return max((_WIDTH[word] for word in instruction.modifiers if word in _WIDTH), default=32)


def kind(instruction: Instruction) -> str:
    """The class of an instruction, one of :data:`CLASSES`."""
    opcode = instruction.opcode
    found = _CLASS.get(opcode)
    # The uniform datapath has the same operations under names with a U: UIADD3, UMOV, USEL, UFADD.
    if found is None and opcode.startswith("U"):
        found = _CLASS.get(opcode[1:])
    if found is None:
        return "other"
    if found in ("integer", "half") and _only_moves(instruction):
        return "move"
    # HADD2.F32 adds nothing: it widens one half of a register to float32.
    if opcode == "HADD2" and "F32" in instruction.modifiers:
        return "conversion"
    return found


def _only_moves(instruction: Instruction) -> bool:
    """Multiply-adds whose product is zero: how compilers copy registers and load constants on a free pipe."""
    if instruction.opcode not in ("IMAD", "HFMA2", "UIMAD", "UHFMA2"):
        return False
    if "MOV" in instruction.modifiers:
        return True
    words = [word.strip() for word in instruction.operands.split(",")]
    return len(words) > 2 and all(word.lstrip("-") in ("RZ", "URZ") for word in words[1:3])
