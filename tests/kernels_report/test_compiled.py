"""Real machine code: kernels compiled here, planted regressions found, damaged files named, Triton's results read."""

import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from geoact.bench import kernels_report
from geoact.bench.kernels_report import ReportError, tools
from support.machine_code import compiled, cuobjdump_or_skip, tool_or_skip

WIDE = """
template <int N> __global__ void scale(const float4* x, float4* y, float a, int n) {
  for (int i = blockIdx.x * blockDim.x + threadIdx.x; i < n; i += gridDim.x * blockDim.x) {
    float4 v = x[i];
    v.x *= a, v.y *= a, v.z *= a, v.w = v.w * a + N;
    y[i] = v;
  }
}
template __global__ void scale<4>(const float4*, float4*, float, int);
"""
NARROW = WIDE.replace("float4 v = x[i];", "const float* p = (const float*)(x + i); float4 v{p[0], p[1], p[2], p[3]};")
LONGER = WIDE.replace("v.x *= a,", "v.x = v.x * a + v.y * v.z,")
TABLE = """
__global__ void table(const float* x, float* y, int n) {
  float a[48];
#pragma unroll
  for (int j = 0; j < 48; ++j) a[j] = x[j * n + threadIdx.x];
  for (int k = 0; k < n; ++k) {
#pragma unroll
    for (int j = 0; j < 48; ++j) a[j] = a[j] * a[(j * 7 + 3) % 48] + k;
  }
#pragma unroll
  for (int j = 0; j < 48; ++j) y[j * n + threadIdx.x] = a[j];
}
"""
BLOCKS = """
__global__ void __launch_bounds__(128) fold(const float* x, float* y) {
  __shared__ float s[256];
  s[threadIdx.x] = x[threadIdx.x];
  __syncthreads();
  float v = s[255 - threadIdx.x];
  v += __shfl_xor_sync(~0u, v, 1);
  atomicAdd(y, v);
}
"""
KEY = ("scale<4>", "sm_90")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("kernels")


@pytest.fixture(scope="module")
def wide(folder):
    return compiled(folder, "wide", WIDE)


def test_a_vectorised_kernel(wide):
    report = kernels_report.read(wide)
    (kernel,) = report.kernels
    assert kernel.key == KEY
    assert (dict(kernel.loads), dict(kernel.stores)) == ({128: 1}, {128: 1})
    assert (kernel.spills, kernel.stack, kernel.loops) == (0, 0, 1)
    assert (kernel.loop_loaded, kernel.loop_stored) == (16, 16)
    assert 4 < kernel.loop_instructions < kernel.instructions < kernel.code_bytes / 16
    assert kernel.mix["fp32"] == 4
    assert kernel.other_opcodes == ""
    assert kernel.compiler.startswith("ptxas ")
    assert report.occupancy(kernel).share == 1.0


def test_compiling_again_gives_the_same_hash(folder, wide):
    (folder / "again").mkdir()
    again = compiled(folder / "again", "again", WIDE)
    found = kernels_report.compare(kernels_report.read(wide), kernels_report.read(again))
    assert found.ok
    assert (found.unchanged, found.changed) == (1, 0)


def test_a_narrower_access_is_caught(folder, wide):
    narrow = kernels_report.read(compiled(folder, "narrow", NARROW))
    assert narrow[KEY].loads == {32: 4}
    found = kernels_report.compare(kernels_report.read(wide), narrow)
    assert {"load_width", "loop_load_width"} <= {one.metric for one in found.regressions}


def test_more_instructions_are_caught(folder, wide):
    found = kernels_report.compare(kernels_report.read(wide), kernels_report.read(compiled(folder, "longer", LONGER)))
    assert {one.metric for one in found.regressions} == {"instructions", "loop_instructions"}


def test_a_planted_spill_is_caught(folder):
    roomy = kernels_report.read(compiled(folder, "roomy", TABLE))
    cramped = kernels_report.read(compiled(folder, "cramped", TABLE, "-maxrregcount=32"))
    assert roomy["table", "sm_90"].spills == 0
    assert roomy["table", "sm_90"].stack == 0
    found = kernels_report.compare(roomy, cramped)
    assert {"spills", "stack"} <= {one.metric for one in found.regressions}
    assert cramped["table", "sm_90"].registers <= 32


def test_registers_that_cost_warps_are_caught(folder):
    tight = kernels_report.read(compiled(folder, "tight", TABLE, "-maxrregcount=64"))
    loose = kernels_report.read(compiled(folder, "loose", TABLE))
    found = kernels_report.compare(tight, loose)
    assert "registers" in {one.metric for one in found.regressions}


def test_a_vanished_kernel_is_caught(folder, wide):
    both = kernels_report.read(compiled(folder, "both", WIDE + BLOCKS))
    found = kernels_report.compare(both, kernels_report.read(wide))
    assert (found.code, found.vanished) == (12, (("fold", "sm_90"),))


