"""The page of a document and that of a history in a real browser: no network, no error, every width, any name."""

import json
import re

import pytest

pytest.importorskip("plotly")
pytest.importorskip("jinja2")
pytest.importorskip("ruptures")

from geoact.bench.history import History
from geoact.bench.history.page import write_trend_page
from geoact.bench.report import content
from geoact.bench.report.page import write_page
from geoact.bench.results import ResultError
from support import documents

CHARTS = ("speed", "roofline", "prices", "dots", "samples")


@pytest.fixture(scope="module")
def full():
    return documents.full()


@pytest.fixture(scope="module")
def page(full, tmp_path_factory):
    path = tmp_path_factory.mktemp("pages") / "bench.html"
    write_page(full, path)
    return path


@pytest.fixture(scope="module")
def trend(tmp_path_factory):
    folder = tmp_path_factory.mktemp("history")
    documents.history(folder / "results")
    (folder / "results" / "half<b>.json").write_text("{")
    write_trend_page(History.read(folder / "results"), folder / "trend.html", "Toy <i>history</i>")
    return folder / "trend.html"


@pytest.fixture(params=["page", "trend"])
def either(request):
    return request.getfixturevalue(request.param)


# --- the files ---


def test_a_page_is_one_file_that_refers_to_nothing_outside(either):
    text = re.sub(r"<script[^>]*>.*?</script>", "", either.read_text(), flags=re.DOTALL)
    assert not re.findall(r"src\s*=|href\s*=\s*[\"']?[^\"'#]|url\(|@import|https?:", text)
    assert "default-src 'none'" in text
    assert "<script>alert" not in either.read_text()


def test_only_an_earlier_page_of_the_same_kind_is_replaced(full, page, trend, tmp_path):
    history = History.read(trend.parent / "results")
    for write, other in ((write_page, trend), (write_trend_page, page)):
        given = full if write is write_page else history
        path = tmp_path / f"{write.__name__}.html"
        write(given, path)
        first = path.read_bytes()
        write(given, path)
        assert path.read_bytes() == first
        for precious in (b"<html>precious</html>", other.read_bytes(), b""):
            path.write_bytes(precious)
            with pytest.raises(ResultError, match="it is not overwritten$"):
                write(given, path)
            assert path.read_bytes() == precious
        with pytest.raises(ResultError, match="^path is a folder: "):
            write(given, tmp_path)


def test_a_page_holds_the_samples_of_every_case(full, page):
    (text,) = re.findall(r'<script type="application/json" id="data">(.*?)</script>', page.read_text(), re.DOTALL)
    data = json.loads(text)
    for case, shown in zip(full["cases"], data["cases"], strict=True):
        assert shown["name"] == case["name"]
        assert shown["ns"] == pytest.approx(case.get("ns", []), rel=1e-4)
        assert shown["copy"] == pytest.approx(case.get("ceiling_ns", []), rel=1e-4)


# --- in the browser ---


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [400, 1600])
def test_charts_are_seen_and_nothing_overflows(show, page, width, scheme):
    tab = show(page, width, scheme)
    assert tab.evaluate("document.documentElement.scrollWidth") <= width
    for name in CHARTS:
        box = tab.locator(f"#chart-{name} .main-svg").first.bounding_box()
        assert box["width"] > 250
        assert box["height"] > 150
        assert box["x"] >= 0
        assert box["x"] + box["width"] <= width
        assert tab.locator(f"#chart-{name} .points path").count() > 0
    for table in ("bars", "cases", "absences"):
        box = tab.locator(f"#{table}").locator("xpath=..").bounding_box()
        assert box["x"] >= 0
        assert box["x"] + box["width"] <= width
    background, ink = (
        sum(map(int, re.findall(r"\d+", tab.evaluate(f"getComputedStyle(document.body).{name}"))))
        for name in ("backgroundColor", "color")
    )
    assert (background > ink) == (scheme == "light")


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [400, 1600])
def test_trend_charts_are_seen_and_nothing_overflows(show, trend, width, scheme):
    tab = show(trend, width, scheme)
    assert tab.evaluate("document.documentElement.scrollWidth") <= width
    charts = tab.locator(".chart")
    assert charts.count() == 5
    for i in range(5):
        charts.nth(i).scroll_into_view_if_needed()
        charts.nth(i).locator(".main-svg").first.wait_for()
        box = charts.nth(i).locator(".main-svg").first.bounding_box()
        assert box["width"] > 250
        assert box["x"] + box["width"] <= width
        assert charts.nth(i).locator(".points path").count() == 20
    assert tab.evaluate("document.documentElement.scrollWidth") <= width


