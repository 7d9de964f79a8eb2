"""Documents as tables, Markdown and plots: what is said, of whom, and that nothing is made up."""

import io
import math
import re

import numpy as np
import pytest

pytest.importorskip("rich")
pytest.importorskip("matplotlib")

from geoact.bench import Call, Suite, results, runner
from geoact.bench.contenders import Group
from geoact.bench.report import charts, content, plots, show, tables
from geoact.bench.report.markdown import plain, table
from rich.console import Console
from support import documents


@pytest.fixture(scope="module")
def full():
    return documents.full()


def printed(document, width=200, terminal=True):
    console = Console(file=io.StringIO(), width=width, force_terminal=terminal, color_system=None)
    show.print_document(document, console)
    return console.file.getvalue()


# --- the documents these tests are made of ---


@pytest.mark.parametrize("make", [documents.full, documents.small, documents.without_bytes, documents.gpu])
def test_made_up_documents_are_valid_and_the_same_every_time(make, tmp_path):
    results.save(tmp_path / "a.json", make())
    assert results.load(tmp_path / "a.json") == results.load(tmp_path / "a.json")
    assert results.dumps(make()) == results.dumps(make())


def test_a_real_run_has_what_the_made_up_cases_have(full):
    suite = Suite("toy")

    @suite.case(n=[4096])
    def scale(n):
        x, y = np.ones(n), np.empty(n)
        return Call(lambda: np.multiply(x, 2.0, out=y), read=x.nbytes, written=y.nbytes, flops=n)

    document = runner.run(suite, runner.Settings.quick(), environment=documents.environment())
    (case,) = document["cases"]
    if case["status"] == "error":  # in five samples of a crowded machine it may beat the copy; the entry is complete
        assert "runs at" in case["reason"]
    assert set(document) == set(full)
    assert set(case) - {"flags", "reason"} == set(full["cases"][0])
    assert set(case["score"]) == set(full["cases"][0]["score"])
    assert set(case["summary"]) == set(full["cases"][0]["summary"])
    assert "scale[n=4096]" in printed(document)


# --- numbers ---


@pytest.mark.parametrize(
    ("ns", "text"),
    [(0.5, "0.500 ns"), (999.4, "999 ns"), (999.6, "1.00 us"), (1234, "1.23 us"), (5.6789e6, "5.68 ms"),
     (2e9, "2.00 s"), (99960, "100 us"), (3.6e12, "3600 s")],
)  # fmt: skip
def test_times_have_three_digits_in_a_unit_that_suits(ns, text):
    assert content.time_text(ns) == text


def test_bytes_have_binary_units():
    assert [content.bytes_text(n) for n in (64, 4096, 3 << 19, 5 << 30)] == ["64 B", "4 KiB", "1.5 MiB", "5 GiB"]


def test_rates_and_scores_are_those_of_the_stored_samples(full):
    for case, view in zip(full["cases"], content.cases(full), strict=True):
        if case["status"] == "measured":
            assert view.gigabytes == pytest.approx(case["GB/s"], rel=1e-5)
            assert view.gigaflops == pytest.approx(case["GFLOP/s"], rel=1e-5)
            assert view.median == pytest.approx(case["summary"]["median"], rel=1e-5)
            share = view.copy_gigabytes and view.gigabytes / view.copy_gigabytes
            assert share == pytest.approx(case["score"]["median"], rel=0.02)


def test_limits_are_read_back(full):
    found = {row.bar: content.limit_of(row) for row in content.rows(full)}
    assert found["ReLU + statistics vs the best copy"] == ("<=", 1.1)
    assert found["ReLU + statistics, share of the copy"] == (">=", 0.99)
    assert found["one call without statistics"] == ("<=", 1.5)
    assert found["sigmoid without a limit"] is None
    assert found["ran to its end"] is None  # "exact"


def test_counts_add_up(full):
    told = content.counts(full)
    assert told["cases"] == "128 measured, 1 skipped, 1 in error"
    assert sum(map(int, re.findall(r"\d+", told["bars"]))) == len(full["rows"])
    assert "bars" not in content.counts(documents.small())


def test_what_was_not_measured_is_told_once_and_errors_first(full):
    found = content.absences(full)
    assert [absence.error for absence in found] == sorted((a.error for a in found), reverse=True)
    assert sum("onnxruntime" in absence.reason + absence.what for absence in found) == 1
    assert {a.what for a in found if a.error} == {documents.NASTY, "ran to its end"}


# --- in the terminal ---


def test_the_terminal_shows_every_case_bar_and_reason(full):
    text = printed(full)
    assert text.count("noise is stable") == 128
    for case in full["cases"]:
        assert case["name"] in text
    for row in content.rows(full):
        assert row.bar in text
        assert row.measured in text
    for absence in content.absences(full):
        assert absence.reason in text  # mark-up of rich stays text
    assert (
        "* activation[function=relu,dtype=float32,n=4096,statistics=tensor,direction=backward]: clock rate moved"
        in text
    )
    assert content.cpu_times(full) in text
    assert "3 met, 2 not met, 1 open" in text


