// SPDX-License-Identifier: Apache-2.0
// Learning curves: mean over seeds with their range; the metric and the x axis can be changed.

function curveRows(series, logarithmic) {
  const rows = [];
  for (const one of series) {
    for (let i = 0; i < one.x.length; ++i) {
      if (logarithmic && !(one.mean[i] > 0)) continue;
      // a logarithmic band cannot reach zero
      const low = logarithmic && !(one.low[i] > 0) ? one.mean[i] : one.low[i];
      rows.push({optimizer: labels[one.optimizer], x: one.x[i], mean: one.mean[i], low,
        high: one.high[i], seeds: one.count[i], alone: one.x.length === 1});
    }
  }
  return rows;
}

function valueRange(series) {
  const values = series.flatMap((one) => one.mean.concat(one.low, one.high));
  return values.reduce(([low, high], value) =>
    [Math.min(low, value), Math.max(high, value)], [Infinity, -Infinity]);
}

function curveSpec(series, metric, axis, logarithmic) {
  const colourBy = colourEncoding(series.map((one) => one.optimizer));
  const rows = curveRows(series, logarithmic);
  const [low, high] = valueRange(series);
  const positive = rows.map((row) => row.low).filter((value) => value > 0);
  const floor = positive.reduce((least, value) => Math.min(least, value), Infinity);
  const yScale = logarithmic ? {type: 'log', nice: false} : {zero: low >= 0 && low < 0.4 * high};
  if (low === high) {  // a constant has no range to scale by
    yScale.domain = logarithmic ? [low / 2, low * 2] : [Math.min(0, 1.2 * low), Math.max(0, 1.2 * low) || 1];
  }
  const yAxis = logarithmic ? {values: logTicks(floor, high), format: '~g'} : {tickCount: 6};
  const x = {field: 'x', type: 'quantitative', title: axis.title, scale: {nice: false},
    axis: {format: '~s', tickCount: 6, grid: false, labelFlush: true, labelOverlap: true}};
  const y = {type: 'quantitative', title: null, scale: yScale, axis: yAxis};
  const tooltip = [{field: 'optimizer', title: 'optimizer'},
    {field: 'x', title: axis.title, format: ',.6~g'},
    {field: 'mean', title: metric.title, format: '.4~g'},
    {field: 'low', title: 'lowest seed', format: '.4~g'},
    {field: 'high', title: 'highest seed', format: '.4~g'}, {field: 'seeds', title: 'seeds here'}];
  // one point makes no line
  const alone = {transform: [{filter: 'datum.alone'}], mark: {type: 'point', filled: true, size: 70},
    encoding: {x, y: {...y, field: 'mean'}}};
  const nearest = {name: 'nearest', select: {type: 'point', on: 'pointerover', nearest: true,
    clear: 'pointerout'}};
  return {
    height: 340, data: {values: rows}, encoding: {color: colourBy},
    title: {text: metric.title},
    layer: [
      {mark: {type: 'area', opacity: 0.17},
        encoding: {x, y: {...y, field: 'low'}, y2: {field: 'high'}}},
      {mark: {type: 'line', strokeWidth: 2.25, clip: true}, encoding: {x, y: {...y, field: 'mean'}}},
      ...(rows.some((row) => row.alone) ? [alone] : []),  // an empty layer has no extent
      {params: [nearest], mark: {type: 'point', filled: true, size: 70},
        encoding: {x, y: {...y, field: 'mean'}, tooltip,
          opacity: {condition: {param: 'nearest', empty: false, value: 1}, value: 0}}},
    ],
  };
}

function curveCaption(series) {
  const most = Math.max(0, ...series.flatMap((one) => one.count));
  const shrinking = series.filter((one) => one.count.some((count) => count < Math.max(...one.count)));
  const parts = [];
  if (most > 1) parts.push(`Line: mean over seeds at the tuned rate; band: lowest to highest of ${most} seeds.`);
  else if (report.kind === 'comparison') parts.push('One seed each: no band.');
  if (shrinking.length > 0) {
    const names = shrinking.map((one) => labels[one.optimizer]).join(' and ');
    parts.push(`Seeds of ${names} end at different places; the mean holds only those that got that far.`);
  }
  if (report.curves.dropped > 0) parts.push(`${report.curves.dropped} more metrics are in metrics.jsonl.`);
  return parts.join(' ');
}

async function learningCurves() {
  const {axes, metrics, chosen, series} = report.curves;
  show('curves', series.length > 0);
  if (series.length === 0) return;
  const hasAxis = (axis) => series.some((one) => one.axis === axis.key);
  const state = {metric: chosen, axis: axes.find(hasAxis).key, logarithmic: false};
  const current = () => series.filter((one) => one.metric === state.metric && one.axis === state.axis);
  const logBox = make('input', {type: 'checkbox', onchange: () => {
    state.logarithmic = logBox.checked;
    render();
  }});

  // What falls over decades (a loss) starts logarithmic; values at or below zero cannot be.
  const chooseScale = () => {
    const [low, high] = valueRange(current());
    const falls = current().every((one) => one.mean[one.mean.length - 1] < one.mean[0]);
    logBox.disabled = !(low > 0);
    logBox.checked = state.logarithmic = low > 0 && falls && high / low > 50;
  };
  const render = () => {
    const metric = metrics.find((one) => one.key === state.metric);
    const axis = axes.find((one) => one.key === state.axis);
    document.getElementById('curve-caption').textContent = curveCaption(current());
    return embed('curve-chart', curveSpec(current(), metric, axis, state.logarithmic));
  };
  const picker = make('select', {onchange: () => {
    state.metric = picker.value;
    chooseScale();
    render();
  }}, ...metrics.map(({key, title}) =>
    make('option', {value: key, selected: key === chosen}, title)));
  document.getElementById('curve-controls').append(
    make('label', {}, 'Metric', picker),
    segments('x axis', axes.filter(hasAxis), state.axis, (key) => { state.axis = key; render(); }),
    make('label', {}, logBox, 'logarithmic'));
  chooseScale();
  await draw(render);
}
