const data = JSON.parse(document.getElementById("data").textContent);
const SYMBOLS = ["circle", "square", "triangle-up", "diamond", "triangle-down", "cross", "x", "diamond-tall"];
const VERDICTS = { yes: ["--s0", "circle"], no: ["--s1", "x"], open: ["--s5", "diamond"], "": ["--s7", "circle"] };
const tint = index => colour("--s" + index);
const rows = [...document.querySelectorAll("#cases tbody tr")];
const filter = document.getElementById("filter");
const selects = [...document.querySelectorAll("select[data-axis]")];
let visible = new Set(data.cases.keys());
let picked = data.cases.findIndex(one => one.ns.length);

// --- axes ---

function sized(bytes) {
  for (const unit of ["B", "KiB", "MiB"]) {
    if (bytes < 1024) return bytes + " " + unit;
    bytes /= 1024;
  }
  return bytes + " GiB";
}

function span(values, more = []) {
  const all = [...values, ...more].filter(value => value > 0);
  const [low, high] = [Math.min(...all), Math.max(...all)];
  const room = Math.max(Math.log10(high / low) * 0.06, 0.05);
  return [Math.log10(low) - room, Math.log10(high) + room];
}

// Powers of two, at most so many as there is room for their names.
function bytes_axis(chart, values) {
  const range = span(values);
  const [first, last] = range.map(edge => edge / Math.log10(2));
  const step = Math.max(1, Math.ceil((last - first) / Math.max(2, chart.clientWidth / 75)));
  const powers = [];
  for (let power = Math.ceil(first / step) * step; power <= last; power += step) powers.push(power);
  return { type: "log", range, tickvals: powers.map(power => 2 ** power), ticktext: powers.map(power => sized(2 ** power)), ...axis_style(),
    title: { text: "bytes read and written by one call", standoff: 6 } };
}

function log_axis(range, title) {
  const [low, high] = range.map(edge => 10 ** edge);
  const marks = high < 4 * low ? { nticks: 6, tickformat: "~g" } : ticks(low, high);
  return { type: "log", range, ...marks, ...axis_style(), title: { text: title, standoff: 6 } };
}

// --- charts ---

function place(chart, traces, more) {
  const frame = layout();
  Plotly.react(chart, traces, { ...frame, margin: { ...frame.margin, l: 56 }, showlegend: false, ...more }, BEHAVIOUR);
  if (!chart.dataset.listens) {
    chart.dataset.listens = "1";
    chart.on("plotly_click", event => { const at = event.points[0].customdata?.[0]; if (at !== undefined) pick(at, true); });
  }
}

function points(chosen, x, y, hover) {
  return {
    x: chosen.map(point => point[x]), y: chosen.map(point => point[y]), mode: "markers", type: "scatter",
    marker: { size: 8, opacity: 0.85, color: chosen.map(point => tint(point.colour)), symbol: chosen.map(point => SYMBOLS[point.shape]), line: { width: 0.5, color: colour("--surface") } },
    customdata: chosen.map(point => [point.case, plain(data.cases[point.case].name)]),
    hovertemplate: "%{customdata[1]}<br>" + hover + "<extra></extra>",
  };
}

const shown = list => list.filter(point => visible.has(point.case));

