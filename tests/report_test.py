# SPDX-License-Identifier: Apache-2.0
"""Renders the report of made-up runs and opens it in headless Chromium.

The renderer is `pion report` where PION_BINARY names the command, else lab_report_tool from
PION_REPORT_TOOL or a build folder. PION_REPORT_SCREENSHOTS names a folder for pictures of the pages.
"""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import report_browser
import report_fixture
from report_browser import Browser

ROOT = Path(__file__).resolve().parent.parent
MAX_BYTES = 4 * 1024 * 1024


def renderer() -> list[str]:
    if binary := os.environ.get("PION_BINARY"):
        return [binary, "report"]
    tools = [
        os.environ.get("PION_REPORT_TOOL"),
        *map(str, sorted(ROOT.glob("build/*/lab/report/lab_report_tool"))),
    ]
    for tool in filter(None, tools):
        if Path(tool).exists():
            return [tool]
    pytest.skip("no renderer: build the target lab_report_tool, or set PION_BINARY")


def render(run: Path, html: Path, **environment) -> subprocess.CompletedProcess:
    command = [
        *renderer(),
        str(run),
        *(["--out"] if os.environ.get("PION_BINARY") else []),
        str(html),
    ]
    return subprocess.run(
        command,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
        env={**os.environ, **environment},
    )


def rendered(run: Path, html: Path) -> Path:
    result = render(run, html)
    assert result.returncode == 0, result.stderr
    assert html.stat().st_size < MAX_BYTES
    assert not list(html.parent.glob("*.partial"))
    return html


@pytest.fixture(scope="module")
def browser():
    if not report_browser.CHROMIUM:
        pytest.skip("no Chromium: apt-get install chromium")
    with Browser() as opened:
        yield opened


@pytest.fixture(scope="module")
def runs(tmp_path_factory) -> Path:
    root = tmp_path_factory.mktemp("runs")
    report_fixture.write_comparison(root / "comparison")
    report_fixture.write_regression(root / "regression")
    report_fixture.write_language(root / "language")
    report_fixture.write_run(root / "single", "pion", 0.02, 1)
    report_fixture.write_run(root / "unfinished", "muon", 0.01, 1, status="unfinished")
    report_fixture.write_run(root / "failed", "pion", 0.02, 1, score=None, status="failed")
    damage(root)
    return root


def damage(root: Path) -> None:
    """Runs that were killed, emptied or filled with something else."""
    cut = root / "unfinished" / "metrics.jsonl"
    cut.write_text(cut.read_text()[:-25])
    (root / "bare").mkdir()
    (root / "bare" / "recipe.toml").write_text(
        'task = "snake"\n[optimizer.matrices]\nrule = "sgd"\n'
    )
    (root / "nan").mkdir()
    lines = [
        f'{{"kind":"update","step":{i},"wall_seconds":{i},"metrics":{{"loss":{"NaN" if i > 3 else 1.5}}}}}\n'
        for i in range(1, 9)
    ]
    (root / "nan" / "metrics.jsonl").write_text("".join(lines))
    for name in ("sample.json", "environment.json", "result.json"):
        (root / "nan" / name).write_text(
            '{"kind":"snake_game","board":[0,"x"],"frames":[1,null,{}]}'
        )
    (root / "nan" / "routing.toml").write_text("not [ toml")
    hollow = root / "hollow"  # a comparison whose run directories are gone
    hollow.mkdir()
    shutil.copy(root / "comparison" / "compare.json", hollow)
    hostile = root / "hostile"
    report_fixture.write_run(hostile, "pion", 0.02, 1)
    lines = (
        (hostile / "metrics.jsonl")
        .read_text()
        .replace("layers.0.mlp.up", "</script><script>window.owned=1</script>")
    )
    (hostile / "metrics.jsonl").write_text(lines)
    (hostile / "recipe.toml").write_text(
        'seed = 1\n# {{data}} <!--<script> \u2028 </SCRIPT>\n[optimizer.matrices]\nrule = "<img src=x onerror=alert(1)>"\n'
    )


