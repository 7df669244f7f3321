// SPDX-License-Identifier: Apache-2.0
// Colours, the charts' look, and the few elements that every section builds.

const report = JSON.parse(document.getElementById('report-data').textContent);
const darkScheme = window.matchMedia('(prefers-color-scheme: dark)');

// One hue per optimizer everywhere; told apart also with red-green blindness (after Okabe and
// Ito), contrast at least 3:1 against the card.
const hues = {
  adamw: ['#0072b2', '#5db3f0'], muon: ['#008060', '#3ccf9e'], pion: ['#d0480b', '#ff8b55'],
  sgd: ['#b0448a', '#ea9bc9'], low_rank_muon: ['#8a6d00', '#e0c04a'],
  low_pass_muon: ['#5b55d0', '#aaa4ff'],
};
const spareHues = [['#57606a', '#a8b3bf'], ['#8a4b2a', '#c99b7d'], ['#00808c', '#58cfd8'], ['#b3123f', '#ff8fa6']];
const shapes = ['circle', 'square', 'triangle-up', 'diamond', 'triangle-down', 'cross'];

const keys = report.optimizers.map((row) => row.key);
const labels = Object.fromEntries(report.optimizers.map((row) => [row.key, row.label]));

function colour(key) {
  const others = keys.filter((name) => !hues[name]);
  const free = Object.keys(hues).filter((name) => !keys.includes(name)).map((name) => hues[name]);
  const spare = [...free, ...spareHues];
  const pair = hues[key] || spare[Math.max(0, others.indexOf(key)) % spare.length];
  return pair[darkScheme.matches ? 1 : 0];
}

function token(name) {
  return getComputedStyle(document.documentElement).getPropertyValue(name).trim();
}

// Colour by optimizer; the legend only where there is something to tell apart.
function colourEncoding(present, extra = {}) {
  const shown = keys.filter((key) => present.includes(key));
  return {
    field: 'optimizer', type: 'nominal', title: null,
    scale: {domain: shown.map((key) => labels[key]), range: shown.map(colour)},
    legend: shown.length > 1 ? {orient: 'top', symbolType: 'stroke', symbolStrokeWidth: 3,
      symbolSize: 200, symbolOpacity: 1, labelFontSize: 13, offset: 8, ...extra} : null,
  };
}

// Names that do not fit in one row stand in columns; undefined where they fit.
function legendColumns(spec, width) {
  const widths = (spec.encoding?.color?.scale?.domain ?? []).map((name) => 44 + 7.2 * name.length);
  const total = widths.reduce((sum, one) => sum + one, 0);
  return total > width ? Math.max(1, Math.floor(width / Math.max(...widths))) : undefined;
}

function chartConfig(legend) {
  const font = getComputedStyle(document.body).fontFamily;
  return {
    background: 'transparent', font, view: {stroke: null},
    axis: {labelColor: token('--muted'), titleColor: token('--muted'), titleFontWeight: 500,
      titleFontSize: 12, labelFontSize: 12, gridColor: token('--line'), gridOpacity: 0.8,
      domainColor: token('--line'), tickColor: token('--line'), titlePadding: 10,
      labelPadding: 5},
    axisY: {domain: false, ticks: false},
    legend: {labelColor: token('--text'), titleColor: token('--muted'), titleFontWeight: 500, ...legend},
    title: {color: token('--text'), anchor: 'start', fontSize: 14, fontWeight: 600, offset: 10},
  };
}

// Every drawing registers itself, so that a change of colour scheme draws it again.
const drawings = [];
async function draw(drawing) {
  drawings.push(drawing);
  await drawing();
}
darkScheme.addEventListener('change', () => drawings.forEach((drawing) => drawing()));

async function embed(target, spec, renderer = 'svg') {
  const element = typeof target === 'string' ? document.getElementById(target) : target;
  element.view?.finalize();
  const full = {autosize: {type: 'fit-x', contains: 'padding'}, width: 'container',
    padding: {left: 1, top: 6, right: 14, bottom: 4}, ...spec};
  const result = await window.vegaEmbed(element, full,
    {actions: false, renderer, ast: false,
      config: chartConfig({columns: legendColumns(spec, element.clientWidth)})});
  element.view = result.view;
}

function make(tag, attributes = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (name.startsWith('on')) element.addEventListener(name.slice(2), value);
    else if (value !== false && value !== null) element.setAttribute(name, value === true ? '' : value);
  }
  element.append(...children.filter((child) => child !== null));
  return element;
}

// A row of buttons of which one is pressed.
function segments(name, options, chosen, pick) {
  const row = make('div', {class: 'segments', role: 'group', 'aria-label': name});
  for (const {key, title} of options) {
    row.append(make('button', {type: 'button', 'aria-pressed': String(key === chosen),
      onclick: (event) => {
        for (const button of row.children) {
          button.setAttribute('aria-pressed', String(button === event.currentTarget));
        }
        pick(key);
      }}, title));
  }
  return row;
}

// The optimizer's name with its colour.
function keyLabel(key) {
  const swatch = make('span', {class: 'swatch', 'aria-hidden': 'true'});
  const paint = () => { swatch.style.background = colour(key); };
  drawings.push(paint);
  paint();
  return make('span', {class: 'key'}, swatch, labels[key] ?? key);
}

// Ticks of a logarithmic axis: powers of ten, with 2 and 5 when there are few of them.
function logTicks(low, high, chosenFactors = null) {
  const ticks = [];
  const decades = Math.log10(high / low);
  const factors = chosenFactors ?? (decades < 1.5 ? [1, 2, 5] : [1]);
  const stride = Math.max(1, Math.ceil(decades / 7));
  for (let power = Math.floor(Math.log10(low)); power <= Math.ceil(Math.log10(high)); power += stride) {
    ticks.push(...factors.map((factor) => Number(`${factor}e${power}`)));
  }
  return ticks.filter((tick) => tick >= low / 1.001 && tick <= high * 1.001);
}

// A colour between two others given as #rrggbb; share 0 gives the first.
function mix(first, second, share) {
  const channel = (hex, i) => parseInt(hex.slice(1 + 2 * i, 3 + 2 * i), 16);
  const mixed = [0, 1, 2].map((i) => Math.round(channel(first, i) * (1 - share) + channel(second, i) * share));
  return `rgb(${mixed.join(' ')})`;
}

function show(id, visible) {
  document.getElementById(id).hidden = !visible;
}