const DRAW = {
  "chart-speed": chart => {
    const chosen = shown(data.speed);
    const copies = {
      x: data.copies.map(copy => copy[0]), y: data.copies.map(copy => copy[1]), mode: "lines+markers", hovertemplate: "copy: %{y:.4g} GB/s<extra></extra>",
      line: { color: colour("--ink"), width: 1, dash: "dot" }, marker: { symbol: "line-ew-open", size: 12, color: colour("--ink"), line: { width: 2 } },
    };
    place(chart, [copies, points(chosen, "x", "y", "%{y:.4g} GB/s")], {
      xaxis: bytes_axis(chart, data.speed.map(point => point.x)),
      yaxis: log_axis(span(data.speed.map(point => point.y), data.copies.map(copy => copy[1])), "GB/s"),
    });
  },
  "chart-roofline": chart => {
    const all = data.speed.filter(point => point.intensity);
    const x = span(all.map(point => point.intensity));
    const ends = x.map(edge => 10 ** edge);
    const dashes = ["solid", "dash", "dashdot", "dot"];
    const roofs = data.roofs.map(([name, speed], k) => ({
      x: ends, y: ends.map(end => end * speed), mode: "lines", line: { color: colour("--ink"), width: 1.2, dash: dashes[k % 4] },
      hovertemplate: plain(name) + ": " + Number(speed.toPrecision(4)) + " GB/s<extra></extra>",
    }));
    place(chart, [...roofs, points(shown(all), "intensity", "gflops", "%{y:.4g} GFLOP/s")], {
      xaxis: log_axis(x, "FLOP per byte moved"),
      yaxis: log_axis(span(all.map(point => point.gflops), roofs.map(roof => roof.y[1])), "GFLOP/s"),
    });
  },
  "chart-prices": chart => {
    const chosen = shown(data.prices);
    const lines = [...new Set(chosen.map(point => point.line))].map(name => {
      const line = chosen.filter(point => point.line === name);
      return { x: line.map(point => point.x), y: line.map(point => point.y), mode: "lines", hoverinfo: "skip", opacity: 0.5, line: { width: 1, color: tint(line[0].colour) } };
    });
    const dots = points(chosen, "x", "y", "%{y:.3f} times as long");
    dots.error_y = { type: "data", symmetric: false, width: 0, thickness: 1, color: colour("--muted"), array: chosen.map(point => point.high - point.y), arrayminus: chosen.map(point => point.y - point.low) };
    place(chart, [...lines, dots], {
      xaxis: bytes_axis(chart, data.prices.map(point => point.x)),
      yaxis: log_axis(span(data.prices.flatMap(point => [point.low, point.high]), [1]), "ratio of times"),
      shapes: [{ type: "line", xref: "paper", x0: 0, x1: 1, y0: 1, y1: 1, line: { color: colour("--ink"), width: 1.2 } }],
    });
  },
  "chart-dots": chart => {
    // Names stand above their dots, so that they have the whole width also on a small screen.
    const letters = Math.max(20, Math.floor(chart.clientWidth / 6.6));
    const cut = text => plain(text.length > letters ? text.slice(0, letters - 1) + "…" : text);
    const names = [], y = [], limits = [];
    let line = 0, group = null;
    for (const dot of data.dots) {
      if (dot.group !== group) {
        group = dot.group;
        names.push([line + 0.25, "<b>" + cut(group) + "</b>", "--ink"]);
        line += 0.75;
      }
      names.push([line, cut(dot.bar), "--muted"]);
      y.push(line + 0.45);
      line += 1;
      if (dot.limit) limits.push({ x: dot.limit[1], y: y.at(-1), side: dot.limit[0] === "<=" ? "]" : "[" });
    }
    chart.style.height = 70 + line * 38 + "px";
    const x = span(data.dots.flatMap(dot => [dot.low, dot.high, dot.limit?.[1] ?? 1]), [1]);
    const frame = layout();
    place(chart, [{
      x: data.dots.map(dot => dot.median), y, mode: "markers", type: "scatter",
      marker: { size: 10, color: data.dots.map(dot => colour((VERDICTS[dot.met] ?? VERDICTS[""])[0])), symbol: data.dots.map(dot => (VERDICTS[dot.met] ?? VERDICTS[""])[1]) },
      error_x: { type: "data", symmetric: false, width: 0, thickness: 2, array: data.dots.map(dot => dot.high - dot.median), arrayminus: data.dots.map(dot => dot.median - dot.low), color: colour("--muted") },
      text: data.dots.map(dot => plain(dot.bar) + "<br>against " + plain(dot.against)), hovertemplate: "%{text}<br>%{x:.4g}<extra></extra>",
    }], {
      margin: { ...frame.margin, l: 8, r: 8 },
      xaxis: { ...log_axis(x, "ratio"), side: "bottom" },
      yaxis: { range: [line + 0.2, -0.4], visible: false, fixedrange: true },
      shapes: [{ type: "line", yref: "paper", x0: 1, x1: 1, y0: 0, y1: 1, line: { color: colour("--ink"), width: 1.2 }, layer: "below" }],
      annotations: [
        ...names.map(([at, text, shade]) => ({ x: 0, xref: "paper", xanchor: "left", y: at, yanchor: "middle", text, showarrow: false, bgcolor: colour("--surface"), borderpad: 1, font: { color: colour(shade), size: 12 } })),
        ...limits.map(limit => ({ x: Math.log10(limit.x), y: limit.y, text: "<b>" + limit.side + "</b>", showarrow: false, font: { color: colour("--ink"), size: 15 } })),
      ],
    });
  },
  "chart-samples": chart => {
    if (picked < 0) return;
    const one = data.cases[picked];
    const [size, unit] = [[1e9, "s"], [1e6, "ms"], [1e3, "us"], [1, "ns"]].find(([least]) => Math.min(...one.ns) >= least) ?? [1, "ns"];
    const trace = (values, name, shade, symbol) => ({
      x: values.map((_, i) => i + 1), y: values.map(ns => ns / size), name, mode: "markers", type: "scatter",
      marker: { color: colour(shade), size: 7, symbol, opacity: 0.85 }, hovertemplate: name + ", round %{x}: %{y:.4g} " + unit + "<extra></extra>",
    });
    const traces = [trace(one.ns, "case", "--s0", "circle")];
    if (one.copy.length) traces.push(trace(one.copy, plain(one.ceiling || "copy"), "--s1", "x"));
    place(chart, traces, {
      showlegend: true, legend: { orientation: "h", x: 0, y: 1.02, yanchor: "bottom" }, margin: { l: 56, r: 8, t: 26, b: 40 },
      xaxis: { title: { text: "round", standoff: 6 }, tickformat: "d", ...(one.ns.length < 10 ? { dtick: 1 } : { nticks: 10 }), ...axis_style() },
      yaxis: { title: { text: unit + " per call", standoff: 6 }, rangemode: "tozero", nticks: 6, ...axis_style() },
    });
  },
};

