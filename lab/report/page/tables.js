// SPDX-License-Identifier: Apache-2.0
// Tables and texts: results, warnings, routing, recipe, command, environment.

function table(columns, rows, style = '') {
  const head = make('tr', {}, ...columns.map(({title, type}) => make('th', {scope: 'col', class: type ?? ''}, title)));
  return make('table', {class: style}, make('thead', {}, head),
    make('tbody', {}, ...rows.map((cells) => make('tr', {}, ...cells.map((cell, i) =>
      make('td', {class: columns[i].type ?? ''}, ...(Array.isArray(cell) ? cell : [cell])))))));
}

function seconds(value) {
  if (value === null) return '–';
  if (value < 90) return `${value.toPrecision(value < 10 ? 2 : 3)} s`;
  return value < 5400 ? `${(value / 60).toFixed(1)} min` : `${(value / 3600).toFixed(1)} h`;
}

function rate(value) {
  if (value === null) return '–';
  const short = Number(value.toPrecision(3));
  return String(short).length < 6 ? String(short) : short.toExponential();
}

// Seeds as dots, mean and interval as a bar, on one scale for the whole table.
function whisker(row, low, high) {
  const [width, height] = [170, 20];
  const at = (value) => 6 + ((value - low) / (high - low || 1)) * (width - 12);
  const svg = document.createElementNS('http://www.w3.org/2000/svg', 'svg');
  const add = (tag, attributes) => {
    const node = document.createElementNS('http://www.w3.org/2000/svg', tag);
    Object.entries(attributes).forEach(([name, value]) => node.setAttribute(name, value));
    svg.append(node);
    return node;
  };
  svg.setAttribute('width', width);
  svg.setAttribute('height', height);
  svg.setAttribute('aria-hidden', 'true');
  const painted = [];
  if (row.half_width !== null) {
    painted.push(add('line', {x1: at(row.value - row.half_width), x2: at(row.value + row.half_width),
      y1: 10, y2: 10, 'stroke-width': 6, 'stroke-linecap': 'round', opacity: 0.28}));
  }
  row.seeds.filter((seed) => seed.score !== null).forEach((seed) =>
    painted.push(add('circle', {cx: at(seed.score), cy: 10, r: 2.6, opacity: 0.75})));
  if (row.value !== null) {
    painted.push(add('line', {x1: at(row.value), x2: at(row.value), y1: 3, y2: 17, 'stroke-width': 2.5}));
  }
  const paint = () => painted.forEach((node) =>
    node.setAttribute(node.tagName === 'line' ? 'stroke' : 'fill', colour(row.key)));
  drawings.push(paint);
  paint();
  return svg;
}

function edgeNote(row) {
  if (row.edge === 'lowest' || row.edge === 'highest') {
    return make('small', {}, `${row.edge} of the grid: the best may lie beyond`);
  }
  return row.edge === 'untuned' && report.kind === 'comparison' ? make('small', {}, 'one rate: not tuned') : '';
}

// A score, and how the run ended where it learned nothing.
function seedText(seed) {
  if (seed.score === null) return seed.status || 'no score';
  const odd = ['diverged', 'collapsed', 'untrained'].includes(seed.status);
  return odd ? `${seed.text} (${seed.status})` : seed.text;
}

