"""Sinks: what they write can be read back by the tools it is meant for, at any time, and nothing is lost."""

import csv
import json
import math
import subprocess
import sys
from dataclasses import replace

import geoact
import numpy as np
import pytest
from geoact.torch import sinks
from geoact.torch.reading import BACKWARD, COLUMNS, FORWARD, Reading
from geoact.torch.sinks import CSV, HTML, JSONL, Memory, Parquet, Prometheus, Sink, Table, TensorBoard, WandB
from support import readings, standins


@pytest.fixture
def two():
    return readings.two()


def same(found, expected):
    assert len(found) == len(expected)
    for a, b in zip(found, expected, strict=True):
        assert list(a) == list(b) == list(COLUMNS)
        for name in COLUMNS:
            nan = isinstance(b[name], float) and math.isnan(b[name])
            assert math.isnan(a[name]) if nan else a[name] == b[name], name


def all_sinks(folder):
    pytest.importorskip("pyarrow")
    pytest.importorskip("prometheus_client")
    pytest.importorskip("plotly")
    pytest.importorskip("rich")
    return [
        CSV(folder / "a.csv"),
        HTML(folder / "a.html"),
        JSONL(folder / "a.jsonl"),
        Memory(),
        Parquet(folder / "a.parquet"),
        Prometheus(folder / "a.prom"),
        Table(),
        WandB(standins.StubRun()),
    ]


def test_every_sink_is_a_sink_and_may_be_closed_twice_and_unused(tmp_path):
    made = all_sinks(tmp_path / "made" / "on the way")
    assert set(sinks.__all__) == {"Sink", "TensorBoard"} | {type(sink).__name__ for sink in made}
    for sink in made:
        assert isinstance(sink, Sink)
        sink.close()
        sink.close()


