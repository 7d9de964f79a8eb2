"""The page of the HTML sink in a real browser: from file://, no network, no error, every width."""

import json
import re
from dataclasses import replace

import numpy as np
import pytest
from geoact.torch.alerts import check
from geoact.torch.reading import AXES, Reading
from support import readings

pytest.importorskip("plotly")
pytest.importorskip("jinja2")

from geoact.torch.sinks import HTML

LAYERS, STEPS = 24, (100, 200, 300, 400)
NASTY = 'blk.<script>alert("1")</script>&amp;'


def model(step):
    """A network of 24 layers, three of which fall ill on the way; one has a name that is mark-up."""
    layers = [
        readings.layer(
            NASTY if i == 3 else f"encoder.layers.{i}.mlp.activation_fn",
            "relu" if i % 3 else "gelu",
            i,
            shift=-3.4 * (1 + i / 10) if (i == 17 and step > 200) or (i == 5 and step == 200) else 0.0,
            scale=1 + i / 10,
            seed=step,
        )
        for i in range(LAYERS)
    ]
    reading = Reading(step, tuple(layers))
    return replace(reading, alerts=check(reading))


@pytest.fixture(scope="module")
def run():
    return [model(step) for step in STEPS]


@pytest.fixture(scope="module")
def page(run, tmp_path_factory):
    path = tmp_path_factory.mktemp("html") / "page.html"
    sink = HTML(path, title="A run of <b>24</b> layers")
    for reading in run:
        sink.write(reading)
    sink.close()
    return path


# --- the file ---


def data(path):
    (text,) = re.findall(r'<script type="application/json" id="data">(.*?)</script>', path.read_text(), re.DOTALL)
    return json.loads(text)


def test_a_page_of_ours_is_replaced_and_nothing_else(run, tmp_path):
    path = tmp_path / "page.html"
    for _ in range(2):
        sink = HTML(path)
        sink.write(run[0])
        sink.close()
    assert data(path)["curves"]
    path.write_text("<html>precious</html>")
    with pytest.raises(ValueError, match="no page of geoact's"):
        HTML(path)
    assert path.read_text() == "<html>precious</html>"


def test_page_is_written_when_due_and_at_the_end(run, tmp_path):
    path = tmp_path / "page.html"
    sink = HTML(path, every=2)
    sink.close()
    assert not path.exists()  # nothing was read
    steps = []
    for reading in run:
        sink.write(reading)
        steps.append(data(path)["curves"][-1]["step"])
    assert steps == [100, 100, 300, 300]
    sink.close()
    assert [curve["step"] for curve in data(path)["curves"]] == list(STEPS)
    assert [file.name for file in tmp_path.iterdir()] == ["page.html"]


def test_page_holds_the_curves_in_the_order_of_the_layers(run, page):
    found = data(page)
    assert found["names"]["3"] == NASTY
    for curve, reading in zip(found["curves"], run, strict=True):
        assert curve["index"] == list(range(LAYERS))
        for axis in AXES:
            expected = [layer.scalars()[axis] for layer in reading]
            np.testing.assert_allclose(
                [np.nan if v is None else v for v in curve[axis]],
                [v if np.isfinite(v) else np.nan for v in expected],
                rtol=1e-4,
            )


def test_page_refers_to_nothing_outside_itself(page):
    text = re.sub(r"<script>.*?</script>", "", page.read_text(), flags=re.DOTALL)
    assert not re.findall(r"(?:src|href)\s*=|url\(|@import|https?:", text)
    assert "<script>alert" not in page.read_text()


def test_older_curves_are_thinned_and_the_last_reading_is_always_there(tmp_path):
    path = tmp_path / "page.html"
    sink = HTML(path, every=1000, keep=8)
    one = readings.reading(layers=2)
    for step in range(1, 101):
        sink.write(replace(one, step=step))
    sink.close()
    steps = [curve["step"] for curve in data(path)["curves"]]
    assert steps == [1, 17, 33, 49, 65, 81, 97, 100]
    assert "100 readings since step 1" in path.read_text()


def test_alerts_that_ceased_are_listed_apart(run, page):
    text = page.read_text()
    now, _, earlier = text.partition("<details>")
    assert "encoder.<wbr>layers.<wbr>17.<wbr>" in now[now.index('id="alerts"') :]
    assert "since step 300" in now
    assert "encoder.<wbr>layers.<wbr>5.<wbr>" not in now[now.index('id="alerts"') :]
    assert "encoder.<wbr>layers.<wbr>5.<wbr>" in earlier[: earlier.index("</details>")]
    assert "step 200, 1 time<" in earlier


def test_wrong_arguments(tmp_path):
    with pytest.raises(TypeError, match="^title must be a str"):
        HTML(tmp_path / "a.html", title=3)
    with pytest.raises(ValueError, match="^keep is 0"):
        HTML(tmp_path / "a.html", keep=0)


# --- in the browser ---


