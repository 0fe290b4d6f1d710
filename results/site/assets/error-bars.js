"use strict";
// What a scatter plot lacks: error bars in both directions, the front as a staircase, and the baseline as a cross of lines.
(() => {
  function line(context, points) {
    context.beginPath();
    points.forEach(([x, y], at) => (at === 0 ? context.moveTo(x, y) : context.lineTo(x, y)));
    context.stroke();
  }

  function bars(context, { x, y }, point, colour) {
    context.strokeStyle = colour;
    context.globalAlpha = 0.55;
    context.lineWidth = 1.25;
    if (point.xLow !== point.xHigh) {
      line(context, [[x.getPixelForValue(point.xLow), y.getPixelForValue(point.y)],
        [x.getPixelForValue(point.xHigh), y.getPixelForValue(point.y)]]);
    }
    if (point.yLow !== point.yHigh) {
      line(context, [[x.getPixelForValue(point.x), y.getPixelForValue(point.yLow)],
        [x.getPixelForValue(point.x), y.getPixelForValue(point.yHigh)]]);
    }
    context.globalAlpha = 1;
  }

  // better costs first; the metric gets better from step to step, and from the last on it stays
  function staircase(context, { x, y }, front, edge) {
    const pixels = front.map((point) => [x.getPixelForValue(point.x), y.getPixelForValue(point.y)]);
    const steps = [];
    pixels.forEach(([left, top], at) => {
      steps.push([left, top]);
      const next = pixels[at + 1];
      steps.push(next ? [next[0], top] : [edge, top]);
    });
    line(context, steps);
  }

  const MOST_NAMED = 8;
  const MOST_AVOIDED = 60;
  const isFree = (box, taken) => taken.every((other) =>
    box.right < other.left || box.left > other.right || box.bottom < other.top || box.top > other.bottom);

  // the first place around a point where its name hides neither another name nor a mark
  function nameFront({ ctx: context, chartArea: area, scales, data }, options) {
    context.font = '11px system-ui, "Segoe UI", Roboto, sans-serif';
    context.fillStyle = options.textColour;
    context.textBaseline = "middle";
    const pixels = (point) => [scales.x.getPixelForValue(point.x), scales.y.getPixelForValue(point.y)];
    const marks = options.front.map(pixels);
    const all = data.datasets.flatMap((dataset) => dataset.data);
    const taken = (all.length <= MOST_AVOIDED ? all.map(pixels) : marks).map(([x, y]) => ({ left: x - 5, right: x + 5, top: y - 5, bottom: y + 5 }));
    options.front.slice(0, MOST_NAMED).forEach((point, at) => {
      const [x, y] = marks[at];
      const name = point.row.name.length > 24 ? `${point.row.name.slice(0, 23)}…` : point.row.name;
      const width = context.measureText(name).width;
      const places = [[x - width / 2, y - 16], [x - width / 2, y + 16], [x + 10, y - 16], [x - width - 10, y + 16],
        [x + 10, y + 16], [x - width - 10, y - 16], [x - width / 2, y + 30], [x - width / 2, y - 30]];
      for (const [left, middle] of places) {
        const box = { left: left - 2, right: left + width + 2, top: middle - 7, bottom: middle + 7 };
        const isInside = box.left >= area.left && box.right <= area.right && box.top >= area.top && box.bottom <= area.bottom;
        if (isInside && isFree(box, taken)) {
          context.fillText(name, left, middle);
          taken.push(box);
          break;
        }
      }
    });
  }

  const errorBars = {
    id: "errorBars",
    afterDatasetsDraw(chart, _, options) {
      chart.ctx.save();
      nameFront(chart, options);
      chart.ctx.restore();
    },
    beforeDatasetsDraw(chart, _, options) {
      const { ctx: context, chartArea: area, scales } = chart;
      context.save();
      context.beginPath();
      context.rect(area.left, area.top, area.width, area.height);
      context.clip();
      context.lineWidth = 1;
      context.strokeStyle = options.baselineColour;
      context.setLineDash([3, 4]);
      for (const point of options.baselines) {
        const [left, top] = [scales.x.getPixelForValue(point.x), scales.y.getPixelForValue(point.y)];
        line(context, [[left, area.top], [left, area.bottom]]);
        line(context, [[area.left, top], [area.right, top]]);
      }
      context.setLineDash([]);
      if (options.front.length > 0) {
        context.strokeStyle = options.frontColour;
        context.lineWidth = 2;
        staircase(context, scales, options.front, options.isHigherBetter ? area.left : area.right);
      }
      chart.data.datasets.forEach((dataset) =>
        dataset.data.forEach((point) => bars(context, scales, point, dataset.borderColor)));
      context.restore();
    },
  };

  Object.assign(window.compressbench, { errorBars });
})();