def test_the_page_says_what_the_document_says(show, page, full):
    tab = show(page)
    assert tab.locator("h1").text_content() == "Benchmark of geoact"
    assert tab.locator(".counts li").all_text_contents() == [f"{k} {v}" for k, v in content.counts(full).items()]
    assert tab.locator("#cases tbody tr").count() == 130
    assert tab.locator("#bars tbody tr").count() == len(full["rows"])
    verdicts = tab.locator("#bars .badge").all_text_contents()
    assert verdicts == [row["met"] for row in full["rows"] if "met" in row]
    assert tab.locator("#bars").bounding_box()["y"] < tab.locator("#cases").bounding_box()["y"]
    shown = tab.locator("#absences tbody th").all_text_contents()
    assert shown == [absence.what for absence in content.absences(full)]
    assert documents.NASTY in shown  # as text
    labels = tab.locator("#environment dt").all_text_contents()
    assert labels == [label for label, _ in content.environment_lines(full)]
    assert tab.locator("#environment").get_by_text("Model CPU <9000>").count() == 1


def shown_cases(tab):
    rows = "rows => rows.filter(r => !r.hidden).map(r => r.querySelector('th').textContent)"
    return tab.eval_on_selector_all("#cases tbody tr", rows)


def test_filters_narrow_the_table_and_the_charts(show, page):
    tab = show(page)
    points = tab.locator("#chart-speed .scatterlayer .trace").last.locator(".points path")
    assert points.count() == 128
    tab.fill("#filter", "relu  BACKWARD")
    found = shown_cases(tab)
    assert len(found) == 16
    assert all("function=relu" in name and "backward" in name for name in found)
    assert tab.locator("#shown").text_content() == "16 of 130"
    assert points.count() == 16
    tab.select_option("select[data-axis=statistics]", "=tensor")
    assert len(shown_cases(tab)) == points.count() == 8
    assert tab.locator("#chart-prices .scatterlayer .trace").last.locator(".points path").count() == 8
    tab.fill("#filter", "")
    tab.select_option("select[data-axis=statistics]", "=None")
    assert len(shown_cases(tab)) == 64
    tab.select_option("select[data-axis=statistics]", "")
    tab.select_option("select[data-axis=status]", "=error")
    assert shown_cases(tab) == [documents.NASTY]
    tab.fill("#filter", "nothing has this")
    assert shown_cases(tab) == []


def test_sorting_by_time_is_by_time_and_not_by_its_text(show, page, full):
    tab = show(page)
    head = tab.locator("#cases thead th").nth(1)
    head.locator("button").focus()
    tab.keyboard.press("Enter")
    assert head.get_attribute("aria-sort") == "ascending"
    medians = {view.name: view.median for view in content.cases(full) if view.measured}
    names = shown_cases(tab)
    assert [medians[name] for name in names[:128]] == sorted(medians.values())
    assert set(names[128:]) == {"liger[n=4096]", documents.NASTY}  # what was not measured stays at the end
    tab.keyboard.press("Enter")
    assert shown_cases(tab)[0] == max(medians, key=medians.get)
    assert set(shown_cases(tab)[128:]) == {"liger[n=4096]", documents.NASTY}


def test_a_case_that_is_picked_shows_its_raw_samples(show, page, full):
    tab = show(page)
    case = full["cases"][77]
    assert tab.locator("#picked").text_content() == full["cases"][0]["name"]
    tab.locator("#cases tbody tr").nth(77).locator(".pick").click()
    assert tab.locator("#picked").text_content() == case["name"]
    assert tab.locator("#cases tr.chosen th").all_text_contents() == [case["name"]]
    data = tab.evaluate("document.getElementById('chart-samples').data.map(trace => [trace.name, trace.y])")
    assert [name for name, _ in data] == ["case", "stream copy"]
    (_, ours), (_, copy) = data
    unit = case["ns"][0] / ours[0]
    assert [y * unit for y in ours] == pytest.approx(case["ns"], rel=1e-4)
    assert [y * unit for y in copy] == pytest.approx(case["ceiling_ns"], rel=1e-4)
    assert tab.locator("#chart-samples .points path").count() == 2 * case["rounds"]


def test_a_click_on_a_point_picks_its_case(show, page):
    tab = show(page)
    point = tab.evaluate(
        """() => {
        const chart = document.getElementById("chart-roofline"), trace = chart.data.at(-1);
        const i = trace.x.indexOf(Math.min(...trace.x));
        const { _size: frame, xaxis, yaxis } = chart._fullLayout;
        chart.scrollIntoView({ block: "center" });
        const at = chart.getBoundingClientRect();
        return { x: at.x + frame.l + xaxis.d2p(trace.x[i]), y: at.y + frame.t + yaxis.d2p(trace.y[i]) };
    }"""
    )
    tab.mouse.move(point["x"], point["y"])
    tab.wait_for_selector("#chart-roofline .hoverlayer .hovertext")
    hovered = tab.locator("#chart-roofline .hoverlayer").text_content()
    tab.mouse.click(point["x"], point["y"])
    picked = tab.locator("#picked").text_content()
    assert picked != "activation[function=relu,dtype=float32,n=4096,statistics=None,direction=forward]"
    assert picked in hovered