function draw(id) {
  const chart = document.getElementById(id);
  if (chart && !chart.classList.contains("empty")) DRAW[id](chart);
}
const draw_all = () => Object.keys(DRAW).forEach(draw);

// --- choosing ---

function pick(place, reveal = false) {
  picked = place;
  for (const row of rows) row.classList.toggle("chosen", Number(row.dataset.place) === place);
  document.getElementById("picked").textContent = data.cases[place].name;
  document.getElementById("picked-said").textContent = "rounds " + data.cases[place].said;
  draw("chart-samples");
  if (reveal) document.getElementById("chart-samples").closest("figure").scrollIntoView({ block: "nearest" });
}

function choose() {
  const words = filter.value.toLowerCase().split(/\s+/).filter(Boolean);
  visible = new Set();
  for (const row of rows) {
    const place = Number(row.dataset.place);
    const text = row.textContent.toLowerCase();
    row.hidden = !words.every(word => text.includes(word)) || !selects.every(s => !s.value || "=" + data.axes[place][s.dataset.axis] === s.value);
    if (!row.hidden) visible.add(place);
  }
  document.getElementById("shown").textContent = visible.size + " of " + rows.length;
}
function choose_and_draw() {
  choose();
  for (const id of ["chart-speed", "chart-roofline", "chart-prices"]) draw(id);
}

for (const id of ["bars", "cases", "absences"]) {
  const table = document.getElementById(id);
  if (table) sortable(table);
}
for (const row of rows) row.querySelector(".pick")?.addEventListener("click", () => pick(Number(row.dataset.place)));
filter.addEventListener("input", choose_and_draw);
selects.forEach(select => select.addEventListener("change", choose_and_draw));
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", draw_all);
choose();
if (picked >= 0) pick(picked);
draw_all();