def test_names_too_long_for_the_terminal_are_shown_by_their_values(full):
    text = printed(full, 140)
    assert text.count("activation[function, dtype, n, statistics, direction]") == 1
    assert "  relu, float32, 4096, None, forward " in text
    assert "activation[function=relu,dtype=float32,n=4096,statistics=None,direction=forward]" not in text


@pytest.mark.parametrize("width", [80, 100, 140])
def test_no_number_is_cut_or_folded_however_narrow(full, width):
    text = printed(full, width)
    assert max(map(len, text.split("Not measured")[0].splitlines()[3:60])) <= width
    for view in content.cases(full):
        if view.measured:
            assert view.share_text in text
            assert content.time_text(view.median) in text


def test_a_pipe_gets_a_wide_table(full):
    assert "noise is stable" in printed(full, 80, terminal=False)


def test_times_of_a_device_are_not_called_those_of_this_machine():
    text = printed(documents.gpu())
    assert "belong to this machine" not in text
    assert "Model GPU 1" in text


def test_cases_without_bytes_are_shown_by_their_times_alone():
    text = printed(documents.without_bytes())
    assert "test_0" in text
    assert "GB/s" not in text
    assert "% of copy (q1" not in text


def test_an_empty_document_is_shown():
    text = printed(documents.document([]))
    assert "cases: none." in text


def test_a_busy_machine_is_told():
    assert "other work shared the machine" in printed(documents.small(load_average=[1.7, 1, 1]))
    assert "other work" not in printed(documents.small())


def test_list_names_everything_of_a_suite():
    suite = Suite("toy")

    @suite.case(n=[1, 2], dtype=["float32", "float64"])
    def scale(n, dtype):
        raise NotImplementedError

    @suite.case()
    def other():
        raise NotImplementedError

    suite.group("peers")(lambda: Group("x"))
    console = Console(file=io.StringIO(), width=60)
    show.list_suite(suite, console)
    text = console.file.getvalue()
    assert text.splitlines()[0] == "toy: 5 cases, 1 group"
    assert "  n = 1, 2\n  dtype = float32, float64\n" in text
    for name in suite.cases:
        assert name in text
    assert "peers" in text


# --- Markdown ---


def test_markdown_has_every_row_and_nasty_names_end_no_cell(full):
    text = show.markdown(full)
    lines = [line for line in text.splitlines() if line.startswith("|")]
    heads = [line for line in lines if line.startswith(("| group", "| case", "|  | where"))]
    assert len(heads) == 3
    absences = content.absences(full)
    assert len(lines) == len(full["rows"]) + 128 + len(absences) + 2 * 3
    columns = {len(re.findall(r"(?<!\\)\|", line)) for line in lines[: len(full["rows"]) + 2]}
    assert columns == {8}
    assert not re.search(r"(?<!\\)<(?!/?(details|summary)>)", text)
    assert "<summary>128 rows</summary>" in text
    assert text.endswith("\n")


def test_markdown_escapes_what_means_something():
    assert plain("a|b <i> [x] *y* `z` \\ a_b _c_\nd &lt;") == r"a\|b \<i> \[x\] \*y\* \`z\` \\ a_b \_c\_ d &amp;lt;"


def test_markdown_tables_align_numbers_to_the_right():
    assert table(("a", "b"), [["1", "2"]], right=("b",)) == ["| a | b |", "| --- | ---: |", "| 1 | 2 |"]


def test_markdown_of_a_short_document_is_not_folded():
    text = show.markdown(documents.small())
    assert "<details>" not in text
    assert "### Bars" not in text
    assert content.cpu_times(documents.small()) in text


# --- what is drawn ---


def test_legend_takes_axes_with_few_values_and_leaves_sizes_to_the_lines(full):
    legend = charts.speeds(full).legend
    assert (legend.colour, legend.shape, legend.sizes) == ("function", "dtype", ("n",))
    assert legend.colours == ("relu", "sigmoid", "gelu", "tanh")


def test_an_integer_axis_that_moves_no_other_bytes_is_a_kind_not_a_size():
    draw = documents.random.Random(0)
    cases = [
        documents.case(f"f[n={n},threads={t}]", {"n": n, "threads": t}, 1e-5, 1e-5, draw=draw, read=n, written=n)
        for n in (4096, 8192) for t in (1, 2)
    ]  # fmt: skip
    legend = charts.speeds(documents.document(cases)).legend
    assert (legend.colour, legend.sizes) == ("threads", ("n",))


def test_roofs_are_the_fastest_copy_in_each_cache(full):
    roofs = charts.speeds(full).roofs
    assert set(roofs) == {"L1", "L2", "L3", "memory"}
    assert roofs["memory"] == pytest.approx(documents.COPY["memory"], rel=0.03)
    assert list(roofs.values()) == sorted(roofs.values(), reverse=True)
    cold = documents.full() | {"cache": "cold"}
    assert list(charts.speeds(cold).roofs) == ["memory"]
    assert list(charts.speeds(documents.gpu()).roofs) == ["device memory"]
    unknown = documents.small(caches={})
    assert list(charts.speeds(unknown).roofs) == ["memory"]


