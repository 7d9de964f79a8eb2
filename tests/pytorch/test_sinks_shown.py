"""Sinks for people: curves and histograms in TensorBoard and Weights & Biases, the table in the terminal."""

import io
import math

import numpy as np
import pytest
from geoact.torch.reading import SUMMARY, Reading
from geoact.torch.sinks import Table, TensorBoard, WandB
from support import readings, standins


@pytest.fixture
def two():
    return readings.two()


# --- TensorBoard ---


def events(folder):
    accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    found = accumulator.EventAccumulator(str(folder), size_guidance={"histograms": 0, "scalars": 0, "tensors": 0})
    found.Reload()
    return found


def test_tensorboard_has_a_curve_per_scalar_and_histograms_over_channels(tmp_path):
    pytest.importorskip("tensorboard")
    first, second = readings.reading(10, layers=2), readings.with_alerts(readings.reading(20, layers=2, shift=-3.5))
    sink = TensorBoard(tmp_path)
    sink.write(first)
    sink.write(second)
    sink.close()
    found = events(tmp_path)
    tags = found.Tags()
    assert sorted(tags["scalars"]) == sorted(first.metrics())
    for tag, value in second.metrics().items():
        points = found.Scalars(tag)
        assert [point.step for point in points] == [10, 20]
        assert points[1].value == pytest.approx(value, rel=1e-6)
    channels = ("firing", "gain", "sd_x", "sd_y")
    assert sorted(tags["histograms"]) == sorted(f"geoact/block.{i}.act/channels/{c}" for i in (0, 1) for c in channels)
    histogram = found.Histograms("geoact/block.1.act/channels/firing")[0].histogram_value
    firing = first["block.1.act"].forward.positive_fraction
    assert histogram.num == firing.size == 16
    assert histogram.sum == pytest.approx(firing.sum())
    (text,) = found.Tensors("geoact/alerts/text_summary")
    assert text.step == 20
    written = text.tensor_proto.string_val[0].decode()
    assert second.alerts
    assert written.splitlines() == [f"- {alert}" for alert in second.alerts]


def test_tensorboard_skips_what_was_not_measured_and_leaves_a_borrowed_writer_open(tmp_path, monkeypatch):
    pytest.importorskip("tensorboard")
    from torch.utils.tensorboard import SummaryWriter

    x = np.zeros((8, 4))  # a constant input has no gain
    layers = (readings.nothing_measured(), readings.layer("b", level="counts", dy=False, index=1))
    layers += (readings.layer("c", x=x, dy=False, index=2), readings.layer("d", per="tensor", dy=False, index=3))
    closed = []
    with SummaryWriter(str(tmp_path)) as writer:
        monkeypatch.setattr(writer, "close", lambda: closed.append(True))  # a closed one opens again by itself
        sink = TensorBoard(writer)
        sink.write(Reading(1, layers))
        sink.close()
        monkeypatch.undo()
        assert not closed
        writer.add_scalar("loss", 1.0, 1)
    tags = events(tmp_path).Tags()
    assert not [tag for tag in tags["scalars"] if "/idle/" in tag]
    assert "geoact/d/scale" in tags["scalars"]
    assert "loss" in tags["scalars"]
    histograms = {"b/channels/firing", "c/channels/firing", "c/channels/sd_x", "c/channels/sd_y"}
    assert set(tags["histograms"]) == {f"geoact/{tag}" for tag in histograms}


def test_tensorboard_refuses_what_is_no_writer(tmp_path):
    with pytest.raises(TypeError, match="^log must be a path or a SummaryWriter"):
        TensorBoard(3)
    with pytest.raises(TypeError, match="^histograms must be a bool"):
        TensorBoard(tmp_path, histograms="yes")


# --- Weights & Biases ---


def test_wandb_logs_each_reading_once_even_where_the_training_logs_more_often(two):
    run = standins.StubRun()
    sink = WandB(run)
    assert run.metrics == {"geoact/step": None, "geoact/*": "geoact/step"}
    sink.write(two[0])
    run.log({"loss": 1.0}, step=1000)
    sink.write(two[1])
    sink.close()
    logged = [(step, data) for step, data, _ in run.logged if "loss" not in data]
    assert [step for step, _ in logged] == [10, 1000]
    for (_, data), reading in zip(logged, two, strict=True):
        assert data == {**reading.metrics(), "geoact/step": reading.step, "geoact/alerts": len(reading.alerts)}
    patient = standins.StubRun()
    WandB(patient, own_step=False).write(two[0])
    assert [(step, commit) for step, _, commit in patient.logged] == [(0, False)]