def check_page(browser: Browser, page: Path, width: int, scheme: str) -> None:
    browser.open(page, width, scheme)
    ready = browser.evaluate("document.documentElement.dataset.ready")
    assert browser.errors() == []
    assert ready == "true"
    assert browser.requests() == []
    assert browser.evaluate("document.documentElement.scrollWidth") <= width, (
        "the page scrolls sideways"
    )
    if folder := os.environ.get("PION_REPORT_SCREENSHOTS"):
        Path(folder).mkdir(parents=True, exist_ok=True)
        browser.screenshot(Path(folder) / f"{page.stem}_{width}_{scheme}.png")


def marks(browser: Browser, chart: str, selector: str) -> int:
    """Drawn shapes that have an extent."""
    shapes = f"[...document.querySelectorAll('#{chart} {selector}')]"
    return browser.evaluate(
        f"{shapes}.filter(s => s.getBoundingClientRect().width + s.getBoundingClientRect().height > 1).length"
    )


def painted(browser: Browser, canvas: str) -> int:
    """Distinct colours of a canvas, from every 97th pixel: 1 or less means that it is empty."""
    return browser.evaluate(
        f"(() => {{const c = document.querySelector('{canvas}'); if (!c) return 0;"
        "const d = c.getContext('2d').getImageData(0, 0, c.width, c.height).data, s = new Set();"
        "for (let i = 0; i < d.length; i += 388) s.add(d[i] + ',' + d[i+1] + ',' + d[i+2]); return s.size})()"
    )


def visible_sections(browser: Browser) -> list[str]:
    return browser.evaluate(
        "[...document.querySelectorAll('section')].filter(s => !s.hidden).map(s => s.id)"
    )


def click(browser: Browser, controls: str, title: str) -> None:
    browser.evaluate(
        f"[...document.querySelectorAll('#{controls} button')].find(b => b.textContent === '{title}').click()"
    )


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [1400, 480])
def test_comparison_shows_every_chart(browser, runs, tmp_path, width, scheme):
    check_page(browser, rendered(runs / "comparison", tmp_path / "comparison.html"), width, scheme)
    assert len(visible_sections(browser)) == 10
    assert marks(browser, "curve-chart", "g.mark-line path") == 3
    assert marks(browser, "curve-chart", "g.mark-area path") == 3
    # per optimizer three final runs; nine tuning runs, of which Muon lost three; a ring each
    points = 3 * 3 + 3 * 9 - 3
    assert marks(browser, "rate-chart", "g.mark-symbol.role-mark path") == points + 3 + 3
    assert (
        marks(browser, "layer-charts", "g.mark-line path") == 3 + 2 + 2 + 2
    )  # AdamW looks at no spectrum
    assert painted(browser, "#layer-map canvas") > 20
    assert browser.evaluate("document.querySelectorAll('#game-boards canvas').length") == 3
    assert painted(browser, "#game-boards canvas") > 3
    assert browser.evaluate("document.querySelectorAll('#result-table tbody tr').length") == 3
    assert browser.evaluate("document.querySelectorAll('#routing-table tbody tr').length") == 19


def test_comparison_says_what_happened(browser, runs, tmp_path):
    check_page(browser, rendered(runs / "comparison", tmp_path / "words.html"), 1400, "light")
    text = browser.evaluate("document.body.innerText")
    assert (
        browser.evaluate("document.querySelector('h1').textContent")
        == "Pion scored highest on snake"
    )
    assert re.search(
        r"Pion scored 7\.\d+ ± \d.* over 3 seeds\); a random policy scores 0\.16\.", text
    )
    assert "3 of 36 runs failed" in text
    assert "PPO: the loss must be finite, got nan" in text
    assert "highest of the grid: the best may lie beyond" in text  # AdamW
    assert "Seeds of Muon end at different places" in text
    assert "layers.0.mlp.up.weight: the update was empty for 10 steps" in text
    assert "non-finite gradient, parameter skipped: layers.0.mlp.down.weight" in text
    assert "pion compare lab/recipes/snake_ppo.toml --optimizers adamw,muon,pion --seeds 3" in text
    assert "Example CPU </script> 2.4 GHz" in text