def column(tab, place):
    return tab.eval_on_selector_all(f"#table tbody tr > :nth-child({place})", "cells => cells.map(c => c.textContent)")


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [400, 1600])
def test_nothing_overflows_and_all_four_charts_are_seen(show, page, width, scheme):
    tab = show(page, width, scheme)
    assert tab.evaluate("document.documentElement.scrollWidth") <= width
    charts = tab.locator(".chart")
    assert charts.count() == 4
    for i in range(4):
        box = charts.nth(i).locator(".main-svg").first.bounding_box()
        assert box["width"] > 250
        assert box["height"] > 150
        assert box["x"] >= 0
        assert box["x"] + box["width"] <= width
        lines = charts.nth(i).locator(".scatterlayer .trace path.js-line")
        assert lines.count() == len(STEPS)
        label = charts.nth(i).get_attribute("aria-label")
        assert "24 layers at step 400" in label
        assert "undefined" not in charts.nth(i).inner_html()
    background = tab.evaluate("getComputedStyle(document.body).backgroundColor")
    ink = tab.evaluate("getComputedStyle(document.body).color")
    assert (sum(map(int, re.findall(r"\d+", background))) > sum(map(int, re.findall(r"\d+", ink)))) == (
        scheme == "light"
    )


def test_table_has_a_row_per_layer_and_marks_the_ill_one(show, page, run):
    tab = show(page)
    assert tab.locator("#table tbody tr").count() == LAYERS
    assert column(tab, 2) == [layer.name for layer in run[-1]]
    rows = tab.eval_on_selector_all("#table td.bad", "cells => cells.map(c => c.closest('tr').rowIndex - 1)")
    assert set(rows) == {int(re.findall(r"\d+", alert.layer)[0]) for alert in run[-1].alerts} == {17}
    assert tab.locator("#alerts .alerts li").count() == len(run[-1].alerts) > 0
    assert tab.locator("#alerts details li").count() > 0
    assert tab.locator("h1").text_content() == "A run of <b>24</b> layers"


def test_sorting_by_number_by_word_and_with_gaps(show, tmp_path):
    layers = [readings.layer(f"l{i}", ["relu", "gelu", "tanh"][i % 3], i, scale=1 + i % 5) for i in range(11)]
    layers.append(readings.nothing_measured("idle", index=11))
    path = tmp_path / "page.html"
    sink = HTML(path)
    sink.write(Reading(1, tuple(layers)))
    tab = show(path)
    heads = [text.strip() for text in tab.locator("#table thead th").all_text_contents()]
    assert heads[:4] == ["#", "layer", "activation", "scale"]
    scales = {layer.name: layer.scalars()["scale"] for layer in layers}
    measured = sorted((name for name in scales if name != "idle"), key=scales.get)

    def click(place):
        head = tab.locator("#table thead th").nth(place)
        head.locator("button").focus()
        tab.keyboard.press("Enter")
        marked = tab.eval_on_selector_all("#table thead th[aria-sort]", "heads => heads.map(h => h.cellIndex)")
        assert marked == [place]
        return head.get_attribute("aria-sort"), column(tab, 2)

    assert click(3) == ("ascending", [*measured, "idle"])
    assert click(3) == ("descending", [*measured[::-1], "idle"])
    direction, _ = click(2)
    assert direction == "ascending"
    assert column(tab, 3) == sorted(column(tab, 3))
    assert click(1) == ("ascending", ["idle", *(f"l{i}" for i in range(11))])
    assert click(0) == ("ascending", [*(f"l{i}" for i in range(11)), "idle"])
    assert click(0)[1] == ["idle", *(f"l{i}" for i in reversed(range(11)))]


def test_slider_shows_another_step_over_those_before_it(show, page, run):
    tab = show(page)
    bold = "chart => { const t = chart.data.at(-1); return [chart.data.length, t.line.width, t.y]; }"
    chart = tab.locator("#chart-scale")
    assert tab.locator("#shown").text_content() == "400"
    tab.locator("#step").focus()
    for _ in range(2):
        tab.keyboard.press("ArrowLeft")
    assert tab.locator("#shown").text_content() == "200"
    assert tab.locator("#step").get_attribute("aria-valuetext") == "step 200"
    assert tab.locator("#earlier").text_content() == "lighter: steps 100"
    traces, width, y = chart.evaluate(bold)
    assert (traces, width) == (2, 2.5)
    np.testing.assert_allclose(y, [layer.scalars()["scale"] for layer in run[1]], rtol=1e-4)


def test_hovering_names_the_layer(show, page):
    tab = show(page)
    tab.locator("#chart-shape .points path").nth(3).hover(force=True)
    tab.wait_for_selector("#chart-shape .hoverlayer .hovertext")
    text = tab.locator("#chart-shape .hoverlayer").text_content()
    assert NASTY in text
    assert "at step 400" in text


def test_eight_earlier_curves_at_most(show, tmp_path):
    path = tmp_path / "page.html"
    sink = HTML(path, every=100)
    one = readings.reading(layers=3)
    for step in range(1, 31):
        sink.write(replace(one, step=step))
    sink.close()
    tab = show(path)
    assert tab.locator("#chart-scale .scatterlayer .trace").count() == 9
    assert tab.locator("#earlier").text_content().startswith("lighter: steps 1, ")


def test_what_was_not_measured_is_said_so(show, tmp_path):
    path = tmp_path / "page.html"
    sink = HTML(path)
    sink.write(readings.reading(1, layers=2, level="counts", dy=False))
    tab = show(path, 400)
    assert tab.locator(".chart.empty").all_text_contents() == ["not measured"] * 4
    assert tab.locator("#chart-scale").get_attribute("aria-label") == "Scale: not measured"
    assert tab.locator("#table tbody tr").count() == 2
    assert tab.locator("#step").count() == 0
    assert tab.locator(".fine").text_content() == "No alert in the last reading."
    assert tab.evaluate("document.documentElement.scrollWidth") <= 400