def test_wandb_needs_a_run():
    with pytest.raises(TypeError, match="^run must be a wandb run"):
        WandB(3)
    with pytest.raises(TypeError, match="^own_step must be a bool"):
        WandB(standins.StubRun(), own_step=1)


@pytest.mark.slow
def test_wandb_accepts_it_offline(tmp_path, monkeypatch):
    wandb = pytest.importorskip("wandb")
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_SILENT", "true")
    with pytest.raises(ValueError, match=r"wandb\.init"):
        WandB()
    two = readings.reading(10), readings.with_alerts(readings.reading(20, shift=-2.0))
    with wandb.init(project="geoact", dir=str(tmp_path)) as run:
        sink = WandB()
        for reading in two:
            sink.write(reading)
        sink.close()
        assert run.step == 20
        run.log({"loss": 1.0}, step=21)  # what is logged for a step is complete when the next one begins
        summary = {name: run.summary[name] for name in two[1].metrics()}
    assert summary == two[1].metrics()


# --- the table ---


def console(terminal, width=120, height=40):
    rich = pytest.importorskip("rich.console")
    out = io.StringIO()
    return rich.Console(file=out, force_terminal=terminal, width=width, height=height, legacy_windows=False), out


def test_table_prints_each_reading_where_there_is_no_terminal(two):
    shown, out = console(terminal=False)
    table = Table(shown)
    table.write(two[0])
    assert "step 10" in out.getvalue()
    assert "\x1b" not in out.getvalue()
    before = out.getvalue()
    table.write(two[1])
    table.close()
    text = out.getvalue()[len(before) :]
    lines = text.splitlines()
    (row,) = [line for line in lines if line.startswith("block.1.act ")]
    values = two[1]["block.1.act"].scalars()
    assert math.isnan(values["shape"])  # nothing of it is left
    assert row.split()[:4] == ["block.1.act", "relu", f"{values['scale']:.3g}", "-"]
    (idle,) = [line for line in lines if line.startswith("idle ")]
    assert idle.split() == ["idle", "relu", *["-"] * len(SUMMARY)]
    assert [line for line in lines if line.startswith("! ")] == [f"! {alert}" for alert in two[1].alerts] != []
    assert "[red]" in text  # a name is not mark-up


def test_table_marks_what_a_rule_objects_to(two):
    shown, out = console(terminal=True)
    Table(shown, live=False).write(two[1])
    red = "\x1b[1;31m"
    lines = [line for line in out.getvalue().splitlines() if "block.1.act" in line and "relu" in line]
    (row,) = lines
    judged = {alert.scalar for alert in two[1].alerts if alert.layer == "block.1.act"}
    assert judged & set(SUMMARY)
    assert row.count(red) == 1 + len(judged & set(SUMMARY))
    assert not [line for line in out.getvalue().splitlines() if "block.0.act" in line and red in line]


def test_live_table_is_replaced_and_the_last_one_stays_whole(two):
    shown, out = console(terminal=True, height=12)
    many = readings.with_alerts(
        Reading(30, tuple(readings.layer(f"l{i}", shift=-3.5 * (i == 17), index=i) for i in range(20)))
    )
    table = Table(shown)
    table.write(two[0])
    table.write(many)
    during = out.getvalue()
    assert "\x1b[1A" in during  # moved up to draw over the first
    assert [line for line in during.splitlines() if "l17" in line and "relu" in line]
    assert "more layers" in during
    assert "l16 " not in during
    table.close()
    after = out.getvalue()[len(during) :]
    assert all(f"l{i}" in after for i in range(20))
    table.close()
    assert out.getvalue() == during + after


@pytest.mark.parametrize("width", [80, 100, 160])
def test_table_never_cuts_a_number(width):
    shown, out = console(terminal=False, width=width)
    layers = tuple(readings.layer(f"model.encoder.layers.{i}.mlp.activation_fn", index=i) for i in range(12))
    Table(shown).write(Reading(1, layers))
    rows = [line for line in out.getvalue().splitlines() if "mlp" in line]
    assert len(rows) == 12
    for i, row in enumerate(rows):
        assert len(row) <= width
        assert f"{i}.mlp" in row
        values = layers[i].scalars()
        assert row.split()[-1] == f"{values['grad_gain']:.3g}"
        assert f"{values['zero']:.3f}" in row.split()


def test_table_refuses_wrong_arguments():
    pytest.importorskip("rich")
    with pytest.raises(TypeError, match="^console must be a rich Console"):
        Table(3)
    with pytest.raises(TypeError, match="^live must be a bool"):
        Table(live="yes")
