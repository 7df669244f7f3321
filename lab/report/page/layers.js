// SPDX-License-Identifier: Apache-2.0
// What the updates did: four statistics over time for every optimizer, then each matrix.

function spreadSpec(statistic) {
  const rows = [], present = [];
  for (const one of report.layers.optimizers) {
    const spread = one.spread[statistic.key];
    if (!spread || spread.x.length === 0) continue;
    present.push(one.optimizer);
    spread.x.forEach((x, i) => rows.push({optimizer: labels[one.optimizer], x,
      median: spread.median[i], low: spread.low[i], high: spread.high[i]}));
  }
  const highest = rows.reduce((most, row) => Math.max(most, row.high), 0);
  const lowest = rows.reduce((least, row) => Math.min(least, row.low), Infinity);
  const logarithmic = statistic.key === 'update_rms' && lowest > 0 && highest / lowest > 20;
  const scale = logarithmic ? {type: 'log', nice: false} : {zero: true};
  const axis = logarithmic ? {values: logTicks(lowest, highest), format: lowest < 1e-3 ? '.0e' : '~g'}
    : {tickCount: 4, format: highest < 1e-3 ? '.1~e' : '~g'};
  const x = {field: 'x', type: 'quantitative', title: 'updates', scale: {nice: false},
    axis: {tickCount: 5, format: '~s', grid: false, labelFlush: true}};
  const y = {type: 'quantitative', title: null, scale, axis};
  return {
    height: 170, data: {values: rows}, title: {text: statistic.title},
    encoding: {color: {...colourEncoding(present, {labelFontSize: 12, offset: 10})}},
    layer: [
      {mark: {type: 'area', opacity: 0.17}, encoding: {x, y: {...y, field: 'low'}, y2: {field: 'high'}}},
      {mark: {type: 'line', strokeWidth: 2, tooltip: true, point: rows.length === present.length},
        encoding: {x, y: {...y, field: 'median'},
          tooltip: [{field: 'optimizer'}, {field: 'median', format: '.4~g'}]}},
    ],
  };
}

function mapRows(one, key) {
  const rows = [];
  const steps = one.steps;
  one.values[key].forEach((values, row) => {
    values.slice(0, Math.max(1, steps.length - 1)).forEach((value, i) => {
      if (value === null) return;
      const next = steps[i + 1] ?? steps[i];
      // each cell reaches under the next: no seams from rounding
      rows.push({name: one.parameters[row], from: steps[i], to: next + 0.2 * (next - steps[i]), value});
    });
  });
  return rows;
}

function mapSpec(one, statistic, width) {
  const rows = mapRows(one, statistic.key);
  const letters = width < 560 ? 18 : 44;
  const values = rows.map((row) => row.value);
  const low = values.reduce((a, b) => Math.min(a, b), Infinity);
  const high = values.reduce((a, b) => Math.max(a, b), 0);
  const logarithmic = statistic.key === 'update_rms' && low > 0 && high / low > 20;
  const fraction = statistic.key === 'directions_fraction' || statistic.key === 'energy_kept';
  const scale = {scheme: 'viridis', type: logarithmic ? 'log' : 'linear',
    ...(fraction ? {domain: [0, 1]} : logarithmic ? {} : {zero: true})};
  const rowHeight = one.parameters.length > 60 ? 9 : 18;
  return {
    height: rowHeight * one.parameters.length,
    data: {values: rows}, mark: {type: 'rect', strokeWidth: 0},
    encoding: {
      x: {field: 'from', type: 'quantitative', title: 'updates', scale: {nice: false, zero: false},
        axis: {tickCount: 6, format: '~s', grid: false, labelFlush: true}},
      x2: {field: 'to'},
      y: {field: 'name', type: 'nominal', sort: null, title: null, scale: {padding: 0.06},
        axis: {labelLimit: 400, labelFontSize: rowHeight < 12 ? 9 : 12, labelOverlap: true,
          labelExpr: `length(replace(datum.label, /\\.weight$/, '')) > ${letters} ? ` +
            `'…' + slice(replace(datum.label, /\\.weight$/, ''), -${letters}) : replace(datum.label, /\\.weight$/, '')`}},
      color: {field: 'value', type: 'quantitative', title: statistic.title, scale,
        legend: {orient: 'top', titleOrient: 'left', gradientLength: Math.min(260, width * 0.45),
          titleLimit: 160, format: high < 1e-2 ? '.0e' : '~g', tickCount: 3, labelOverlap: true}},
      tooltip: [{field: 'name', title: 'matrix'}, {field: 'from', title: 'update'},
        {field: 'value', title: statistic.title, format: '.4~g'}],
    },
  };
}

async function layerMap(statistics) {
  const {optimizers} = report.layers;
  const controls = document.getElementById('layer-controls');
  const state = {optimizer: (optimizers.find((one) => one.optimizer === 'pion') ?? optimizers[0]).optimizer,
    statistic: (statistics.find((one) => one.key === 'directions_fraction') ?? statistics[0]).key};
  const render = () => {
    const one = optimizers.find((entry) => entry.optimizer === state.optimizer);
    const available = statistics.filter((statistic) => one.values[statistic.key]);
    if (!available.some((statistic) => statistic.key === state.statistic)) state.statistic = available[0].key;
    controls.replaceChildren(
      ...(optimizers.length > 1 ? [segments('optimizer', optimizers.map((entry) =>
        ({key: entry.optimizer, title: labels[entry.optimizer]})), state.optimizer, (key) => {
        state.optimizer = key;
        render();
      })] : []),
      segments('statistic', available, state.statistic, (key) => { state.statistic = key; render(); }));
    const element = document.getElementById('layer-map');
    return embed(element, mapSpec(one, available.find((statistic) => statistic.key === state.statistic),
      element.clientWidth), 'canvas');
  };
  await draw(render);
}

async function layerStatistics() {
  const {optimizers, statistics} = report.layers;
  show('layers', optimizers.length > 0);
  if (optimizers.length === 0) return;
  const known = statistics.filter((statistic) => optimizers.some((one) => one.values[statistic.key]));
  for (const statistic of known) {
    const cell = make('div', {class: 'multiple'});
    document.getElementById('layer-charts').append(cell);
    await draw(() => embed(cell, spreadSpec(statistic)));
  }
  await layerMap(known);
}