def test_importing_the_sinks_imports_none_of_their_packages(python):
    program = """
import sys, geoact.torch.sinks, geoact.torch.alerts, geoact.torch.callbacks
print(sorted({"rich", "jinja2", "plotly", "pandas", "pyarrow", "tensorboard", "prometheus_client", "wandb",
              "lightning", "transformers"} & set(sys.modules)))
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize(
    ("module", "make"),
    [
        ("rich", Table),
        ("plotly", lambda: HTML("a.html")),
        ("pyarrow", lambda: Parquet("a.parquet")),
        ("prometheus_client", lambda: Prometheus("a.prom")),
        ("torch.utils.tensorboard", lambda: TensorBoard("runs")),
        ("wandb", WandB),
    ],
)
def test_a_missing_package_is_named_with_the_command_that_installs_it(monkeypatch, tmp_path, module, make):
    monkeypatch.chdir(tmp_path)
    for name in [name for name in sys.modules if name == module or name.startswith(f"{module}.")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(ImportError, match=rf"{module}.*pip install (\"geoact\[monitor\]\"|wandb)"):
        make()
    assert list(tmp_path.iterdir()) == []


# --- memory ---


def test_memory_keeps_the_readings_themselves(two):
    memory = Memory()
    for reading in two:
        memory.write(reading)
    memory.close()
    assert memory.readings == list(two)
    assert memory.readings[0] is two[0]


# --- CSV and JSON lines ---


def read_csv(path):
    with path.open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    types = dict.fromkeys(COLUMNS, float) | dict.fromkeys(("layer", "activation"), str)
    types |= dict.fromkeys(("step", "index", "calls"), int)
    return [{name: types[name](text) for name, text in row.items()} for row in rows]


def read_jsonl(path):
    def refuse(constant):
        raise AssertionError(f"{constant} is not JSON")

    lines = path.read_text(encoding="utf-8").splitlines()
    rows = [json.loads(line, parse_constant=refuse) for line in lines]
    return [{k: math.nan if v is None else v for k, v in row.items()} for row in rows]


READ = {CSV: read_csv, JSONL: read_jsonl}


@pytest.mark.parametrize("kind", READ)
def test_rows_are_in_the_file_as_soon_as_they_are_written_and_come_back_exactly(kind, two, tmp_path):
    path = tmp_path / "readings"
    sink = kind(path)
    expected = []
    for reading in two:
        sink.write(reading)
        expected += reading.rows()
        same(READ[kind](path), expected)
    assert b"\r" not in path.read_bytes()
    sink.close()
    same(READ[kind](path), expected)
    with pytest.raises(ValueError, match="closed"):
        sink.write(two[0])


def test_csv_is_read_by_pandas(two, tmp_path):
    pandas = pytest.importorskip("pandas")
    sink = CSV(tmp_path / "a.csv")
    sink.write(two[1])
    sink.close()
    pandas.testing.assert_frame_equal(pandas.read_csv(tmp_path / "a.csv"), two[1].to_dataframe(), check_dtype=False)


def test_json_has_null_for_what_is_not_finite(tmp_path):
    layer = readings.layer("a", x=np.array([[1.0, np.inf]]), dy=False)
    assert layer.scalars()["absmax_y"] == math.inf
    sink = JSONL(tmp_path / "a.jsonl")
    sink.write(Reading(1, (layer,)))
    sink.close()
    row = json.loads((tmp_path / "a.jsonl").read_text())
    assert row["absmax_y"] is None
    assert row["grad_gain"] is None
    assert row["nonfinite"] == 1


@pytest.mark.parametrize("kind", [CSV, JSONL, Parquet])
def test_an_existing_file_is_continued_only_on_demand(kind, two, tmp_path):
    if kind is Parquet:
        pytest.importorskip("pyarrow")
    path = tmp_path / "readings"
    for reading in two:
        sink = kind(path, append=True)  # also where there is none yet
        sink.write(reading)
        sink.close()
    before = path.read_bytes()
    with pytest.raises(ValueError, match=r"readings exists.*append=True"):
        kind(path)
    assert path.read_bytes() == before
    rows = READ[kind](path) if kind in READ else parquet_rows(path)
    same(rows, two[0].rows() + two[1].rows())
    with pytest.raises(TypeError, match="^append must be a bool"):
        kind(tmp_path / "other", append=1)


@pytest.mark.parametrize(
    ("kind", "content", "match"),
    [
        (CSV, "step,layer\n1,a\n", "other columns: step, layer"),
        (CSV, ",".join(COLUMNS) + "\n1,half a li", "ends within a line"),
        (JSONL, '{"step": 1}\n', "other columns: step"),
        (JSONL, "[1]\n", "something else"),
        (JSONL, "plain text\n", "something else"),
        (Parquet, "plain text\n", "not a Parquet file"),
    ],
)
def test_a_file_of_something_else_is_not_continued(kind, content, match, tmp_path):
    if kind is Parquet:
        pytest.importorskip("pyarrow")
    path = tmp_path / "readings"
    path.write_text(content)
    with pytest.raises(ValueError, match=match):
        kind(path, append=True)
    assert path.read_text() == content


@pytest.mark.parametrize("make", [CSV, JSONL, Parquet, Prometheus, HTML], ids=lambda kind: kind.__name__)
def test_a_wrong_path_is_refused_before_the_training(make, tmp_path):
    with pytest.raises(ValueError, match="path is a folder"):
        make(tmp_path)
    with pytest.raises(TypeError, match="path must be"):
        make(3)
    (tmp_path / "file").write_text("")
    with pytest.raises(OSError, match="file"):
        make(tmp_path / "file" / "below")


# --- Parquet ---


def parquet_rows(path):
    from pyarrow import parquet

    return parquet.read_table(path).to_pylist()


def test_parquet_is_readable_at_any_time_and_written_every_so_often(two, tmp_path):
    pyarrow = pytest.importorskip("pyarrow")
    path = tmp_path / "a.parquet"
    sink = Parquet(path, every=2)
    assert parquet_rows(path) == []
    sink.write(two[0])
    assert parquet_rows(path) == []
    sink.write(two[1])
    same(parquet_rows(path), two[0].rows() + two[1].rows())
    sink.write(replace(two[0], step=30))
    assert len(parquet_rows(path)) == 7
    sink.close()
    same(parquet_rows(path), two[0].rows() + two[1].rows() + replace(two[0], step=30).rows())
    assert [file.name for file in tmp_path.iterdir()] == ["a.parquet"]
    schema = pyarrow.parquet.read_schema(path)
    assert schema.field("step").type == pyarrow.int64()
    assert schema.field("layer").type == pyarrow.string()
    assert {schema.field(scalar.name).type for scalar in FORWARD + BACKWARD} == {pyarrow.float64()}


@pytest.mark.parametrize(("every", "error"), [(0, ValueError), (1.5, TypeError), (True, TypeError)])
def test_every_counts_readings(every, error, tmp_path):
    pytest.importorskip("pyarrow")
    for kind in (Parquet, HTML):
        with pytest.raises(error, match="^every "):
            kind(tmp_path / "a", every=every)


# --- Prometheus ---


def test_prometheus_reads_back_what_was_written(two, tmp_path):
    parser = pytest.importorskip("prometheus_client.parser")
    sink = Prometheus(tmp_path / "geoact.prom")
    for reading in two:
        sink.write(reading)
    sink.close()
    text = (tmp_path / "geoact.prom").read_text()
    assert text == Prometheus.render(two[1])
    families = {family.name: family for family in parser.text_string_to_metric_families(text)}
    for scalar in FORWARD + BACKWARD:
        family = families[f"geoact_{scalar.name}"]
        assert family.type == "gauge"
        assert family.documentation == scalar.doc
        found = {(s.labels["layer"], s.labels["activation"]): s.value for s in family.samples}
        rows = {(row["layer"], row["activation"]): row[scalar.name] for row in two[1].rows()}
        assert found == {key: value for key, value in rows.items() if not math.isnan(value)}
    assert (readings.NASTY, "relu") in found
    assert [s.value for s in families["geoact_step"].samples] == [20]
    alerts = [(s.labels["layer"], s.labels["rule"]) for s in families["geoact_alert"].samples]
    assert alerts == [(alert.layer, alert.rule) for alert in two[1].alerts] != []
    assert [file.name for file in tmp_path.iterdir()] == ["geoact.prom"]


def test_prometheus_escapes_labels_and_leaves_out_nan(two):
    pytest.importorskip("prometheus_client")
    text = Prometheus.render(two[1])
    assert "nan" not in text.lower().replace("that are nan or infinite", "")
    escaped = readings.NASTY.replace("\\", r"\\").replace("\n", r"\n").replace('"', r"\"")
    value = two[1][readings.NASTY].scalars()["scale"]
    assert f'geoact_scale{{activation="relu",layer="{escaped}"}} {value!r}\n' in text
    assert "# HELP geoact_scale gain: Var y / Var x\n# TYPE geoact_scale gauge\n" in text


def test_a_model_that_is_one_activation_has_a_name_in_the_metrics():
    reading = Reading(1, (readings.layer("", "gelu"),))
    assert "geoact/gelu/scale" in reading.metrics()
    assert geoact.get("gelu") is geoact.gelu