def test_controls_redraw_without_errors(browser, runs, tmp_path):
    check_page(browser, rendered(runs / "comparison", tmp_path / "controls.html"), 1400, "light")
    first = browser.evaluate("document.querySelector('#curve-chart').innerHTML")
    click(browser, "curve-controls", "wall time (seconds)")
    click(browser, "layer-controls", "AdamW")  # it has update RMS only
    browser.evaluate(
        "{const s = document.querySelector('select'); s.value = 'value_loss'; s.dispatchEvent(new Event('change'))}"
    )
    browser.evaluate("new Promise(done => setTimeout(done, 800))")
    assert browser.evaluate("document.querySelector('#curve-chart').innerHTML") != first
    assert marks(browser, "curve-chart", "g.mark-line path") == 3
    browser.call(
        "Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": "dark"}]
    )
    browser.evaluate("new Promise(done => setTimeout(done, 800))")
    assert browser.errors() == []


def test_game_plays_to_its_end(browser, runs, tmp_path):
    check_page(browser, rendered(runs / "single", tmp_path / "game.html"), 1400, "light")
    state = "document.querySelector('.game .state').textContent"
    final = browser.evaluate(state)
    browser.evaluate("document.querySelectorAll('#game-controls input')[1].value = 60")
    browser.evaluate("document.querySelector('button.play').click()")
    browser.evaluate("new Promise(done => setTimeout(done, 300))")
    assert browser.evaluate(state) != final
    browser.evaluate(
        "new Promise(done => {const poll = () => document.querySelector('button.play').textContent === 'Replay' ? done() : setTimeout(poll, 50); poll()})"
    )
    assert browser.evaluate(state) == final


def test_single_run_leaves_out_the_comparison(browser, runs, tmp_path):
    check_page(browser, rendered(runs / "single", tmp_path / "single.html"), 1400, "light")
    assert "rates" not in visible_sections(browser)
    assert marks(browser, "curve-chart", "g.mark-line path") == 1
    assert not browser.evaluate("document.querySelector('#curve-controls input').checked"), (
        "a rising score is linear"
    )
    assert (
        browser.evaluate("document.querySelector('h1').textContent") == "Pion scored 7.00 on snake"
    )
    assert "pion train snake --seed 1" in browser.evaluate("document.body.innerText")
    measures = browser.evaluate("document.getElementById('measures').innerText")
    assert "return\t12.5" in measures and "never measured" not in measures
    assert "last tenth" in measures and "tuned rate" not in measures


@pytest.mark.parametrize("width,scheme", [(1400, "dark"), (480, "light")])
def test_control_task_without_a_game(browser, runs, tmp_path, width, scheme):
    check_page(browser, rendered(runs / "regression", tmp_path / "regression.html"), width, scheme)
    assert not {"games", "layers", "routing"} & set(visible_sections(browser))
    assert marks(browser, "curve-chart", "g.mark-line path") == 3
    assert browser.evaluate("document.querySelector('#curve-controls input').checked"), (
        "losses over decades start logarithmic"
    )


@pytest.mark.parametrize("width,scheme", [(1400, "light"), (480, "dark")])
def test_language_model_shows_answers_and_what_curves_hide(browser, runs, tmp_path, width, scheme):
    check_page(browser, rendered(runs / "language", tmp_path / "language.html"), width, scheme)
    assert {"measures", "answers", "exhibits"} <= set(visible_sections(browser))
    measures = browser.evaluate("document.getElementById('measure-table').innerText")
    assert "reward mean" in measures and "never measured" not in measures
    assert marks(browser, "exhibit-sampled_greedy", "g.mark-line path") == 6
    assert marks(browser, "exhibit-loss_reward", "g.mark-symbol.role-mark path") == 3 * 60
    assert marks(browser, "exhibit-matrices_embeddings", "g.mark-line path") == 6
    text = browser.evaluate("document.body.innerText")
    # the curves of the fixture: greedy is sampled + 0.1, and no form is lost at the end
    assert "sampled at the end: AdamW 0.100, Muon 0.100, Pion 0.100" in text
    assert "without the form at the end: AdamW 0.000, Muon 0.000, Pion 0.000" in text
    assert browser.evaluate("document.querySelectorAll('#answer-list .answer').length") == 4
    assert "right, without the form" in browser.evaluate(
        "document.querySelector('#answer-list').innerText"
    )
    click(browser, "answer-controls", "2")
    assert "17+24:" in browser.evaluate("document.querySelector('.prompt').textContent")
    assert browser.errors() == []


