// SPDX-License-Identifier: Apache-2.0
// Score against learning rate: every run a point, the mean a line, the tuned rate a ring.

function rateTicks(rates) {
  const distinct = [...new Set(rates)].sort((a, b) => a - b);
  const [low, high] = [distinct[0], distinct[distinct.length - 1]];
  return distinct.length <= 8 ? distinct : logTicks(low, high, high / low < 3000 ? [1, 3] : [1]);
}

function isLost(point) {
  return point.score === null && (point.status === 'failed' || point.status === 'diverged');
}

function rateSpec() {
  const {points, means, key} = report.rates;
  const named = (row) => ({...row, optimizer: labels[row.optimizer] ?? row.optimizer});
  const scored = points.filter((point) => point.score !== null).map(named);
  const lost = points.filter(isLost).map(named);
  const present = keys.filter((name) => points.some((point) => point.optimizer === name));
  const colourBy = colourEncoding(present, {symbolType: 'circle', symbolStrokeWidth: 1, symbolSize: 90});
  // one legend for both: they differ in no property
  const shapeBy = {field: 'optimizer', type: 'nominal', title: null, legend: colourBy.legend,
    scale: {domain: present.map((name) => labels[name]), range: present.map((_, i) => shapes[i % shapes.length])}};
  const x = {field: 'lr', type: 'quantitative', title: `learning rate${key ? `, ${key}` : ''}`,
    scale: {type: 'log', nice: false, padding: 26},
    axis: {values: rateTicks(points.map((point) => point.lr)), format: '~e', grid: false,
      labelOverlap: 'greedy', labelSeparation: 6, labelExpr: "replace(datum.label, '+', '')"}};
  const y = {field: 'score', type: 'quantitative', title: null, scale: {zero: false, padding: 14},
    axis: {tickCount: 6}};
  const tooltip = [{field: 'optimizer'}, {field: 'lr', title: 'rate', format: '.3~e'},
    {field: 'seed'}, {field: 'phase'}, {field: 'status'},
    {field: 'score', title: report.score || 'score', format: '.4~g'}];
  return {
    height: 300, title: {text: (report.score || 'score').replaceAll('_', ' ')},
    encoding: {color: colourBy},
    layer: [
      {data: {values: means.map(named)}, mark: {type: 'line', strokeWidth: 2}, encoding: {x, y}},
      {data: {values: scored}, mark: {type: 'point', filled: true, size: 46, opacity: 0.6},
        encoding: {x, y, shape: shapeBy, tooltip}},
      {data: {values: means.filter((mean) => mean.best).map(named)},
        mark: {type: 'point', filled: false, size: 260, strokeWidth: 2.25}, encoding: {x, y}},
      ...(lost.length > 0 ? [{data: {values: lost},
        mark: {type: 'point', shape: 'M-1,-1L1,1M1,-1L-1,1', size: 60, strokeWidth: 2.5},
        encoding: {x, y: {value: 'height'}, tooltip}}] : []),
    ],
  };
}

async function learningRates() {
  const rates = new Set(report.rates.points.map((point) => `${point.optimizer} ${point.lr}`));
  const useful = report.kind === 'comparison' && rates.size > keys.length &&
    report.rates.points.some((point) => point.score !== null);
  show('rates', useful);
  if (!useful) return;
  const lost = report.rates.points.filter(isLost);
  document.getElementById('rate-caption').textContent =
    'Each point is a run, lines join the means, a ring marks the tuned rate. ' +
    (report.higher_is_better ? 'Higher is better.' : 'Lower is better.') +
    (lost.length > 0 ? ` A cross on the axis is a run that failed or diverged (${lost.length}).` : '');
  await draw(() => embed('rate-chart', rateSpec()));
}
