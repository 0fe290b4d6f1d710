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

  const errorBars = {
    id: "errorBars",
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