@pytest.mark.parametrize(
    "name,says",
    [
        ("unfinished", "is cut off and was ignored"),
        ("failed", "Pion failed"),
        ("bare", "metrics.jsonl is missing"),
        ("nan", "routing.toml holds no list of parameters"),
        ("hollow", "the run's directory is missing"),
        ("hostile", "<img src=x onerror=alert(1)>"),
    ],
)
def test_damaged_runs_still_make_a_page(browser, runs, tmp_path, name, says):
    check_page(browser, rendered(runs / name, tmp_path / f"{name}.html"), 1400, "light")
    text = browser.evaluate("document.body.innerText")
    assert says in text
    assert browser.evaluate("window.owned === undefined")


def test_a_foreign_directory_is_refused(tmp_path):
    (tmp_path / "notes.txt").write_text("hello")
    page = tmp_path / "page.html"
    page.write_text("old")
    result = render(tmp_path, page)
    assert result.returncode != 0
    assert all(
        name in result.stderr
        for name in ("compare.json", "metrics.jsonl", "recipe.toml", str(tmp_path))
    )
    assert page.read_text() == "old"


@pytest.mark.parametrize("text", ["", "{", "[]", '{"optimizers": 3, "runs": []}'])
def test_a_broken_comparison_is_refused(tmp_path, text):
    (tmp_path / "compare.json").write_text(text)
    result = render(tmp_path, tmp_path / "page.html")
    assert result.returncode != 0
    assert "compare.json must" in result.stderr
    assert not (tmp_path / "page.html").exists()


def test_missing_assets_are_named(runs, tmp_path):
    result = render(runs / "single", tmp_path / "page.html", PION_REPORT_ASSETS=str(tmp_path))
    assert result.returncode != 0
    assert "PION_REPORT_ASSETS" in result.stderr and "report_assets" in result.stderr


def test_long_runs_stay_small(tmp_path):
    report_fixture.write_run(tmp_path / "long", "pion", 0.02, 1, updates=20_000)
    page = rendered(tmp_path / "long", tmp_path / "long.html")
    data = re.search(
        r'<script type="application/json" id="report-data">(.*?)</script>',
        page.read_text(),
        re.DOTALL,
    )
    report = json.loads(data.group(1))
    assert max(len(one["x"]) for one in report["curves"]["series"]) <= 400


def test_an_unwritable_place_is_an_error(runs, tmp_path):
    (tmp_path / "page.html").mkdir()
    result = render(runs / "single", tmp_path / "page.html")
    assert result.returncode != 0
    assert "write_report" in result.stderr
    assert not list(tmp_path.glob("*.partial"))


def test_picture_draws_the_curves(runs, tmp_path):
    page = rendered(runs / "comparison", tmp_path / "report.html")
    script = [sys.executable, str(ROOT / "lab/report/picture.py")]
    for name, start in (("curves.svg", b"<svg"), ("curves.png", b"\x89PNG")):
        subprocess.run([*script, str(page.parent), str(tmp_path / name)], check=True, timeout=60)
        assert (tmp_path / name).read_bytes().startswith(start)
    svg = (tmp_path / "curves.svg").read_text()
    assert all(name in svg for name in ("AdamW", "Muon", "Pion", "environment steps"))
    wrong = subprocess.run(
        [*script, str(page), str(tmp_path / "x.svg"), "--metric", "speed"],
        check=False,
        capture_output=True,
        text=True,
    )
    assert wrong.returncode != 0 and "return_mean" in wrong.stderr
