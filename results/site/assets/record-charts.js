// The charts of a record: how long calls took beside the baseline's, and the medians of its blocks over the run.
"use strict";

compressbench.recordCharts = (() => {
  const { seconds } = compressbench.recordWords;
  let drawn = [];

  const colour = (name) => getComputedStyle(document.getElementById("record")).getPropertyValue(name).trim();

  // the record's own arm in the accent, what it is compared with in the other colour, a control in grey
  function armColour(arm, own) {
    if (arm === own) return colour("--record-own");
    return arm === "control" ? colour("--record-control") : colour("--record-other");
  }

  function armName(arm, own) {
    if (arm === own) return "this record";
    if (arm === "control") return "baseline again (control)";
    return own === "baseline" ? "copy of the baseline" : "baseline";
  }

  function faded(hex, alpha) {
    const parts = /^#([0-9a-f]{6})$/i.exec(hex);
    return parts ? `rgba(${[0, 2, 4].map((at) => parseInt(parts[1].slice(at, at + 2), 16)).join(",")},${alpha})` : hex;
  }

  function axis(title, more = {}) {
    return {
      ...more,
      title: { display: true, text: title, color: colour("--record-ink-2") },
      ticks: { color: colour("--record-ink-2"), maxRotation: 0, autoSkipPadding: 20, ...more.ticks },
      grid: { color: colour("--record-line") },
      border: { color: colour("--record-line") }
    };
  }

  // of a logarithmic axis only some of each decade, or its labels touch
  function logTick(value) {
    const digit = Math.round(value / 10 ** Math.floor(Math.log10(value) + 1e-9));
    return [1, 2, 3, 5, 7].includes(digit) ? seconds(value) : "";
  }

  function options(x, y, callbacks, more = {}) {
    return {
      responsive: true,
      maintainAspectRatio: false,
      animation: false,
      interaction: { mode: "nearest", axis: "x", intersect: false },
      scales: { x, y },
      plugins: {
        legend: { align: "start", labels: { color: colour("--record-ink"), usePointStyle: true, boxHeight: 8 } },
        tooltip: { callbacks },
        ...more
      }
    };
  }

  // a dashed line at each arm's median
  const medianLines = {
    id: "medianLines",
    afterDatasetsDraw(chart, _, { lines }) {
      const { ctx, chartArea, scales } = chart;
      for (const { value, stroke } of lines || []) {
        const x = scales.x.getPixelForValue(value);
        ctx.save();
        ctx.strokeStyle = stroke;
        ctx.lineWidth = 1.5;
        ctx.setLineDash([5, 4]);
        ctx.beginPath();
        ctx.moveTo(x, chartArea.top);
        ctx.lineTo(x, chartArea.bottom);
        ctx.stroke();
        ctx.restore();
      }
    }
  };

  // an area under steps: the point of each lower edge holds until the next one
  function steps(arm, found, edges, own) {
    const line = armColour(arm, own);
    const shares = found.counts.map((count) => (100 * count) / found.num_calls);
    return {
      label: armName(arm, own),
      counts: found.counts,
      data: [{ x: edges[0], y: 0 }, ...shares.map((y, at) => ({ x: edges[at], y })), { x: edges[edges.length - 1], y: 0 }],
      stepped: "before",
      borderColor: line,
      backgroundColor: faded(line, 0.2),
      borderWidth: 2,
      pointRadius: 0,
      pointStyle: "rectRounded",
      fill: "origin",
      order: arm === own ? 0 : 1
    };
  }

  function histogram(canvas, latency, own) {
    const edges = latency.edges_ns;
    const last = edges.length - 1;
    const isLog = edges[last] / edges[0] >= 4;
    const arms = Object.entries(latency.arms);
    const bin = (item) => Math.min(last - 1, Math.max(0, item.dataIndex - 1));
    const x = axis(isLog ? "time of one call (logarithmic)" : "time of one call", {
      type: isLog ? "logarithmic" : "linear",
      min: edges[0],
      max: edges[last],
      ticks: isLog ? { callback: logTick } : { callback: (value) => seconds(value), maxTicksLimit: 7 }
    });
    const y = axis("calls of the arm", { beginAtZero: true, ticks: { callback: (value) => `${value} %`, maxTicksLimit: 6 } });
    const callbacks = {
      title: (items) => (items.length ? `${seconds(edges[bin(items[0])])} to ${seconds(edges[bin(items[0]) + 1])}` : ""),
      label: (item) => `${item.dataset.label}: ${item.dataset.counts[bin(item)]} calls`
    };
    const lines = arms
      .filter(([, found]) => found.quantiles_ns.p50 !== null)
      .map(([arm, found]) => ({ value: found.quantiles_ns.p50, stroke: armColour(arm, own) }));
    return new Chart(canvas, {
      type: "line",
      data: { datasets: arms.map(([arm, found]) => steps(arm, found, edges, own)) },
      options: options(x, y, callbacks, { medianLines: { lines } }),
      plugins: [medianLines]
    });
  }

  function run(canvas, blocks, own) {
    const datasets = blocks.arms.map((arm, index) => {
      const line = armColour(arm, own);
      const at = blocks.arm.flatMap((each, number) => (each === index ? [number] : []));
      const isDisturbed = at.map((number) => Object.hasOwn(blocks.disturbed, String(number)));
      return {
        label: armName(arm, own),
        data: at.map((number) => ({ x: number + 1, y: blocks.median_ns[number] })),
        why: at.map((number) => blocks.disturbed[String(number)] || ""),
        borderColor: line,
        backgroundColor: isDisturbed.map((each) => (each ? "transparent" : line)),
        pointStyle: isDisturbed.map((each) => (each ? "crossRot" : "circle")),
        pointRadius: isDisturbed.map((each) => (each ? 6 : 3)),
        pointBorderWidth: isDisturbed.map((each) => (each ? 2 : 1)),
        borderWidth: 1.5,
        order: arm === own ? 0 : 1
      };
    });
    const low = Math.min(...blocks.median_ns);
    const high = Math.max(...blocks.median_ns);
    const isLog = high / low >= 4;
    const ticks = { callback: (value) => seconds(value), maxTicksLimit: 6 };
    const y = isLog
      ? axis("median of a block (logarithmic)", { type: "logarithmic", grace: "10%", ticks: { callback: logTick } })
      : axis("median of a block", { grace: "10%", ticks });
    const x = axis("blocks in the order they ran", {
      type: "linear",
      min: 0,
      max: blocks.arm.length + 1,
      ticks: { callback: (value) => (Number.isInteger(value) && value > 0 && value <= blocks.arm.length ? value : "") }
    });
    const callbacks = {
      title: (items) => (items.length ? `block ${items[0].parsed.x}` : ""),
      label: (item) => {
        const why = item.dataset.why[item.dataIndex];
        return `${item.dataset.label}: ${seconds(item.parsed.y)}${why ? `, disturbed: ${why}` : ""}`;
      }
    };
    return new Chart(canvas, { type: "line", data: { datasets }, options: options(x, y, callbacks) });
  }

  function clear() {
    for (const chart of drawn) chart.destroy();
    drawn = [];
  }

  // all charts of the page anew, for another record or in the colours of another theme
  function draw({ histogramCanvas, runCanvas, detail, own }) {
    clear();
    if (typeof Chart === "undefined") return;
    Chart.defaults.font.family = getComputedStyle(document.body).fontFamily;
    if (histogramCanvas) drawn.push(histogram(histogramCanvas, detail.latency, own));
    if (runCanvas) drawn.push(run(runCanvas, detail.blocks, own));
  }

  return { draw, clear, armName };
})();
