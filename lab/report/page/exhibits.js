// SPDX-License-Identifier: Apache-2.0
// Charts of what reward curves hide, and sample answers before and after.

function exhibitSpec({kind, x, y, rows, title}) {
  const present = rows.map((row) => row.optimizer);
  const values = rows.map((row) => ({...row, optimizer: labels[row.optimizer]}));
  const series = [...new Set(rows.map((row) => row.series).filter(Boolean))];
  const points = kind === 'points';
  const dash = series.length > 1 ? {strokeDash: {field: 'series', type: 'nominal', title: null,
    scale: {domain: series, range: [[1, 0], [5, 3]]},
    legend: {orient: 'bottom', symbolType: 'stroke', symbolSize: 300, symbolStrokeWidth: 2, offset: 6}}} : {};
  const legend = points ? {symbolType: 'circle', symbolStrokeWidth: 1, symbolSize: 90} : {};
  return {
    height: 240, title: {text: title}, data: {values},
    mark: points ? {type: 'point', filled: true, size: 26, opacity: 0.55} : {type: 'line', strokeWidth: 2},
    encoding: {
      x: {field: 'x', type: 'quantitative', title: x, scale: {nice: false, zero: false},
        axis: {tickCount: 6, format: points ? '~g' : '~s', grid: false, labelFlush: true}},
      y: {field: 'y', type: 'quantitative', title: y,
        scale: kind === 'log_lines' ? {type: 'log', nice: false} : {zero: false},
        axis: {tickCount: 5, format: kind === 'log_lines' ? '.0e' : '~g'}},
      color: colourEncoding(present, {offset: 2, labelFontSize: 12, ...legend}), ...dash,
      tooltip: [{field: 'optimizer'}, ...(series.length ? [{field: 'series'}] : []),
        {field: 'x', title: x, format: '.4~g'}, {field: 'y', title: y, format: '.4~g'}],
    },
  };
}

async function exhibits() {
  show('exhibits', report.exhibits.length > 0);
  const target = document.getElementById('exhibit-charts');
  for (const exhibit of report.exhibits) {
    const chart = make('div', {class: 'chart'});
    target.append(make('div', {id: `exhibit-${exhibit.key}`}, chart,
      make('p', {class: 'caption'}, exhibit.caption)));
    await draw(() => embed(chart, exhibitSpec(exhibit)));
  }
}

// A row for every measure, in order of importance, and a column for every optimizer.
function measureTable() {
  const {columns, rows} = report.measures;
  show('measures', columns.some((column) => column.known));
  if (report.kind === 'run')
    document.getElementById('measure-caption').textContent =
      'Of the final evaluation, or the mean over the last tenth of the updates.';
  document.getElementById('measure-table').append(table(
    [{title: 'Measure', type: 'nowrap'}, ...rows.map(({key}) => ({title: labels[key], type: 'number'}))],
    columns.map(({title, known}, i) => known && [title, ...rows.map(({cells}) => cells[i])]).filter(Boolean),
    rows.length > 5 ? 'dense many' : 'dense'));
}

function verdictOf(answer) {
  if (answer.correct) return ['right', 'right'];
  if (answer.right_unformatted) return ['form', 'right, without the form'];
  return ['wrong', answer.formatted ? 'wrong' : 'wrong, without the form'];
}

function answerBlock(title, answer) {
  const [kind, words] = verdictOf(answer);
  return make('div', {class: 'answer'}, make('p', {}, title, make('span', {class: `verdict-${kind}`}, words)),
    make('pre', {tabindex: 0}, answer.text === '' ? '(nothing)' : answer.text));
}

function sampleAnswers() {
  const {answers} = report;
  show('answers', answers.length > 0);
  if (answers.length === 0) return;
  const target = document.getElementById('answer-list'), controls = document.getElementById('answer-controls');
  const render = (index) => {
    const {prompt, reference, before, after} = answers[index];
    target.replaceChildren(make('p', {class: 'prompt'}, make('b', {}, 'Problem'), make('code', {}, prompt),
      make('b', {}, 'Answer'), make('code', {}, reference)),
    make('div', {class: 'answers'}, answerBlock('Before training', before),
      ...after.map((answer) => answerBlock(keyLabel(answer.optimizer), answer))));
  };
  controls.append(segments('problem', answers.map((_, i) => ({key: i, title: String(i + 1)})), 0, render));
  render(0);
}
