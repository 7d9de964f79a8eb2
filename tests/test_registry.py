"""The lists agree: compiled structs, registry rows, exported names, statistics; and who may import whom."""

import ast
import copy
import inspect
import pickle
import re
import sys
from pathlib import Path

import geoact
import numpy as np
import pytest
from geoact import _core, _derived
from support.cases import each_row

ROOT = Path(__file__).parent.parent
ROWS = geoact.activations()


# --- activations ----------------------------------------------------------------------------------


def test_compiled_activations_are_the_rows():
    compiled = _core.activations()
    assert [name for name, *_ in compiled] == list(ROWS)
    for name, parameters, saves, trainable in compiled:
        row = ROWS[name]
        assert len(row.parameters) == parameters
        assert row.saves == saves
        assert row.trainable == trainable


def test_activations_of_the_design_are_there():
    smooth = {"sigmoid", "centered_sigmoid", "tanh", "elu", "silu", "gelu", "gelu_tanh", "softplus", "mish"}
    pieces = {"relu", "leaky_relu", "relu_squared", "hardsigmoid", "hardswish"}
    assert smooth | pieces | {"prelu", "swish"} <= set(ROWS)


@each_row
def test_every_row_is_exported_and_found_by_name(case):
    row = case.row
    assert getattr(geoact, row.name) is row
    assert row.name in geoact.__all__
    assert geoact.get(row.name) is row
    assert row.__name__ == row.name


@each_row
def test_every_row_is_documented(case):
    row = case.row
    assert row.__doc__.startswith(row.formula)
    for parameter in row.parameters:
        assert f"\n{parameter.name} : {parameter.doc}" in row.__doc__
    for section in ("Parameters", "Returns", "Raises"):
        assert f"{section}\n{'-' * len(section)}" in row.__doc__
    arguments = list(inspect.signature(row).parameters)
    assert arguments[0] == "x"
    assert arguments[-3:] == ["out", "stats", "gradient_stats"]
    assert set(arguments) >= {parameter.name for parameter in row.parameters}


@each_row
def test_every_row_promises_an_accuracy(case):
    assert set(case.row.ulp) == {"float32", "float64"}
    assert all(0 < limit <= 4 for limit in case.row.ulp.values())


@each_row
def test_defaults_and_names_of_parameters(case):
    x = np.linspace(-3, 3, 50, dtype=np.float32)
    row, values = case.row, dict(zip((p.name for p in case.row.parameters), case.values, strict=True))
    expected = case(x)
    np.testing.assert_array_equal(row(x, **values), expected)
    if all(parameter.default is not None for parameter in row.parameters):
        np.testing.assert_array_equal(row(x), expected)


def test_reference_slopes_are_the_derivatives_of_the_reference_values():
    for row in ROWS.values():
        values = [0.3 if p.default is None else p.default for p in row.parameters]
        x = np.linspace(-5.03, 5.07, 500)
        for kink in row.kinks:
            x = x[np.abs(x - kink) > 1e-3]
        numeric = (row.value(x + 1e-6, *values) - row.value(x - 1e-6, *values)) / 2e-6
        np.testing.assert_allclose(row.slope(x, *values), numeric, rtol=1e-7, atol=1e-8, err_msg=row.name)
        for place, slope in enumerate(row.param_slope):
            above, below = ([*values[:place], values[place] + step, *values[place + 1 :]] for step in (1e-6, -1e-6))
            numeric = (row.value(x, *above) - row.value(x, *below)) / 2e-6
            np.testing.assert_allclose(slope(x, *values), numeric, rtol=1e-7, atol=1e-8, err_msg=row.name)


def test_gelu_approximate_chooses_the_row():
    x = np.linspace(-4, 4, 99, dtype=np.float32)
    tanh = geoact.gelu_tanh(x)
    for y in (geoact.gelu(x, approximate="tanh"), geoact.gelu(x, "tanh")):
        np.testing.assert_array_equal(y, tanh)
    for y in (geoact.gelu(x, approximate="none"), geoact.gelu(x, "none")):
        np.testing.assert_array_equal(y, geoact.gelu(x))
    assert not np.array_equal(geoact.gelu(x), tanh)
    np.testing.assert_array_equal(geoact.gelu.backward(x, approximate="tanh", x=x), geoact.gelu_tanh.backward(x, x=x))


def test_a_row_stays_the_only_one_when_it_is_copied():
    for row in ROWS.values():
        assert pickle.loads(pickle.dumps(row)) is row
        assert copy.deepcopy([row])[0] is row


# --- Triton: read, not imported, so that this runs where triton is absent --------------------------------------

KERNELS = ROOT / "kernels"
with_kernels = pytest.mark.skipif(not KERNELS.is_dir(), reason="needs the source tree")


def assigned(path, name):
    """The expression assigned to a name at the top of a file."""
    for node in ast.parse(path.read_text()).body:
        targets = node.targets if isinstance(node, ast.Assign) else [getattr(node, "target", None)]
        if any(isinstance(target, ast.Name) and target.id == name for target in targets):
            return node.value
    raise AssertionError(f"{path} does not assign {name}")


