"""Texts of cuobjdump to instructions, instructions to classes, widths and loops, symbols to names."""

import pytest
from geoact.bench.kernels_report import instructions, loops, names
from geoact.bench.kernels_report.elf import Entry
from geoact.bench.kernels_report.listing import own_shared, parse_disassembly, parse_resources
from geoact.bench.kernels_report.reading import count
from support.machine_code import LOOP, RESOURCES, listing


def counted(*lines, arch="sm_90"):
    (resources, *_) = parse_resources(RESOURCES.splitlines()).values()
    disassembly = parse_disassembly(listing(*lines, arch=arch))
    return count("k", disassembly.arch, resources, disassembly.functions["k"], Entry(b"code", 0, 0))


def code(*lines):
    return parse_disassembly(listing(*lines)).functions["k"]


# --- texts --------------------------------------------------------------------------------------------------


def test_resource_usage():
    found = parse_resources(RESOURCES.splitlines())
    assert list(found) == ["_Z5spillPKfPfi", "_Z6narrowPKfPffi"]
    spill, narrow = found.values()
    assert (spill.registers, spill.stack, spill.local, spill.shared, spill.constant) == (32, 776, 8, 0, 548)
    assert (narrow.registers, narrow.stack, narrow.local, narrow.shared, narrow.constant) == (12, 0, 0, 2048, 660)


def test_the_kib_of_the_system_is_not_the_kernels():
    assert own_shared(2048, 90) == 1024
    assert own_shared(2048, 80) == 2048
    assert own_shared(0, 90) == 0


def test_disassembly():
    found = parse_disassembly(LOOP.splitlines())
    assert found.arch == "sm_90"
    (body,) = found.functions.values()
    assert len(body) == 18
    branch = body[14]
    assert (branch.address, branch.guard, branch.opcode, branch.operands) == (0x210, "@!P0", "BRA", "0xe0")
    assert branch.guarded
    assert body[5].modifiers == ("E", "128")
    assert not body[5].guarded


def test_scheduling_notes_are_no_operands():
    (branch,) = code("BRA 0x0 &req={1} ?trans5")
    assert loops.target(branch) == 0


def test_several_functions_are_kept_apart():
    lines = listing("EXIT", name="a") + listing("NOP", "EXIT", name="b")[1:]
    assert {name: len(body) for name, body in parse_disassembly(lines).functions.items()} == {"a": 1, "b": 2}


def test_a_text_without_kernels_is_empty():
    assert parse_resources(["nothing here"]) == {}
    assert parse_disassembly(["nothing here"]).functions == {}


# --- instructions -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("line", "kind"),
    [
        ("FFMA.SAT R10, R6, R11, 0.5", "fp32"),
        ("FADD2 R2, R4, R6", "fp32"),
        ("DFMA R4, R8, 2, R4", "fp64"),
        ("HMUL2 R13, R0, R5.H0_H0", "half"),
        ("HFMA2.BF16_V2 R2, R4, R6, R8", "half"),
        ("HFMA2.MMA R11, -RZ, RZ, 0.966, -0.00225", "move"),
        ("HADD2.F32 R2, -RZ, R2.H0_H0", "conversion"),
        ("IMAD R0, R0, UR4, R3", "integer"),
        ("IMAD.MOV.U32 R1, RZ, RZ, c[0x0][0x28]", "move"),
        ("IMAD.U32 R1, RZ, RZ, UR4", "move"),
        ("UIADD3 UR4, UR4, 0x1, URZ", "integer"),
        ("UMOV UR4, 0x400", "move"),
        ("UFADD UR4, UR5, UR6", "fp32"),
        ("F2I.TRUNC.NTZ R11, R10", "conversion"),
        ("UI2FP.F32.U32 UR4, UR5", "conversion"),
        ("MUFU.EX2 R5, R5", "transcendental"),
        ("HMMA.16816.F32 R4, R8, R12, R4", "tensor"),
        ("SEL R1, R2, R3, P0", "move"),
        ("S2UR UR5, SR_CgaCtaId", "move"),
        ("LDG.E R2, desc[UR6][R2.64]", "memory"),
        ("ULDC.64 UR6, c[0x0][0x208]", "memory"),
        ("REDG.E.ADD.F32 desc[UR6][R2.64], R9", "memory"),
        ("BAR.SYNC.DEFER_BLOCKING 0x0", "sync"),
        ("SHFL.BFLY PT, R9, R0, 0x1, 0x1f", "sync"),
        ("VOTEU.ANY UR4, UPT, PT", "sync"),
        ("@!P0 BRA 0xe0", "control"),
        ("FROBNICATE R1", "other"),
        ("UFROBNICATE R1", "other"),
    ],
)
def test_kinds(line, kind):
    (one,) = code(line)
    assert instructions.kind(one) == kind