def test_what_a_kernel_declares(folder):
    source = compiled(
        folder,
        "blocks",
        BLOCKS,
        "-gencode=arch=compute_80,code=sm_80",
        "-gencode=arch=compute_90,code=sm_90",
        suffix="o",
    )
    report = kernels_report.read(source)
    for arch in ("sm_80", "sm_90"):
        kernel = report["fold", arch]
        assert (kernel.max_block, kernel.required_block, kernel.shared) == (128, 0, 1024)
        assert (kernel.barriers, kernel.shuffles, kernel.atomics) == (1, 1, 1)
        assert (kernel.shared_loads, kernel.shared_stores) == (1, 1)
        assert report.block_of(kernel) == 128


def test_objects_libraries_archives_and_folders(folder, wide):
    inside = folder / "inside"
    inside.mkdir()
    library = compiled(inside, "library", WIDE, suffix="so")
    thing = compiled(inside, "thing", WIDE, suffix="o")
    expected = kernels_report.read(wide).kernels
    assert kernels_report.read(library).kernels == expected
    archiver = tool_or_skip_plain("ar")
    subprocess.run([archiver, "rcs", inside / "things.a", thing], check=True)
    assert kernels_report.read(inside / "things.a").kernels == expected
    (inside / "readme.txt").write_text("not read")
    assert kernels_report.read(inside).kernels == expected  # the same kernel three times is one kernel


def tool_or_skip_plain(name):
    path = shutil.which(name)
    if path is None:
        pytest.skip(f"no {name}")
    return path


def test_ptx_needs_an_architecture(folder, wide):
    ptx = compiled(folder, "text", WIDE, arch="compute_80", suffix="ptx")
    with pytest.raises(ReportError, match="say with --arch"):
        kernels_report.read(ptx)
    with pytest.raises(ReportError, match="not an architecture: 'hopper'"):
        kernels_report.read(ptx, arch="hopper")
    with pytest.raises(ReportError, match="ptxas cannot compile"):
        kernels_report.read(ptx, arch="sm_20")
    found = kernels_report.read(ptx, arch=["sm_80", "sm_90"])
    assert [one.arch for one in found.kernels] == ["sm_80", "sm_90"]
    assert found[KEY].loads == {128: 1}


def test_names_of_kernels_that_share_one(folder):
    source = """
    namespace a { __global__ void f(int* x) { *x = 1; } __global__ void f(float* x) { *x = 2; } }
    namespace { __global__ void hidden(int* x) { *x = 3; } }
    static __global__ void fixed(int* x) { *x = 4; }
    void use(int* x) { hidden<<<1, 1>>>(x); fixed<<<1, 1>>>(x); }
    """
    found = kernels_report.read(compiled(folder, "names", source))
    assert [one.name for one in found.kernels] == ["a::f(float*)", "a::f(int*)", "fixed", "hidden"]


def test_different_kernels_of_one_name_in_two_files(folder):
    first = compiled(folder, "first", "__global__ void k(int* x) { *x = 1; }")
    second = compiled(folder, "second", "__global__ void k(int* x) { *x = x[1]; }")
    found = kernels_report.read([first, second])
    assert [one.name for one in found.kernels] == ["k(int*) [first]", "k(int*) [second]"]
    by_file = kernels_report.read([first, second], naming="file")
    assert [one.name for one in by_file.kernels] == ["first", "second"]


@pytest.mark.parametrize("size", [0, 3, 30, 70, 1000])
def test_damaged_cubins_are_named(tmp_path, wide, size):
    path = tmp_path / "cut.cubin"
    path.write_bytes(wide.read_bytes()[:size])
    with pytest.raises(ReportError, match="cut.cubin"):
        kernels_report.read(path)


def test_every_cut_of_a_cubin_ends_in_a_message(wide):
    from geoact.bench.kernels_report.elf import read_cubin

    whole = wide.read_bytes()
    for size in range(64, len(whole) - 64 * 10, 97):
        with pytest.raises(ReportError, match="damaged or cut short"):
            read_cubin(whole[:size], "cut")


def test_files_without_kernels_are_named(tmp_path):
    cuobjdump_or_skip()
    plain = tmp_path / "plain.o"
    (tmp_path / "plain.c").write_text("int f(void) { return 1; }")
    subprocess.run([tool_or_skip_plain("cc"), "-c", tmp_path / "plain.c", "-o", plain], check=True)
    with pytest.raises(ReportError, match="plain.o holds no device code"):
        kernels_report.read(plain)
    with pytest.raises(ReportError, match="holds no device code"):
        kernels_report.read(tmp_path)
    with pytest.raises(ReportError, match=r"cannot read .*none\.cubin"):
        kernels_report.read(tmp_path / "none.cubin")
    with pytest.raises(ReportError, match="is no cubin"):
        kernels_report.read(tmp_path / "plain.c")


