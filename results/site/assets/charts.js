"use strict";
// The plots: the metric against each cost, with error bars, the front, and the baseline.
(() => {
  const { el, kindMark, kindNames, errorBars, linkOf } = window.compressbench;
  const Chart = window.Chart;
  const MOST_POINTS = 800;
  const STYLES = {
    baseline: "cross", quantization: "circle", pruning: "triangle", distillation: "rect", combined: "rectRot", other: "crossRot",
  };
  const PREFIXES = [[1e9, "G"], [1e6, "M"], [1e3, "k"], [1, ""], [1e-3, "m"], [1e-6, "µ"], [1e-9, "n"]];

  const colour = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();

  const isProbable = (probability) => probability >= window.compressbench.board.onFront;

  // numbers in a unit that suits most of them, so that ticks are short
  function scaleOf(quantity, values) {
    if (quantity.unit === "fraction") {
      return { factor: 100, unit: "%" };
    }
    const [base] = quantity.unit.split("/"); // per what, the title says
    if (!base || base === "1" || values.length === 0) {
      return { factor: 1, unit: quantity.unit === "1/s" ? "per s" : quantity.unit };
    }
    const middle = [...values].sort((one, other) => one - other)[Math.floor(values.length / 2)];
    const [size, prefix] = PREFIXES.find(([least]) => middle >= least) ?? PREFIXES.at(-1);
    return { factor: 1 / size, unit: `${prefix}${base}` };
  }

  const isPaired = (cell) => cell.ratio > 0 && cell.ratioLow > 0 && cell.ratioHigh > 0;

  // the bounds of the value itself, or else as wide as those of its ratio to the baseline
  function measured(cell, isPairedFirst) {
    const hasBounds = cell.low !== null && cell.high !== null;
    if (isPaired(cell) && (isPairedFirst || !hasBounds)) {
      return [cell.value, (cell.value * cell.ratioLow) / cell.ratio, (cell.value * cell.ratioHigh) / cell.ratio];
    }
    return hasBounds && !isPairedFirst ? [cell.value, cell.low, cell.high] : [cell.value, cell.value, cell.value];
  }

  // against the baseline a cost is its ratio, the baseline is exactly 1, and the metric's bar is of the difference
  function numbersOf(row, metric, at, isRelative) {
    const [cost, score] = [row.costs[at], row.metrics[metric]];
    if (score.value === null) {
      return null;
    }
    if (isRelative) {
      const ratios = row.kind === "baseline" ? [1, 1, 1] : isPaired(cost) ? [cost.ratio, cost.ratioLow, cost.ratioHigh] : null;
      return ratios && [ratios, measured(score, true)];
    }
    return cost.value === null ? null : [measured(cost, false), measured(score, false)];
  }

  function pointOf(row, metric, at, scales) {
    const found = numbersOf(row, metric, at, scales.isRelative);
    if (found === null) {
      return null;
    }
    const [x, xLow, xHigh] = found[0].map((value) => value * scales.x.factor);
    const [y, yLow, yHigh] = found[1].map((value) => value * scales.y.factor);
    return { x, xLow, xHigh, y, yLow, yHigh, row };
  }

  function scalesOf(group, metric, at, rows, isAsked) {
    const [cost, quality] = [group.costs[at], group.metrics[metric]];
    const valuesOf = (cellOf) => rows.map((row) => cellOf(row).value).filter((value) => value !== null);
    const isRelative = isAsked && cost.isPaired && quality.isPaired;
    const x = isRelative ? { factor: 1, unit: "× baseline" } : scaleOf(cost, valuesOf((row) => row.costs[at]));
    return { isRelative, x, y: scaleOf(quality, valuesOf((row) => row.metrics[metric])) };
  }

  // the staircase of the best measured values, of rows that may be compared; how probable each is, its mark says
  function frontLine(points, probabilityOf, isHigherBetter, isMoreBetter) {
    const sign = isHigherBetter ? -1 : 1;
    const better = (one, other) => (isMoreBetter ? one > other : one < other);
    const found = points.filter((point) => probabilityOf(point.row) !== null).sort((one, other) =>
      sign * (one.x - other.x) || (isMoreBetter ? other.y - one.y : one.y - other.y));
    const front = [];
    for (const point of found) {
      if (front.length === 0 || better(point.y, front.at(-1).y)) {
        front.push(point);
      }
    }
    return front;
  }

  // of very many points those that matter, and an even choice of the others
  function fewer(points, front, chosen, probabilityOf) {
    if (points.length <= MOST_POINTS) {
      return points;
    }
    const kept = new Set(chosen ? [chosen, ...front] : front);
    points.filter((point) => isProbable(probabilityOf(point.row)) || point.row.kind === "baseline")
      .slice(0, MOST_POINTS).forEach((point) => kept.add(point));
    const others = points.filter((point) => !kept.has(point));
    const step = Math.max(1, others.length / MOST_POINTS);
    return [...kept, ...Array.from({ length: Math.floor(others.length / step) }, (_, at) => others[Math.floor(at * step)])];
  }

  const niceNumber = (value) =>
    Math.abs(value) >= 1e6 ? value.toExponential(0) : Number(value.toPrecision(4)).toLocaleString("en-US");

  function axis(quantity, scale, isLog, values) {
    const arrow = quantity.isHigherBetter ? "more is better" : "less is better";
    const unit = scale.unit ? ` (${scale.unit})` : "";
    const ticks = {
      color: colour("--muted"), maxTicksLimit: isLog ? 40 : 6, maxRotation: 0, autoSkip: !isLog,
      callback(value) {
        const mantissa = Number((value / 10 ** Math.floor(Math.log10(value))).toPrecision(6));
        const wanted = Math.max(...values) / Math.min(...values) > 1000 ? [1] : [1, 2, 5];
        return isLog && !wanted.includes(mantissa) ? null : niceNumber(value);
      },
    };
    return {
      type: isLog ? "logarithmic" : "linear",
      grace: isLog ? undefined : "6%",
      // whole error bars, for differences must not look larger than they are sure
      suggestedMin: isLog ? undefined : Math.min(...values),
      suggestedMax: isLog ? undefined : Math.max(...values),
      min: isLog ? Math.min(...values) * 0.9 : undefined,
      max: isLog ? Math.max(...values) * 1.1 : undefined,
      title: { display: true, text: `${quantity.title.split(" (")[0]}${unit}, ${arrow}`, color: colour("--muted"), font: { size: 12 } },
      grid: { color: colour("--line"), drawTicks: false },
      border: { display: false },
      ticks,
    };
  }

  const isWide = (values) => Math.min(...values) > 0 && Math.max(...values) / Math.min(...values) > 8;

  function tooltipLines(point, group, metric, at) {
    return [[group.metrics[metric], point.row.metrics[metric]], [group.costs[at], point.row.costs[at]]].map(
      ([quantity, cell]) => {
        const claim = [cell.claim, cell.claimInterval].filter(Boolean).join(" ");
        return `${quantity.title}: ${cell.text}${cell.interval ? ` (${cell.interval})` : ""}${claim ? `, ${claim}` : ""}`;
      });
  }

  function frontWords(probability) {
    if (probability === null) {
      return "not compared in this plot";
    }
    const percent = Math.round(100 * probability);
    return `on the front with ${percent > 99 ? "more than 99" : percent < 1 ? "less than 1" : percent} % probability`;
  }

  // what the picture doesn't say of itself
  function captionOf(points, drawn, unseen, isAsMeasured) {
    return [
      drawn.length < points.length ? `${drawn.length} of ${points.length} rows drawn.` : "",
      points.length > 0 && unseen ? `No front drawn: ${unseen.name} matters here and can't be drawn.` : "",
      points.length > 0 && isAsMeasured ? "As measured: not all of these rows can stand against one baseline." : "",
    ].filter(Boolean).join(" ");
  }

  class Plot {
    constructor(box, plot) {
      Object.assign(this, { box, plot });
    }

    draw(group, all, shown, metric, isRelative) {
      const at = group.plots[this.plot];
      const [cost, quality] = [group.costs[at], group.metrics[metric]];
      const probabilityOf = (row) => row.front[metric][this.plot];
      const scales = scalesOf(group, metric, at, all, isRelative);
      const points = shown.map((row) => pointOf(row, metric, at, scales)).filter(Boolean);
      const unseen = shown.find((row) => isProbable(probabilityOf(row)) && pointOf(row, metric, at, scales) === null);
      const front = unseen ? [] : frontLine(points, probabilityOf, cost.isHigherBetter, quality.isHigherBetter);
      const chosen = points.find((point) => point.row.id === group.answerId);
      const drawn = fewer(points, front, chosen, probabilityOf);
      const lost = group.answerId && !chosen ? shown.find((row) => row.id === group.answerId) : null;
      this.box.hidden = false;
      this.chart?.destroy();
      this.chart = null;
      this.figure(cost, quality, points, drawn, front, captionOf(points, drawn, unseen ?? lost, isRelative && !scales.isRelative));
      if (points.length === 0) {
        return;
      }
      const [xs, ys] = [drawn.flatMap((each) => [each.xLow, each.xHigh]), drawn.flatMap((each) => [each.yLow, each.yHigh])];
      const axes = { x: axis(cost, scales.x, isWide(xs), xs), y: axis(quality, scales.y, isWide(ys), ys) };
      this.chart = new Chart(this.canvas, {
        type: "scatter",
        data: { datasets: this.datasets(drawn, probabilityOf) },
        options: this.options(axes, group, metric, at, {
          front, chosen, chosenName: group.answerName, isHigherBetter: cost.isHigherBetter, frontColour: colour("--front"), textColour: colour("--text"), surfaceColour: colour("--surface"), baselineColour: colour("--faint"),
          baselines: drawn.filter((point) => point.row.kind === "baseline").slice(0, 3),
        }),
        plugins: [errorBars],
      });
    }

    hide() {
      this.chart?.destroy();
      this.chart = null;
      this.box.hidden = true;
      this.box.replaceChildren();
    }

    // the canvas is a picture with a summary; the table has every number
    figure(cost, quality, points, drawn, front, caption) {
      const names = front.slice(0, 6).map((point) => point.row.name).join(", ");
      const summary = `${quality.title} against ${cost.title} of ${points.length} rows. ` +
        (names ? `On the front, the best ${cost.title} first: ${names}${front.length > 6 ? " and others" : ""}.` : "No front.");
      const title = `${quality.title} against ${cost.title}`;
      const said = el("figcaption", {}, title, caption ? el("p", { class: "muted" }, caption) : "");
      if (points.length === 0) {
        this.box.replaceChildren(said, el("p", { class: "empty muted" }, "No row that is shown has both numbers."));
        return;
      }
      this.canvas = el("canvas", { role: "img", "aria-label": summary });
      this.box.replaceChildren(said, el("div", { class: "canvas" }, this.canvas));
    }

    datasets(points, probabilityOf) {
      return Object.keys(STYLES).map((kind) => {
        // what is probably on the front is drawn last, above the others
        const found = points.filter((point) => point.row.kind === kind).sort((one, other) =>
          isProbable(probabilityOf(one.row)) - isProbable(probabilityOf(other.row)));
        const shade = colour(`--kind-${kind}`);
        return {
          label: kind, data: found, pointStyle: STYLES[kind], borderColor: shade,
          backgroundColor: found.map((point) => (isProbable(probabilityOf(point.row)) ? shade : colour("--surface"))),
          pointBackgroundColor: found.map((point) => (isProbable(probabilityOf(point.row)) ? shade : colour("--surface"))),
          borderWidth: kind === "baseline" || kind === "other" ? 2.5 : 1.75,
          radius: kind === "baseline" ? 7 : points.length > 200 ? 3 : 5, hoverRadius: 8, hitRadius: 6,
        };
      });
    }

    options(axes, group, metric, at, front) {
      return {
        animation: false, responsive: true, maintainAspectRatio: false,
        interaction: { mode: "nearest", intersect: true },
        scales: axes,
        onClick: (_, found, chart) => {
          if (found.length > 0) {
            window.location.href = linkOf(chart.data.datasets[found[0].datasetIndex].data[found[0].index].row.id);
          }
        },
        onHover: (event, found) => (event.native.target.style.cursor = found.length > 0 ? "pointer" : "default"),
        plugins: {
          legend: { display: false },
          errorBars: front,
          tooltip: {
            displayColors: false,
            backgroundColor: colour("--tip"), titleColor: colour("--tip-text"), bodyColor: colour("--tip-text"),
            padding: 10, cornerRadius: 6,
            callbacks: {
              title: (found) => found[0].raw.row.name,
              label: (found) => tooltipLines(found.raw, group, metric, at),
              afterBody: (found) => frontWords(found[0].raw.row.front[metric][this.plot]),
            },
          },
        },
      };
    }
  }

  function drawKinds(box, rows) {
    const there = new Set(rows.map((row) => row.kind));
    const marks = Object.keys(kindNames).filter((kind) => there.has(kind));
    box.replaceChildren(
      ...marks.map((kind) => el("li", {}, kindMark(kind, false), kindNames[kind])),
      el("li", {}, el("span", { class: "front-line", "aria-hidden": "true" }), "front; filled marks are probably on it"),
    );
  }

  Object.assign(window.compressbench, { Plot, drawKinds });
})();