function resultTable() {
  const sign = report.higher_is_better ? -1 : 1;
  const rows = [...report.optimizers].sort((a, b) =>
    (a.value === null) - (b.value === null) || sign * (a.value - b.value));
  const extremes = rows.flatMap((row) => [...row.seeds.map((seed) => seed.score),
    ...(row.value === null ? [] : [row.value - (row.half_width ?? 0), row.value + (row.half_width ?? 0)])])
    .filter((value) => value !== null);
  const [low, high] = [Math.min(...extremes), Math.max(...extremes)];
  const comparing = report.kind === 'comparison';
  const columns = [{title: 'Optimizer'}, {title: comparing ? 'Tuned rate' : 'Rate', type: 'number'},
    {title: comparing ? 'Mean' : 'Score', type: 'number'}, {title: '± 95 %', type: 'number'}, {title: 'Seeds and interval'},
    {title: 'Per seed', type: 'number'}, {title: 'Wall time', type: 'number'}];
  const cells = rows.map((row) => {
    return [keyLabel(row.key), [rate(row.lr), edgeNote(row)], row.mean, row.interval, whisker(row, low, high),
      row.seeds.map(seedText).join('   ') || '–',
      seconds(row.wall_seconds)];
  });
  const shown = columns.map((column, i) => comparing || ![3, 4, 5].includes(i));
  const keep = (list) => list.filter((_, i) => shown[i]);
  document.getElementById('result-table').append(table(keep(columns), cells.map(keep)));
  if (!comparing) document.querySelector('#results h2').textContent = 'Final score';
  const parts = [];
  if (report.score) parts.push(`Score: ${report.score}, ${report.higher_is_better ? 'higher' : 'lower'} is better.`);
  if (comparing) parts.push('Interval: Student’s t over seeds. Wall time: mean of a run.');
  if (rows.some((row) => row.tuning_runs)) parts.push('Runs at the tuned rates are not there yet: these are the grid’s own, picked for being best, so the numbers flatter.');
  document.getElementById('result-caption').textContent = parts.join(' ');
}

function warningTable() {
  const target = document.getElementById('warning-table');
  show('warnings', report.warnings.length > 0 || report.curves.series.length > 0);
  if (report.warnings.length === 0) {
    target.replaceWith(make('p', {class: 'caption'}, 'None: no empty update and no non-finite gradient was reported.'));
    return;
  }
  const groups = new Map();  // one row a message and optimizer, with the seeds that gave it
  for (const warning of report.warnings) {
    const key = `${warning.optimizer}\n${warning.message}`;
    const group = groups.get(key) ?? {...warning, seeds: [], count: 0};
    group.seeds.push(warning.seed ?? '–');
    group.count += warning.count;
    if (warning.step !== null) group.step = Math.min(group.step ?? Infinity, warning.step);
    groups.set(key, group);
  }
  const rows = [...groups.values()].map((group) => [keyLabel(group.optimizer), group.seeds.join(', '),
    String(group.step ?? '–'), String(group.count), group.message]);
  target.append(table([{title: 'Optimizer'}, {title: 'Seeds', type: 'number'},
    {title: 'First update', type: 'number'}, {title: 'Times', type: 'number'},
    {title: 'What happened', type: 'break'}], rows, 'dense'));
  target.classList.toggle('tall', rows.length > 12);
}

function chooser(controls, entries, render) {
  const first = entries.find((entry) => entry.optimizer === 'pion') ?? entries[0];
  if (entries.length > 1) {
    document.getElementById(controls).append(segments('optimizer', entries.map((entry) =>
      ({key: entry.optimizer, title: labels[entry.optimizer]})), first.optimizer,
    (key) => render(entries.find((entry) => entry.optimizer === key))));
  }
  render(first);
}

function routingTable() {
  show('routing', report.routing.length > 0);
  if (report.routing.length === 0) return;
  const target = document.getElementById('routing-table');
  target.classList.add('tall');
  chooser('routing-controls', report.routing, (entry) => {
    const columns = entry.columns.map((title) => ({title: title.replaceAll('_', ' '),
      type: ['lr', 'heads', 'axis'].includes(title) ? 'number' : title === 'name' ? 'mono nowrap' : 'nowrap'}));
    target.replaceChildren(table(columns, entry.rows, 'dense'));
  });
}

function setUp() {
  show('recipe', report.recipes.length > 0);
  if (report.recipes.length > 0) {
    chooser('recipe-controls', report.recipes, (entry) => {
      document.getElementById('recipe-text').textContent = entry.toml;
    });
  }
  show('command', report.command !== '');
  // a line may break between words, not inside a flag
  document.getElementById('command-text').append(...report.command.split(' ').flatMap((word) =>
    [make('span', {class: 'nowrap'}, word), ' ']));
  show('environment', report.environment.length > 0);
  document.getElementById('environment-table').append(table(
    [{title: 'What', type: 'nowrap'}, {title: 'Value', type: 'break'}], report.environment, 'dense'));
}