@pytest.mark.parametrize("launch", [{"block": 0}, {"block": 2000}, {"shared": -1}])
def test_impossible_launches(wide, launch):
    with pytest.raises(ReportError, match="no launch has blocks"):
        kernels_report.read(wide, **launch)


# --- finding tools ------------------------------------------------------------------------------------------


def test_the_order_in_which_tools_are_looked_for(tmp_path, monkeypatch):
    def fake(name):
        path = tmp_path / name / "cuobjdump"
        path.parent.mkdir()
        path.write_text("#!/bin/sh\n")
        path.chmod(0o755)
        return path

    option, variable, on_path, beside = map(fake, ("option", "variable", "path", "nvcc"))
    (beside.parent / "nvcc").write_text("#!/bin/sh\n")
    (beside.parent / "nvcc").chmod(0o755)
    monkeypatch.setattr(tools, "find_spec", lambda name: None)
    monkeypatch.setenv("GEOACT_CUOBJDUMP", str(variable))
    monkeypatch.setenv("PATH", f"{on_path.parent}:{beside.parent}")
    assert tools.find("cuobjdump", option) == option
    assert tools.find("cuobjdump") == variable
    monkeypatch.delenv("GEOACT_CUOBJDUMP")
    assert tools.find("cuobjdump") == on_path
    on_path.unlink()
    assert tools.find("cuobjdump") == beside
    beside.unlink()
    with pytest.raises(ReportError, match="pip install nvidia-cuda-cuobjdump"):
        tools.find("cuobjdump")
    monkeypatch.setenv("GEOACT_CUOBJDUMP", "/nowhere")
    with pytest.raises(ReportError, match="GEOACT_CUOBJDUMP names /nowhere"):
        tools.find("cuobjdump")


def test_a_tool_in_a_package(tmp_path, monkeypatch):
    path = tmp_path / "triton" / "backends" / "nvidia" / "bin" / "cuobjdump"
    path.parent.mkdir(parents=True)
    path.write_text("#!/bin/sh\n")
    path.chmod(0o755)
    monkeypatch.delenv("GEOACT_CUOBJDUMP", raising=False)
    monkeypatch.setenv("PATH", "")

    class Spec:
        submodule_search_locations = (str(tmp_path / "triton"),)

    monkeypatch.setattr(tools, "find_spec", lambda name: Spec if name == "triton" else None)
    assert tools.find("cuobjdump") == path


# --- Triton -------------------------------------------------------------------------------------------------


class Compiled:
    """What triton.compile returns, as far as the report looks."""

    def __init__(self, cubin, warps=4, kind="*fp32"):
        self.asm = {"cubin": cubin}
        self.metadata = type("Metadata", (), {"name": "scale", "num_warps": warps, "shared": 2048})
        self.src = type("Source", (), {"signature": {"x": kind, "B": "constexpr"}, "constants": {(1,): 1024}})


class Jit:
    """A JIT function of today, whose caches are per device, next to things that carry no code."""

    def __init__(self, *kernels):
        self.device_caches = {0: ({f"key{i}": one for i, one in enumerate(kernels)}, {}, "target", object())}


class Autotuned:
    """Its own cache holds configurations; the kernels are those of the function it wraps."""

    def __init__(self, fn):
        self.cache = {"key": object()}
        self.fn = fn


def test_one_compiled_kernel_is_called_after_its_function(wide):
    report = kernels_report.of_triton(Compiled(wide.read_bytes()))
    (kernel,) = report.kernels
    assert (kernel.name, kernel.arch, kernel.dynamic_shared) == ("scale", "sm_90", 2048)
    (plain,) = kernels_report.read(wide).kernels
    assert replace(kernel, name=plain.name, dynamic_shared=0) == plain


@pytest.mark.parametrize("wrap", [lambda fn: fn, Autotuned])
def test_variants_of_a_function_are_called_after_their_specialisation(folder, wide, wrap):
    other = compiled(folder, "variant", LONGER).read_bytes()
    report = kernels_report.of_triton(wrap(Jit(Compiled(wide.read_bytes()), Compiled(other, kind="*bf16"))))
    names = [one.name for one in report.kernels]
    assert names == ["scale[*bf16, B=1024, warps=4]", "scale[*fp32, B=1024, warps=4]"]


def test_nothing_compiled_is_named():
    with pytest.raises(ReportError, match="nothing compiled"):
        kernels_report.of_triton(Jit())
    other = Compiled(b"")
    other.asm = {"hsaco": b""}
    with pytest.raises(ReportError, match="not compiled for an NVIDIA GPU: it has hsaco"):
        kernels_report.of_triton(other)


