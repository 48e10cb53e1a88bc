"""The pages in headless Chromium: nothing is cut off, columns sort, both schemes can be read, nothing is complained of."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import fusionzoo
from fusionzoo.reporting.board import leaderboard
from fusionzoo.reporting.comparison import Contestant

pytestmark = pytest.mark.slow

WIDTHS = (390, 1200)
#: Elements whose right edge lies beyond the window, or beyond an ancestor that hides what does not fit, though nothing between
#: them and the window scrolls.
CUT_OFF = """() => {
  const scrolls = (e) => ["auto", "scroll"].includes(getComputedStyle(e).overflowX);
  const inside = (e) => { for (let p = e.parentElement; p; p = p.parentElement) if (scrolls(p)) return true; return false; };
  return [...document.body.querySelectorAll("*")]
    .filter((e) => e.getClientRects().length && !["SCRIPT", "STYLE"].includes(e.tagName) && !inside(e))
    .filter((e) => e.getBoundingClientRect().right > innerWidth + 0.5 || e.getBoundingClientRect().left < -0.5)
    .map((e) => `${e.tagName}.${e.className} ${e.textContent.slice(0, 40)}`);
}"""
#: Texts whose contrast with what lies behind them is below that of WCAG AA (4.5; 3 for large letters).
PALE = """() => {
  const parse = (text) => {
    const m = text.match(/rgba?\\(([^)]*)\\)/);
    if (m) { const [r, g, b, a = 1] = m[1].split(/[ ,/]+/).map(Number); return [r, g, b, a]; }
    const s = text.match(/color\\(srgb ([^)]*)\\)/)[1].split(/[ /]+/).map(Number);
    return [255 * s[0], 255 * s[1], 255 * s[2], s[3] ?? 1];
  };
  const over = (top, below) => [0, 1, 2].map((i) => top[3] * top[i] + (1 - top[3]) * below[i]).concat(1);
  const behind = (e) => {
    const layers = [];
    for (let p = e; p; p = p.parentElement) layers.push(parse(getComputedStyle(p).backgroundColor));
    return layers.reverse().reduce((below, top) => over(top, below), [255, 255, 255, 1]);
  };
  const light = (c) => [0.2126, 0.7152, 0.0722].reduce((sum, w, i) => {
    const v = c[i] / 255;
    return sum + w * (v <= 0.03928 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4);
  }, 0);
  const own = (e) => [...e.childNodes].some((n) => n.nodeType === 3 && n.textContent.trim());
  return [...document.body.querySelectorAll("*")].filter((e) => e.getClientRects().length && own(e)).flatMap((e) => {
    const style = getComputedStyle(e), back = behind(e);
    const ink = over(parse(e instanceof SVGElement ? style.fill : style.color), back);
    const [a, b] = [light(ink), light(back)].sort((x, y) => y - x);
    const large = parseFloat(style.fontSize) >= 24 || (parseFloat(style.fontSize) >= 18.5 && style.fontWeight >= 700);
    const contrast = (a + 0.05) / (b + 0.05);
    return contrast < (large ? 3 : 4.5) ? [`${e.tagName}.${e.className?.baseVal ?? e.className} ${contrast.toFixed(2)} ${e.textContent.slice(0, 30)}`] : [];
  });
}"""


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    sync_api = pytest.importorskip("playwright.sync_api", reason="the extra `browser` (playwright) is not installed")
    program = os.environ.get("CHROMIUM") or shutil.which("chromium") or shutil.which("chromium-browser")
    if program is None:
        pytest.skip("no Chromium: Debian's package chromium, or its path in CHROMIUM")
    with sync_api.sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=program, args=["--no-sandbox"])
        yield chromium
        chromium.close()


class Opened:
    """A page in a window, and what it complained of."""

    def __init__(self, browser: Any, path: Path, width: int = 1200, scheme: str = "light", scripts: bool = True):
        self.context = browser.new_context(
            viewport={"width": width, "height": 800}, color_scheme=scheme, java_script_enabled=scripts
        )
        self.page = self.context.new_page()
        self.complaints: list[str] = []
        self.page.on("console", lambda message: self.complaints.append(message.text))
        self.page.on("pageerror", lambda error: self.complaints.append(str(error)))
        self.page.on("request", lambda request: self._asked(request.url))
        self.page.goto(path.as_uri())

    def _asked(self, url: str) -> None:
        if not url.startswith(("file:", "data:")):
            self.complaints.append(f"asked for {url}")

    def open_everything(self) -> None:
        self.page.evaluate("document.querySelectorAll('details').forEach((d) => { d.open = true; })")

    def column(self, number: int) -> list[str]:
        return self.page.eval_on_selector_all(
            f"table.sortable:first-of-type tbody td:nth-child({number})", "cells => cells.map((c) => c.textContent)"
        )

    def __enter__(self) -> Opened:
        return self

    def __exit__(self, *_: object) -> None:
        self.context.close()


LONG = "a-fusion-with-a-rather-long-name"


@pytest.fixture
def comparison(compared, written) -> Path:
    """Hosts and fusions enough for ranks, a name that is long, a run that failed, and data that say how far one can come."""
    hosts, fusions = ("dialogue-gcn", "bc-lstm", "text-cnn"), ("concat", "lmam", "cross-attention", LONG)
    right = {Contestant(h, f): 0.4 + 0.1 * i for h in hosts for i, f in enumerate(fusions)}
    rows = compared(right, seeds=3)
    for row in rows:
        row.ceiling = 0.95
    return written(rows, {"text-cnn__tfn__seed0": "OptionError: the rank must be positive, not -3"}) / "report.html"


@pytest.fixture(scope="module")
def others(tmp_path_factory, corpus, make_config) -> dict[str, Path]:
    """Pages of a run, of folds, of a reproduction, of diagnoses, and the leaderboard of them all."""
    folder = tmp_path_factory.mktemp("others")
    config = make_config(epochs=2)
    fusionzoo.train(config, folder / "run", quiet=True, corpus=corpus)
    fusionzoo.cross_validate(config, folder / "folds", 2, quiet=True, corpus=corpus)
    fusionzoo.reproduce(folder / "run", folder / "again", quiet=True)
    fusionzoo.compare(
        make_config(epochs=1), folder / "two", fusions=["concat", "gated"], seeds=1, quiet=True, corpus=corpus
    )
    for looked in ("run", "two"):
        fusionzoo.diagnose(folder / looked, corpus, quiet=True)
    (folder / "board.html").write_text(leaderboard(folder))
    pages = {name: folder / name / "report.html" for name in ("run", "folds", "again")}
    looked = {f"diagnosis of {name}": folder / name / "diagnosis.html" for name in ("run", "two")}
    return {**pages, **looked, "board": folder / "board.html"}


def check(browser: Any, path: Path, width: int, scheme: str) -> None:
    with Opened(browser, path, width, scheme) as opened:
        opened.open_everything()
        assert opened.page.evaluate("document.documentElement.scrollWidth") <= width
        assert opened.page.evaluate(CUT_OFF) == []
        assert opened.page.evaluate(PALE) == []
        assert opened.complaints == []


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", WIDTHS)
def test_a_comparison_can_be_read(browser, comparison, width, scheme):
    check(browser, comparison, width, scheme)


@pytest.mark.parametrize("name", ["run", "folds", "again", "diagnosis of run", "diagnosis of two", "board"])
def test_the_other_pages_can_be_read(browser, others, name):
    for width in WIDTHS:
        for scheme in ("light", "dark"):
            check(browser, others[name], width, scheme)


def test_the_schemes_differ(browser, comparison):
    colours = set()
    for scheme in ("light", "dark"):
        with Opened(browser, comparison, scheme=scheme) as opened:
            colours.add(opened.page.evaluate("getComputedStyle(document.body).backgroundColor"))
    assert len(colours) == 2


def test_what_is_cut_off_or_pale_is_found(browser, tmp_path):
    page = tmp_path / "bad.html"
    page.write_text(
        "<body style='background:#fff'><div style='overflow:hidden'><p style='width:2000px'>wide</p></div>"
        "<div style='overflow-x:auto'><p style='width:2000px'>scrolls</p></div><p style='color:#ccc'>pale</p></body>"
    )
    with Opened(browser, page) as opened:
        assert [found.split()[-1] for found in opened.page.evaluate(CUT_OFF)] == ["wide"]
        assert [found.split()[-1] for found in opened.page.evaluate(PALE)] == ["pale"]


def test_columns_sort(browser, comparison):
    with Opened(browser, comparison) as opened:
        names = opened.page.eval_on_selector_all("table.sortable th", "heads => heads.map((h) => h.textContent)")
        for number, ascending in ((names.index("test W-F1") + 1, False), (names.index("vs concat") + 1, False)):
            head = opened.page.locator(f"table.sortable th:nth-child({number}) button").first
            before = opened.column(number)
            numbers = sorted((float(c) for c in before if c), reverse=not ascending)
            head.click()
            assert [float(c) for c in opened.column(number) if c] == numbers
            head.click()
            assert [float(c) for c in opened.column(number) if c] == numbers[::-1]
            empty = before.count("")
            assert opened.column(number)[len(before) - empty :] == [""] * empty, "empty cells stay last"
        assert opened.page.locator("th[aria-sort]").count() == 1
        opened.page.locator("table.sortable th:nth-child(1) button").first.click()
        assert opened.column(1) == sorted(opened.column(1))


def test_a_name_leads_to_what_is_behind_it(browser, comparison):
    with Opened(browser, comparison, 390) as opened:
        assert not opened.page.evaluate("document.getElementById('row-2').open")
        opened.page.locator("table.sortable a[href='#row-2']").click()
        assert opened.page.evaluate("document.getElementById('row-2').open")
        assert opened.page.locator("#row-2 .confusion").is_visible()


def test_it_can_be_read_without_scripts(browser, comparison):
    with Opened(browser, comparison, scripts=False) as opened:
        assert opened.page.locator("table.sortable tbody tr").count() == 12
        opened.page.locator("#row-1 summary").click()
        assert opened.page.locator("#row-1 .bars").is_visible()


def test_it_prints(browser, comparison):
    with Opened(browser, comparison) as opened:
        opened.page.emulate_media(media="print")
        assert opened.page.evaluate(CUT_OFF) == []
        assert len(opened.page.pdf(format="A4")) > 10_000


def test_drawn_parts_have_a_size(browser, comparison):
    with Opened(browser, comparison, 390) as opened:
        opened.open_everything()
        for part in ("figure svg", ".lines svg", ".bar b", ".track .seed", ".track .mean"):
            boxes = opened.page.eval_on_selector_all(
                part, "all => all.map((e) => e.getBoundingClientRect()).map((b) => Math.min(b.width, b.height))"
            )
            assert boxes, part
            assert min(boxes) > 1, part
