// SPDX-License-Identifier: Apache-2.0
// Fills the page from top to bottom, then marks it ready.

function header() {
  const {headline, numbers, verdict} = report.outcome;
  const kind = report.kind === 'comparison' ? 'Comparison of optimizers' : 'Training run';
  document.getElementById('eyebrow').textContent =
    [kind, report.task && `task ${report.task}`, report.recipe && `recipe ${report.recipe}`].filter(Boolean).join(' · ');
  document.getElementById('headline').textContent = headline;
  document.getElementById('numbers').textContent = numbers;
  document.getElementById('verdict').textContent = verdict;
  show('verdict', verdict !== '');
  const list = document.getElementById('notes');
  list.hidden = report.notes.length === 0;
  // one line a message, with the runs that it concerns
  const runs = new Map();
  for (const {where, message} of report.notes) runs.set(message, [...(runs.get(message) ?? []), where]);
  for (const [message, names] of [...runs].slice(0, 12)) {
    const others = names.length > 3 ? ` and ${names.length - 3} more` : '';
    list.append(make('li', {}, make('b', {}, names.slice(0, 3).join(', ') + others), `: ${message}`));
  }
  if (runs.size > 12) list.append(make('li', {}, `and ${runs.size - 12} more kinds of notes`));
}

header();
resultTable();
measureTable();
sampleAnswers();
warningTable();
routingTable();
setUp();
playedGames();
await learningCurves();
await learningRates();
await exhibits();
await layerStatistics();
document.documentElement.dataset.ready = 'true';