# --- the guide and geoact's own kernels ---------------------------------------------------------------------

ROOT = Path(__file__).parents[2]
GUIDE = ROOT / "docs" / "kernels_report.md"


def example(name):
    if not GUIDE.exists():
        pytest.skip("needs the source tree")
    _, found, rest = GUIDE.read_text(encoding="utf-8").partition(f"<!-- example: {name} -->\n```")
    assert found, f"no example {name} in the guide"
    return rest.partition("\n")[2].partition("\n```")[0] + "\n"


def script(path, module):
    path.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m {module} "$@"\n')
    path.chmod(0o755)


def test_the_commands_of_the_guide(tmp_path, monkeypatch):
    pytest.importorskip("typer")
    tool_or_skip("nvcc")
    cuobjdump_or_skip()
    (tmp_path / "scale.cu").write_text(example("scale.cu"))
    script(tmp_path / "geoact-kernels-report", "geoact.bench.kernels_report")
    monkeypatch.setenv("PATH", f"{tmp_path}:{Path(tool_or_skip('nvcc')).parent}", prepend=":")
    done = subprocess.run(
        ["sh", "-ec", example("commands")], cwd=tmp_path, capture_output=True, text=True, check=False, timeout=120
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.count("passed: 1 kernels with the same machine code") == 2


@pytest.mark.slow
def test_the_triton_example_of_the_guide(tmp_path):
    pytest.importorskip("triton")
    cuobjdump_or_skip()
    (tmp_path / "test_add.py").write_text(example("test_add.py"))
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "test_add.py"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "1 passed" in done.stdout


@pytest.fixture
def project(tmp_path):
    """A toy project with a list of units, and the script that gates geoact's own."""
    program = ROOT / "benchmarks" / "kernels_static.py"
    if not program.exists():
        pytest.skip("needs the source tree")
    pytest.importorskip("rich")
    tool_or_skip("nvcc")
    cuobjdump_or_skip()
    (tmp_path / "scale.cu").write_text(WIDE.replace("+ N", "+ FACTOR"))
    (tmp_path / "units.txt").write_text("# path and definitions\nscale.cu FACTOR=2\nscale.cu FACTOR=3  # again\n\n")

    def run(*arguments):
        options = ["--root", tmp_path, "--units", tmp_path / "units.txt", "--baseline", tmp_path / "kernels.json"]
        options += ["--explained", tmp_path / "explained.json", "--arch", "sm_90", *arguments]
        done = subprocess.run(
            [sys.executable, program, *options], capture_output=True, text=True, check=False, timeout=300
        )
        return done.returncode, done.stdout + done.stderr

    return run


def test_own_kernels_against_their_table(project, tmp_path, wide):
    triton = tmp_path / "triton"
    triton.mkdir()
    shutil.copy(wide, triton / "scale-relu-float32-sm_90.cubin")
    own = ("--triton", triton)
    code, told = project(*own)
    assert (code, "there is no baseline" in told) == (12, True)
    assert project(*own, "--update")[0] == 0
    names = [one.name for one in kernels_report.Report.load(tmp_path / "kernels.json").kernels]
    assert names == [
        "scale-relu-float32",
        "scale<4>(float4 const*, float4*, float, int) [scale-FACTOR_2]",
        "scale<4>(float4 const*, float4*, float, int) [scale-FACTOR_3]",
    ]
    code, told = project(*own)
    assert (code, "passed: 3 kernels with the same machine code" in told) == (0, True)
    code, told = project()
    assert (code, "vanished: scale-relu-float32 sm_90" in told) == (12, True)

    source = tmp_path / "scale.cu"
    source.write_text(source.read_text().replace("v.x *= a,", "v.x = v.x * a + v.y * v.z,"))
    code, told = project(*own)
    assert (code, "loop_instructions" in told) == (10, True)
    before = (tmp_path / "kernels.json").read_bytes()
    assert (code, (tmp_path / "kernels.json").read_bytes()) == (10, before)
    code, told = project(*own, "--update")
    assert (code, "REGRESSED" in told) == (0, True)  # stored, and what got worse is still said
    assert project(*own)[0] == 0


@pytest.mark.parametrize(
    ("units", "message"),
    [
        ("none.cu A=1", "line 1: there is no file none.cu"),
        ("# only this", "lists no unit"),
        ("scale.cu FACTOR", "line 1: 'FACTOR' is not name=value"),
        ("scale.cu FACTOR=2\nscale.cu FACTOR=2", "lists scale-FACTOR_2 twice"),
        ("scale.cu OTHER=2", "FACTOR"),  # the compiler's own message
    ],
)
def test_bad_lists_of_units(project, tmp_path, units, message):
    (tmp_path / "units.txt").write_text(units)
    code, told = project()
    assert (code, message in told) == (2, True), told