def test_prices_pair_cases_that_differ_in_one_axis_only(full):
    found = charts.prices(full)
    assert (found.axis, found.base, len(found.pairs)) == ("statistics", "None", 64)
    for pair in found.pairs:
        assert {**pair.without.axes, "statistics": "tensor"} == pair.case.axes
        assert pair.low < pair.ratio < pair.high
        assert pair.ratio == pytest.approx(pair.case.median / pair.without.median, rel=0.03)


def test_prices_of_an_axis_with_three_values_and_of_one_that_is_not_there():
    draw = documents.random.Random(0)
    cases = [
        documents.case(f"f[per={per}]", {"per": per}, seconds, None, draw=draw)
        for per, seconds in (("tensor", 1e-5), ("channel", 2e-5), ("row", 3e-5))
    ]
    found = charts.prices(documents.document(cases), "per")
    assert found.base == "tensor"
    assert {pair.value: round(pair.ratio) for pair in found.pairs} == {"channel": 2, "row": 3}
    assert {pair.colour for pair in found.pairs} == {0, 1}
    assert charts.prices(documents.document(cases), "nothing").pairs == ()


def test_prices_cancel_what_slowed_the_machine_in_between():
    draw = documents.random.Random(0)
    cases = [
        documents.case(f"f[statistics={s}]", {"statistics": s}, slow * t, slow * 1e-5, draw=draw, read=64, written=64)
        for s, t, slow in ((None, 1e-5, 1.0), ("tensor", 1.1e-5, 1.5))
    ]  # fmt: skip
    (pair,) = charts.prices(documents.document(cases)).pairs
    assert pair.ratio == pytest.approx(1.1, rel=0.03)  # and not 1.65


def test_dots_are_ratios_of_contenders_that_took_turns(full):
    found = {dot.row.bar: dot for dot in charts.dots(full)}
    assert "one call without statistics" not in found  # microseconds
    assert "onnxruntime vs geoact" not in found  # not measured
    assert "ran to its end" not in found
    assert found["torch eager, sigmoid + statistics vs geoact"].limit == (">=", 30)
    assert all(dot.low <= dot.median <= dot.high for dot in found.values())


# --- plots ---


def test_every_plot_is_written_and_the_same_twice(full, tmp_path):
    first = plots.write_plots(full, tmp_path / "a")
    assert [path.name for path in first.written] == [
        f"{name}.{kind}" for name in ("speed", "roofline", "overhead", "peers") for kind in ("png", "svg")
    ]
    assert first.missing == {}
    second = plots.write_plots(full, tmp_path / "b")
    for one, other in zip(first.written, second.written, strict=True):
        assert one.read_bytes() == other.read_bytes()
    for path in first.written:
        if path.suffix == ".png":
            assert path.read_bytes().startswith(b"\x89PNG")
        else:
            assert "Date" not in path.read_text() or "dc:date" not in path.read_text()
    text = (tmp_path / "a" / "peers.svg").read_text()
    assert "torch eager, sigmoid + statistics vs geoact" in text
    assert sorted(file.name for file in (tmp_path / "a").iterdir()) == sorted(path.name for path in first.written)


def test_a_plot_without_data_is_not_written_and_says_why(tmp_path):
    found = plots.write_plots(documents.small(), tmp_path, ("svg",))
    assert [path.name for path in found.written] == ["speed.svg"]
    assert found.missing == {
        "roofline": "no case declares both bytes and floating-point operations",
        "overhead": "no two measured cases differ in the axis statistics only",
        "peers": "no bar compares contenders that were measured in turns",
    }
    nothing = plots.write_plots(documents.without_bytes(), tmp_path / "none")
    assert nothing.written == []
    assert not (tmp_path / "none").exists()
    assert set(nothing.missing) == {"speed", "roofline", "overhead", "peers"}


def test_names_are_no_mathematics(tmp_path):
    document = documents.small()
    document["suite"] = "$x^2$ costs \\frac{1}{2}$"
    found = plots.write_plots(document, tmp_path, ("svg",))
    assert "$x^2$ costs" in found.written[0].read_text()


def test_the_axis_of_overhead_is_chosen(full, tmp_path):
    plots.write_plots(full, tmp_path, ("svg",), overhead_axis="direction")
    text = (tmp_path / "overhead.svg").read_text()
    assert "time / time with direction = forward" in text


def test_an_unknown_format_is_refused(full, tmp_path):
    with pytest.raises(ValueError, match=r"^formats has 'gif'; accepted: png, svg$"):
        plots.write_plots(full, tmp_path, ("gif",))
    assert list(tmp_path.iterdir()) == []


def test_limits_of_a_logarithmic_axis_surround_the_values():
    low, high = charts.decades([3.0, 3.0])
    assert low < 3 < high
    assert math.isfinite(high)


def test_cells_of_a_case_follow_the_heads(full):
    views = content.cases(full)
    heads = tables.case_heads(views)
    assert [len(tables.case_cells(view, heads)) for view in views] == [len(heads)] * len(views)
    assert tables.case_heads(content.cases(documents.without_bytes())) == [
        "case",
        "median time",
        "rounds: why it stopped",
    ]