def jitted(path):
    """Names of the functions of a file that triton compiles, with their arguments."""
    functions = [node for node in ast.parse(path.read_text()).body if isinstance(node, ast.FunctionDef)]
    compiled = [f for f in functions if any("triton.jit" in ast.unparse(d) for d in f.decorator_list)]
    return {f.name: [argument.arg for argument in f.args.args] for f in compiled}


@with_kernels
def test_triton_activations_are_the_rows():
    registry = assigned(KERNELS / "activations.py", "ACTIVATIONS")
    assert [key.value for key in registry.keys] == list(ROWS) == [name for name, *_ in _core.activations()]
    functions = jitted(KERNELS / "activations.py")
    for key, entry in zip(registry.keys, registry.values, strict=True):
        row = ROWS[key.value]
        value, slope = (argument.id for argument in entry.args)
        named = {keyword.arg: keyword.value for keyword in entry.keywords}
        assert functions[value] == ["x", "p"]
        assert functions[slope] == ["x", "y", "p"]
        assert ast.literal_eval(named.get("saves", ast.Constant("x"))) == row.saves
        assert ast.literal_eval(named.get("parameters", ast.Constant(0))) == len(row.parameters)
        assert ast.literal_eval(named.get("trainable", ast.Constant(0))) == row.trainable
        if row.trainable:
            assert functions[named["param_slope"].id] == ["x", "y", "p"]
        if "gradient" in named:
            assert functions[named["gradient"].id] == ["dy", "x", "y", "p"]


@with_kernels
def test_triton_records_have_the_fields_of_the_core():
    classes = {node.name: node for node in ast.parse((KERNELS / "statistics.py").read_text()).body
               if isinstance(node, ast.ClassDef)}  # fmt: skip
    fields = {name: [item.target.id for item in node.body if isinstance(item, ast.AnnAssign)]
              for name, node in classes.items()}  # fmt: skip
    assert fields["Counts"] + fields["Moments"] == [name for name, _ in _core.fields("forward")]
    assert fields["Gradient"] == [name for name, _ in _core.fields("backward")]
    assert fields["Counts"] == list(geoact.GeometryStats(level="counts").cells())


@with_kernels
@pytest.mark.skipif(not (ROOT / "csrc").is_dir(), reason="needs the source tree")
def test_triton_coefficients_are_those_of_the_header():
    number = r"-?0x[0-9a-f.]+p[+-]\d+"
    header = (ROOT / "csrc" / "ops" / "coefficients.h").read_text()
    expected = {"float": [], "double": []}
    for kind, body in re.findall(r"struct \w+<(float|double)> \{\n(.*?)\n\};", header, re.DOTALL):
        expected[kind].extend(float.fromhex(value) for value in re.findall(rf"{kind}\(({number})\)", body))
    pairs = [node.value.args for node in ast.parse((KERNELS / "coefficients.py").read_text()).body
             if isinstance(node, ast.Assign)]  # fmt: skip
    for place, kind in enumerate(expected):
        found = [float.fromhex(value) for pair in pairs for value in ast.literal_eval(pair[place])]
        assert found == expected[kind]
        assert len(found) > 30


# --- statistics -----------------------------------------------------------------------------------


class Recorder(dict):
    def __init__(self, fields):
        super().__init__({name: np.ones(3) for name in fields})
        self.read = set()

    def __getitem__(self, name):
        self.read.add(name)
        return super().__getitem__(name)


@pytest.mark.parametrize(
    ("direction", "rows"),
    [
        ("forward", (*_derived.COUNTS, *_derived.MOMENTS, *_derived.LAYER_COUNTS, *_derived.LAYER_MOMENTS)),
        ("backward", (*_derived.GRADIENT, *_derived.LAYER_GRADIENT)),
    ],
    ids=["forward", "backward"],
)
def test_every_field_is_read_by_a_derived_value(direction, rows):
    fields = {name for name, _ in _core.fields(direction)}
    cells = Recorder(fields)
    with np.errstate(all="ignore"):
        for row in rows:
            row.of(cells, "float32")
    assert cells.read == fields
    names = [row.name for row in rows]
    assert len(set(names)) == len(names)
    assert all(row.formula for row in rows)


def test_counts_need_the_fields_that_level_counts_keeps():
    kept = geoact.GeometryStats(level="counts").cells()
    cells = Recorder(kept)
    with np.errstate(all="ignore"):
        for row in _derived.COUNTS + _derived.LAYER_COUNTS:
            row.of(cells, "float32")
    assert cells.read == set(kept)


def test_names_of_merges_are_known():
    known = {"sum", "minimum", "maximum", "mean", "squared_deviation", "co_deviation"}
    for direction in ("forward", "backward"):
        assert {merge for _, merge in _core.fields(direction)} <= known


