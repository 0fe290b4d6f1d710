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

  const away = ({ left, right, top, bottom }, [x, y]) =>
    Math.hypot(Math.max(left - x, 0, x - right), Math.max(top - y, 0, y - bottom));
  const covered = (box, taken) => taken.reduce((sum, other) =>
    sum + Math.max(0, Math.min(box.right, other.right) - Math.max(box.left, other.left)) *
      Math.max(0, Math.min(box.bottom, other.bottom) - Math.max(box.top, other.top)), 0);

  // around a mark, within the plot
  function boxesAround([x, y], width, area) {
    const middles = [[x - width / 2, y - 16], [x - width / 2, y + 16], [x + 11, y], [x - width - 11, y],
      [x + 10, y - 14], [x - width - 10, y + 14], [x + 10, y + 14], [x - width - 10, y - 14]];
    return middles.map(([left, middle]) => {
      const inside = Math.max(area.left + 2, Math.min(left, area.right - width - 2));
      return { left: inside - 2, right: inside + width + 2, top: middle - 7, bottom: middle + 7 };
    }).filter((box) => box.top >= area.top && box.bottom <= area.bottom && away(box, [x, y]) > 2);
  }

  // where a name hides neither another name nor a mark, and is nearer to its own mark than to any other
  function placeOf(mark, width, area, marks, taken, isNeeded) {
    const boxes = boxesAround(mark, width, area);
    const own = boxes.filter((box) => marks.every((other) => away(box, mark) <= away(box, other)));
    const free = own.find((box) => isFree(box, taken));
    const left = isNeeded && !free ? (own.length > 0 ? own : boxes).sort((one, other) => covered(one, taken) - covered(other, taken)) : [];
    return free ?? left[0];
  }

  // what is to be deployed first, and in any case; then the front
  function nameMarks(chart, options) {
    const { ctx: context, chartArea: area, scales, data } = chart;
    const pixels = (point) => [scales.x.getPixelForValue(point.x), scales.y.getPixelForValue(point.y)];
    const all = data.datasets.flatMap((dataset) => dataset.data);
    // options are wrapped on their way here: points are known by their rows
    const isDeployed = (point) => point.row.id === options.chosen?.row.id;
    const front = options.front.filter((point) => !isDeployed(point)).slice(0, MOST_NAMED);
    const named = options.chosen ? [options.chosen, ...front] : front;
    const marks = (all.length <= MOST_AVOIDED ? all : named).map(pixels);
    const taken = marks.map(([x, y]) => ({ left: x - 5, right: x + 5, top: y - 5, bottom: y + 5 }));
    context.textBaseline = "middle";
    chart.names = []; // where they stand, for whoever looks
    for (const point of named) {
      const isChosen = isDeployed(point);
      context.font = `${isChosen ? "650 12px" : "11px"} system-ui, "Segoe UI", Roboto, sans-serif`;
      const text = isChosen ? options.chosenName : point.row.name;
      const most = isChosen ? 44 : 24;
      const name = text.length > most ? `${text.slice(0, most - 1)}…` : text;
      const box = placeOf(pixels(point), context.measureText(name).width, area, marks, taken, isChosen);
      if (box) {
        context.lineWidth = 4;
        context.strokeStyle = options.surfaceColour;
        context.fillStyle = options.textColour;
        context.strokeText(name, box.left + 2, (box.top + box.bottom) / 2);
        context.fillText(name, box.left + 2, (box.top + box.bottom) / 2);
        taken.push(box);
        chart.names.push({ name, box, mark: pixels(point) });
      }
    }
  }

  const errorBars = {
    id: "errorBars",
    afterDatasetsDraw(chart, _, options) {
      chart.ctx.save();
      nameMarks(chart, options);
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