def test_names_that_are_mark_up_stay_names(show, tmp_path):
    document = documents.small()
    path = tmp_path / "bench.html"
    write_page(document, path)
    tab = show(path, 400)
    assert tab.locator("h1").text_content() == "Benchmark of toy <1>"
    assert shown_cases(tab)[1] == documents.NASTY
    tab.locator(".pick").nth(1).click()
    assert tab.locator("#picked").text_content() == documents.NASTY
    tab.locator("#chart-speed .scatterlayer .trace").last.locator(".points path").nth(1).hover(force=True)
    tab.wait_for_selector("#chart-speed .hoverlayer .hovertext")
    hovered = tab.locator("#chart-speed .hoverlayer").text_content()
    assert documents.NASTY.replace("&amp;", "&") in hovered.replace("&amp;", "&")
    assert tab.locator("b b, #cases script, svg script").count() == 0
    assert tab.evaluate("document.documentElement.scrollWidth") <= 400


@pytest.mark.parametrize("make", [documents.without_bytes, documents.gpu, documents.small])
def test_charts_without_data_are_not_there(show, tmp_path, make):
    path = tmp_path / "bench.html"
    write_page(make(), path)
    tab = show(path, 400)
    present = {chart for chart in CHARTS if tab.locator(f"#chart-{chart}").count()}
    assert (
        present
        == {
            "without_bytes": {"samples"},
            "gpu": {"speed", "prices", "samples"},
            "small": {"speed", "samples"},
        }[make.__name__]
    )
    assert tab.locator("#bars").count() == 0
    assert tab.evaluate("document.documentElement.scrollWidth") <= 400


def test_a_document_without_cases_has_a_page(show, tmp_path):
    path = tmp_path / "bench.html"
    write_page(documents.document([]), path)
    tab = show(path)
    assert tab.locator(".chart.empty").all_text_contents() == ["no samples"]
    assert tab.locator("#picked-said").text_content() == "Nothing was measured."


# --- the history ---


def test_trend_page_has_the_changes_first_and_marks_them(show, trend):
    tab = show(trend)
    assert tab.locator("h1").text_content() == "Toy <i>history</i>"
    assert tab.locator("#changes tbody th").all_text_contents() == ["slower[n=4096]", "faster[n=4096]"]
    assert tab.locator("#changes tbody td.bad").all_text_contents() == ["-5.8 %"]
    assert tab.locator("#changes code").first.text_content() == "11cccccccc..12cccccccc"
    assert tab.locator("#changes").bounding_box()["y"] < tab.locator("figure").first.bounding_box()["y"]
    tab.locator("#changes tbody a").first.click()
    figure = tab.locator("figure", has=tab.get_by_role("heading", name="slower[n=4096]"))
    figure.locator(".main-svg").first.wait_for()
    shapes = figure.locator(".chart").evaluate("chart => chart.layout.shapes.map(shape => shape.x0)")
    assert shapes == [12.5]
    assert figure.locator(".annotation-text").text_content() == "-5.8 %"
    levels = figure.locator(".chart").evaluate("chart => chart.data.slice(0, -1).map(level => level.y[0])")
    assert levels[1] / levels[0] == pytest.approx(1 / 1.06, rel=0.01)
    assert tab.locator(".notes li").count() == 1
    assert "half<b>.json is no JSON" in tab.locator(".notes li").text_content()


def test_trend_page_filters_and_sorts(show, trend):
    tab = show(trend)
    visible = "figures => figures.filter(f => !f.hidden).map(f => f.querySelector('h3').textContent)"
    tab.fill("#filter", "N=4096 toy er[")
    assert tab.eval_on_selector_all("figure", visible) == ["slower[n=4096]", "faster[n=4096]"]
    tab.fill("#filter", "")
    tab.check("#changed")
    assert tab.eval_on_selector_all("figure", visible) == ["slower[n=4096]", "faster[n=4096]"]
    assert tab.locator("#shown").text_content() == "2 of 5"
    tab.uncheck("#changed")
    assert documents.NASTY in tab.eval_on_selector_all("figure", visible)
    head = tab.locator("#changes thead th").nth(1)
    head.locator("button").click()
    assert head.get_attribute("aria-sort") == "ascending"
    assert tab.locator("#changes tbody th").all_text_contents() == ["slower[n=4096]", "faster[n=4096]"]
    head.locator("button").click()
    assert tab.locator("#changes tbody th").all_text_contents() == ["faster[n=4096]", "slower[n=4096]"]


def test_a_history_without_a_change_says_so(show, tmp_path):
    documents.history(tmp_path / "results", runs=3)
    write_trend_page(History.read(tmp_path / "results"), tmp_path / "trend.html")
    tab = show(tmp_path / "trend.html", 400)
    assert tab.locator(".fine").text_content() == "No series changed its level."
    assert tab.locator("#changes").count() == 0
    assert tab.evaluate("document.documentElement.scrollWidth") <= 400