def test_every_class_has_opcodes_and_no_opcode_two_classes():
    words = [word for text in instructions._WORDS.values() for word in text.split()]
    assert len(words) == len(set(words))
    assert (*instructions._WORDS, "other") == instructions.CLASSES


@pytest.mark.parametrize(
    ("line", "bits"),
    [
        ("LDG.E.U8 R0, desc[UR4][R10.64]", 8),
        ("LDG.E.S16.CONSTANT R0, [R10.64]", 16),
        ("LDG.E R0, desc[UR4][R2.64]", 32),
        ("STG.E.64 desc[UR4][R6.64], R4", 64),
        ("@P0 LDG.E.LTC128B.128.CONSTANT R4, [R2.64]", 128),
        ("LDG.E.LTC128B R4, [R2.64]", 32),
        ("LDG.E.ENL2.256 R8, R4, desc[UR4][R2.64]", 256),
    ],
)
def test_widths(line, bits):
    (one,) = code(line)
    assert instructions.width(one) == bits


def test_a_kernel_is_counted():
    found = counted(
        "LDC R1, c[0x0][0x28]",
        "LDG.E.128 R4, desc[UR6][R4.64]",
        "LDGSTS.E.BYPASS.128 [R1], [R2.64]",
        "LD.E.64 R4, [R2.64]",
        "STS [R7], R2",
        "LDS R0, [R0]",
        "BAR.SYNC 0x0",
        "SHFL.BFLY PT, R9, R0, 0x1, 0x1f",
        "STL [R1+0x128], R16",
        "LDL R16, [R1+0x128]",
        "REDG.E.ADD desc[UR6][R2.64], R9",
        "CALL.REL.NOINC 0x130",
        "UBLKCP.S.G [UR4], [UR6], UR8",
        "STG.E.U16 desc[UR4][R2.64], R5",
        "FROBNICATE R1",
        "EXIT",
        "BRA 0x100",
        "NOP",
    )
    assert found.instructions == 16  # without the endless branch and the padding
    assert found.loads == {64: 1, 128: 2}
    assert found.stores == {16: 1}
    assert (found.load_width, found.store_width) == (128, 16)
    assert (found.generic, found.bulk, found.shared_loads, found.shared_stores) == (1, 1, 1, 2)
    assert (found.local_loads, found.local_stores, found.spills) == (1, 1, 2)
    assert (found.barriers, found.shuffles, found.atomics, found.calls, found.branches) == (1, 1, 1, 1, 0)
    assert sum(found.mix.values()) == found.instructions
    assert found.other_opcodes == "FROBNICATE"
    assert (found.loops, found.loop_instructions, found.loop_instructions_per_16_bytes) == (0, 0, None)
    assert (found.registers, found.stack, found.local) == (32, 776, 8)
    assert found.code_bytes == 4


# --- loops --------------------------------------------------------------------------------------------------


def sizes(*lines):
    return [len(loop.body) for loop in loops.innermost(code(*lines))]


def test_the_recorded_loop():
    (body,) = parse_disassembly(LOOP.splitlines()).functions.values()
    (loop,) = loops.innermost(body)
    assert (loop.body[0].address, loop.body[-1].address, len(loop.body)) == (0xE0, 0x210, 11)


def test_straight_code_has_no_loop():
    assert sizes("MOV R0, R1", "EXIT", "BRA 0x20") == []
    assert loops.innermost([]) == []
    assert loops.hottest([]).body == ()


def test_only_the_innermost_of_nested_loops():
    assert sizes("MOV R0, R1", "IADD3 R1, R1, 1, RZ", "FADD R2, R2, R2", "@P0 BRA 0x20", "@P1 BRA 0x10", "EXIT") == [2]


