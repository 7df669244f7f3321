// SPDX-License-Identifier: Apache-2.0
// Snake, played back: every optimizer's game on its own board, one clock for all.

function drawBoard(canvas, game, frame) {
  const [height, width] = game.board;
  const side = Math.max(1, canvas.clientWidth);
  const ratio = window.devicePixelRatio || 1;
  canvas.width = Math.round(side * ratio);
  canvas.height = Math.round((side * ratio * height) / width);
  const cell = canvas.width / width;
  const context = canvas.getContext('2d');
  context.strokeStyle = token('--line');
  context.lineWidth = 1;
  context.beginPath();
  for (let column = 1; column < width; ++column) {
    context.moveTo(column * cell, 0);
    context.lineTo(column * cell, canvas.height);
  }
  for (let row = 1; row < height; ++row) {
    context.moveTo(0, row * cell);
    context.lineTo(canvas.width, row * cell);
  }
  context.stroke();
  drawSnake(context, frame.snake ?? [], cell, colour(game.optimizer));
  if (!frame.food) return;
  const [row, column] = frame.food;
  context.fillStyle = token('--text');
  context.beginPath();
  context.arc((column + 0.5) * cell, (row + 0.5) * cell, cell * 0.22, 0, 2 * Math.PI);
  context.fill();
}

// Head strong, tail faint; neighbouring cells are joined, so that the snake's path can be read.
function drawSnake(context, snake, cell, hue) {
  context.lineCap = context.lineJoin = 'round';
  for (let i = snake.length - 1; i >= 0; --i) {
    const [row, column] = snake[i];
    const [nextRow, nextColumn] = snake[Math.max(0, i - 1)];
    const adjacent = Math.abs(row - nextRow) + Math.abs(column - nextColumn) <= 1;
    context.strokeStyle = mix(hue, token('--soft'), 0.7 * (i / Math.max(1, snake.length)));
    context.lineWidth = cell * 0.62;
    context.beginPath();
    context.moveTo((column + 0.5) * cell, (row + 0.5) * cell);
    context.lineTo(((adjacent ? nextColumn : column) + 0.5) * cell, ((adjacent ? nextRow : row) + 0.5) * cell);
    context.stroke();
  }
  if (snake.length === 0) return;
  const [row, column] = snake[0];
  context.fillStyle = token('--card');
  context.beginPath();
  context.arc((column + 0.5) * cell, (row + 0.5) * cell, cell * 0.13, 0, 2 * Math.PI);
  context.fill();
}

function playedGames() {
  const {games} = report;
  show('games', games.length > 0);
  if (games.length === 0) return;
  const longest = Math.max(...games.map((game) => game.frames.length));
  const state = {move: longest - 1, playing: false, due: 0};
  const boards = games.map((game) => {
    const canvas = make('canvas', {role: 'img', 'aria-label': `Game played by ${labels[game.optimizer]}`});
    const status = make('span', {class: 'state'});
    document.getElementById('game-boards').append(
      make('div', {class: 'game'}, canvas, make('p', {}, keyLabel(game.optimizer), status)));
    return {game, canvas, status};
  });
  const render = () => {
    for (const {game, canvas, status} of boards) {
      const frame = game.frames[Math.min(state.move, game.frames.length - 1)];
      drawBoard(canvas, game, frame);
      const move = game.first + Math.min(state.move, game.frames.length - 1);
      status.textContent = `score ${frame.score ?? '–'}, move ${move} of ${game.moves}`;
    }
    place.value = state.move;
    button.textContent = state.playing ? 'Pause' : state.move >= longest - 1 ? 'Replay' : 'Play';
  };
  const tick = (now) => {
    if (!state.playing) return;
    if (now >= state.due) {
      state.due = now + 1000 / Number(speed.value);
      state.move += 1;
      if (state.move >= longest - 1) state.playing = false;
      render();
    }
    requestAnimationFrame(tick);
  };
  const play = () => {
    if (longest < 2) return;
    if (state.move >= longest - 1) state.move = 0;
    state.playing = true;
    requestAnimationFrame(tick);
  };
  const button = make('button', {type: 'button', class: 'play', onclick: () => {
    if (state.playing) state.playing = false;
    else play();
    render();
  }}, 'Play');
  const place = make('input', {type: 'range', min: 0, max: longest - 1, oninput: () => {
    state.playing = false;
    state.move = Number(place.value);
    render();
  }});
  const speed = make('input', {type: 'range', min: 2, max: 60, value: 12});
  document.getElementById('game-controls').append(button,
    make('label', {}, 'Move', place), make('label', {}, 'Speed', speed));
  draw(render);  // the final frame, until somebody presses the button
  window.addEventListener('resize', render);
}