# --- who may include and import whom: ops <- cpu, cuda <- bindings <- python/geoact -> kernels ----

MAY_INCLUDE = {
    "ops": {"ops"},
    "call": {"call"},
    "cpu": {"call", "ops", "cpu"},
    "cuda": {"call", "ops", "cuda"},
    "bindings": {"call", "cpu", "cuda", "bindings"},
}
SYSTEM_OF_OPS = {"cmath", "cstdint", "cstring", "cuda_runtime.h", "cuda_fp16.h", "cuda_bf16.h"}


def includes(path):
    return re.findall(r'^\s*#\s*include\s+(["<])([^">]+)[">]', path.read_text(), re.MULTILINE)


@pytest.mark.skipif(not (ROOT / "csrc").is_dir(), reason="needs the source tree")
@pytest.mark.parametrize("layer", MAY_INCLUDE)
def test_compiled_layers_include_only_what_lies_below(layer):
    folder = ROOT / "csrc" / layer
    for path in (p for p in folder.rglob("*") if p.suffix in (".h", ".cpp", ".cu", ".cuh")):
        for mark, name in includes(path):
            if mark == "<":
                assert layer == "bindings" or not re.match(r"(pybind11|numpy|Python)", name), (path, name)
                assert layer != "ops" or name in SYSTEM_OF_OPS, (path, name)
                continue
            target = (path.parent / name).resolve().relative_to(ROOT / "csrc")
            assert target.parts[0] in MAY_INCLUDE[layer], (path, name)


def imported(path):
    """Top-level names imported anywhere in a file, and at import time only."""
    tree = ast.parse(path.read_text())
    top, anywhere = set(), set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            names = [node.module or ""]
        else:
            continue
        anywhere.update(names)
        if node in tree.body:
            top.update(names)
    return {name.partition(".")[0] for name in top}, {name.partition(".")[0] for name in anywhere}


def sources(*parts):
    folder = ROOT.joinpath(*parts)
    return sorted(folder.rglob("*.py")) if folder.is_dir() else []


@pytest.mark.skipif(not (ROOT / "python").is_dir(), reason="needs the source tree")
def test_python_imports_kernels_by_their_installed_name_only():
    for path in [*sources("python"), *sources("tests"), *sources("benchmarks"), *sources("examples")]:
        assert "kernels" not in imported(path)[1], path


@pytest.mark.skipif(not (ROOT / "kernels").is_dir(), reason="this version has no Triton kernels")
def test_kernels_import_nothing_of_ours():
    allowed = {"triton", "typing", "__future__"}
    for path in sources("kernels"):
        siblings = {other.stem for other in sources("kernels")}
        assert imported(path)[1] <= allowed | siblings, path


@pytest.mark.skipif(not (ROOT / "python").is_dir(), reason="needs the source tree")
def test_the_core_imports_numpy_alone():
    allowed = set(sys.stdlib_module_names) | {"numpy", "geoact"}
    modules = [*(ROOT / "python" / "geoact").glob("*.py"), *sources("python", "geoact", "frontends")]
    for path in modules:
        if path.name == "cli.py":  # behind an extra
            continue
        if path.parts[-2:] == ("frontends", "torch.py"):  # loaded when the first tensor comes
            assert imported(path)[0] <= allowed | {"torch"}
            continue
        assert imported(path)[0] <= allowed, path


def needs_torch(path):
    """Whether a file, as it is loaded, imports the part of geoact that needs torch."""
    return any(
        isinstance(node, ast.Import | ast.ImportFrom) and "geoact.torch" in ast.unparse(node)
        for node in ast.parse(path.read_text()).body
    )


@pytest.mark.skipif(not (ROOT / "python").is_dir(), reason="needs the source tree")
def test_only_the_torch_folder_needs_torch_when_it_is_loaded():
    for path in sources("python", "geoact"):
        if "torch" in path.relative_to(ROOT / "python" / "geoact").parts or path.stem == "torch":
            continue
        assert "torch" not in imported(path)[0], path
        assert not needs_torch(path), path


def test_importing_geoact_loads_no_framework(python):
    program = """
import sys, numpy
before = set(sys.modules)
import geoact
geoact.relu(numpy.ones(3)); geoact.info(); str(geoact.GeometryStats())
print(*sorted({name.partition(".")[0] for name in set(sys.modules) - before}))
"""
    loaded = set(python(program).split())
    heavy = {
        "torch",
        "cupy",
        "triton",
        "scipy",
        "matplotlib",
        "pandas",
        "sklearn",
        "ml_dtypes",
        "rich",
        "typer",
        "jinja2",
    }
    assert not loaded & heavy


def test_info_is_a_table_of_plain_values():
    found = geoact.info()
    assert found["isa"] == geoact.isa()
    assert set(found["isas_supported"]) <= set(found["isas_compiled"])
    assert found["threads"] == geoact.num_threads()
    assert found["last_level_cache_bytes"] > 0
    lines = str(found).splitlines()
    assert [line.split()[0] for line in lines] == list(found)