def test_of_two_loops_the_longer_is_hot():
    found = loops.innermost(code("@P0 BRA 0x0", "FADD R1, R1, R1", "NOP", "@P1 BRA 0x10", "EXIT"))
    assert [len(loop.body) for loop in found] == [1, 2]  # the NOP does not count
    assert loops.hottest(found) == found[1]


def test_a_cold_block_behind_the_exit_is_no_loop_of_its_own():
    # The slow path at 0x50 jumps back into the loop: part of that loop, no loop from 0x20 to 0x50.
    assert sizes(
        "MOV R0, R1", "@P1 BRA 0x50", "FADD R2, R2, R2", "@P0 BRA 0x10", "EXIT", "FMUL R2, R2, R2", "BRA 0x20"
    ) == [5]


def test_a_jump_back_out_of_no_loop_is_none():
    # Forward to the end, from there back to shared code before it: a jump backwards, but nothing repeats.
    assert sizes("@P0 BRA 0x30", "MOV R0, R1", "EXIT", "FADD R1, R1, R1", "BRA 0x10") == []


def test_a_warp_meets_again_where_the_region_says():
    # The BSYNC of the block behind the exit does not fall through: it goes on at 0x40, which its BSSY names.
    assert sizes(
        "MOV R0, R1",
        "BSSY B0, 0x40",
        "@P1 BRA 0x70",
        "BSYNC B0",
        "@P0 BRA 0x10",
        "EXIT",
        "BRA 0x60",
        "FADD R1, R1, R1",
        "BSYNC B0",
        "EXIT",
    ) == [6]


def test_a_cycle_with_two_entries_is_no_natural_loop():
    assert sizes("@P0 BRA 0x20", "FADD R1, R1, R1", "FMUL R1, R1, R1", "@P1 BRA 0x10", "EXIT") == []


def test_bytes_moved_by_the_hot_loop():
    found = counted(
        "LDG.E.128 R4, [R2.64]",
        "LDG.E.64 R4, [R2.64]",
        "FADD R1, R1, R1",
        "STG.E.64 [R2.64], R4",
        "@P0 BRA 0x0",
        "EXIT",
    )
    assert (found.loop_instructions, found.loop_loaded, found.loop_stored) == (5, 24, 8)
    assert (found.loop_load_width, found.loop_store_width) == (128, 64)
    assert found.loop_instructions_per_16_bytes == 10
    reading = counted("LDG.E.64 R4, [R2.64]", "@P0 BRA 0x0", "EXIT")
    assert reading.loop_instructions_per_16_bytes == 4


# --- names --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("demangled", "short", "signature"),
    [
        ("void scale<float, 4>(float4 const*, float)", "scale<float, 4>", "scale<float, 4>(float4 const*, float)"),
        ("narrow(float const*, int)", "narrow", "narrow(float const*, int)"),
        ("(anonymous namespace)::hidden(float*)", "hidden", "hidden(float*)"),
        ("void a::b::run<a::Relu, a::Pack<b::Sum> >(float*)", "run<Relu, Pack<Sum>>", None),
        ("void run<(Kind)3>(void (*)(int))", "run<(Kind)3>", "run<(Kind)3>(void (*)(int))"),
        ("add_kernel", "add_kernel", "add_kernel"),
    ],
)
def test_names(demangled, short, signature):
    assert names.short(demangled) == short
    if signature:
        assert names.signature(demangled) == signature


def test_static_kernels_lose_the_hash_of_their_path():
    symbol = "__nv_static_22__442df300_4_d_cu__Z1ff__ZN33_GLOBAL__N__442df300_4_d_cu__Z1ff6hiddenEPff"
    assert names.plain_symbol(symbol) == "_ZN33_GLOBAL__N__442df300_4_d_cu__Z1ff6hiddenEPff"
    assert names.plain_symbol("_Z6narrowPKfPffi") == "_Z6narrowPKfPffi"


def test_a_file_lends_its_name_without_the_architecture():
    assert names.of_file("add-relu-float32-sm_90a") == "add-relu-float32"
    assert names.of_file("forward.sm_80") == "forward"
    assert names.of_file("plasm") == "plasm"
