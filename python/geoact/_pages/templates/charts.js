// The one look of all charts; colours are read anew at every drawing, as the reader may change from light to dark.
const colour = name => getComputedStyle(document.documentElement).getPropertyValue(name).trim();
const BEHAVIOUR = { responsive: true, displayModeBar: false, scrollZoom: false };

// Plotly reads a little HTML in hover texts; names are plain.
const plain = text => text.replaceAll("&", "&amp;").replaceAll("<", "&lt;").replaceAll(">", "&gt;");

function axis_style() {
  return { gridcolor: colour("--line"), linecolor: colour("--line"), zeroline: false, automargin: true };
}

function layout() {
  return {
    autosize: true, margin: { l: 44, r: 8, t: 10, b: 40 }, hovermode: "closest",
    paper_bgcolor: "rgba(0,0,0,0)", plot_bgcolor: "rgba(0,0,0,0)",
    font: { family: getComputedStyle(document.body).fontFamily, size: 12, color: colour("--muted") },
    hoverlabel: { bgcolor: colour("--raised"), bordercolor: colour("--accent"), font: { color: colour("--ink") } },
  };
}

// Plain numbers as long as they are short, and those between the powers of ten if there are few of these.
function ticks(low, high) {
  return { dtick: high > 1000 * low ? 1 : "D2", tickformat: low > 1e-4 && high < 1e4 ? "~g" : "", exponentformat: "power" };
}
