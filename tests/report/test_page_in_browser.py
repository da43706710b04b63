"""The page in a real browser: it fetches nothing, logs no error, sorts, filters, and fits a phone."""

from __future__ import annotations

import html
import json
import re
import subprocess
import threading
from collections.abc import Callable, Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from normbench.plots import figures
from normbench.report.build import build
from tests.report.chromium import BROWSER

pytestmark = pytest.mark.skipif(not BROWSER, reason="no Chromium on this machine")

# A frame of any width (a window has at least 500), and what a test asks of the page in it.
HARNESS = """<!doctype html><meta charset="utf-8"><style>iframe {{ border: 0; width: {width}px; height: 700px }}</style>
<iframe src="{page}"></iframe><pre id="result"></pre><script>
document.querySelector("iframe").addEventListener("load", async (event) => {{
  const win = event.target.contentWindow, doc = win.document;
  const names = (table) => [...table.querySelectorAll("tbody tr:not(.group)")].filter((row) => row.checkVisibility())
    .map((row) => row.cells[0].textContent);
  const column = (table, heading) => [...table.tHead.rows[0].cells].findIndex((head) => head.textContent === heading);
  const cells = (table, heading) => [...table.querySelectorAll("tbody tr:not(.group)")]
    .map((row) => row.cells[column(table, heading)].textContent);
  const table = (id) => doc.querySelector(`#${{id}} ~ .scroll table, #${{id}} ~ div table.data`);
  doc.querySelectorAll("details.section").forEach((section) => {{ section.open = true; }});
  const result = await (async () => {{ {code} }})();
  document.getElementById("result").textContent = JSON.stringify(result);
}});
</script>"""


class Site:
    """A folder served to the browser, which knows what was asked for."""

    def __init__(self, folder: Path, port: int, asked: list[str]) -> None:
        self.folder, self.port, self.asked = folder, port, asked

    def browse(self, name: str, *options: str) -> subprocess.CompletedProcess[str]:
        """Open a page; elsewhere no host is found. Standard error has the console's lines."""
        command = [BROWSER, "--headless=new", "--no-sandbox", "--disable-gpu", "--virtual-time-budget=3000", *options]
        command += [f"--user-data-dir={self.folder / 'profile'}", "--enable-logging=stderr", "--v=0"]
        command += ["--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1", f"http://127.0.0.1:{self.port}/{name}"]
        return subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)

    def ask(self, code: str, width: int = 1200) -> Any:
        """What `code` returns, run beside the page in a frame of that width, and never a line on the console."""
        page = "report/report.html"
        (self.folder / "harness.html").write_text(HARNESS.format(page=page, code=code, width=width))
        done = self.browse("harness.html", "--dump-dom")
        assert console(done.stderr) == []
        found = re.search(r'<pre id="result">(.*?)</pre>', done.stdout, re.DOTALL)
        assert found, done.stdout[-2000:]
        return json.loads(html.unescape(found[1]))


def console(text: str) -> list[str]:
    return [line for line in text.splitlines() if ":CONSOLE" in line]


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory, writer: Callable[..., Path]) -> Iterator[Site]:
    study = tmp_path_factory.mktemp("results") / "first"
    accuracies = {"none": 0.90, "batch": 0.95, "layer": 0.85, "<i>own</i>": 0.93}
    for norm, accuracy in accuracies.items():
        for batch_size in (4, 64, 128):
            for seed in (0, 1):
                value = accuracy + (seed + batch_size / 64) / 1000
                writer(study, norm=norm, batch_size=batch_size, seed=seed, accuracy=value)
    writer(study, norm="weight", batch_size=4, status="diverged")
    writer(study, norm="weight", batch_size=64, status="failed")
    with pytest.MonkeyPatch.context() as patch:
        forest = next(spec for spec in figures.FIGURES if spec.name == "forest")  # a panel per batch size
        patch.setattr(figures, "FIGURES", (*figures.FIGURES[:3], forest))
        build(study, question="Which <b>one</b>?")
    asked: list[str] = []

    class Handler(SimpleHTTPRequestHandler):
        def log_message(self, form: str, *words: Any) -> None:
            asked.append(self.path)

    with ThreadingHTTPServer(("127.0.0.1", 0), partial(Handler, directory=str(study))) as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        yield Site(study, server.server_port, asked)
        server.shutdown()
        thread.join()


def test_it_opens_without_an_error_and_without_fetching_anything(site: Site) -> None:
    site.asked.clear()
    done = site.browse("report/report.html", "--dump-dom")
    assert console(done.stderr) == []
    assert "aria-sort" in done.stdout  # our script ran, under the page's own policy
    assert set(site.asked) <= {"/report/report.html", "/favicon.ico"}
    (site.folder / "bad.html").write_text("<p>x<script>throw new Error('seen')</script><img src=gone.png>")
    done = site.browse("bad.html", "--dump-dom")
    assert "seen" in console(done.stderr)[0]  # and we would have noticed
    assert "/gone.png" in site.asked


def test_tables_sort_and_filter_by_mouse_and_keyboard(site: Site) -> None:
    code = """
      const board = table("leaderboard"), runs = table("every-run"), seen = {};
      const tick = (set, value) => doc.querySelector(`fieldset[data-key=${set}] input[value="${value}"]`).click();
      const filtered = () => ({
        board: names(board), runs: names(runs), troubles: names(table("troubles")),
        groups: [...board.tBodies].filter((body) => body.checkVisibility()).length,
        said: doc.querySelector("#filters output").textContent,
      });
      seen.all = filtered();
      tick("scheme", "batch"); tick("scheme", "<i>own</i>"); seen.schemes = filtered();
      tick("batch_size", "64"); seen.both = filtered();
      doc.querySelector("#filters button[type=reset]").click();
      await new Promise((resolve) => setTimeout(resolve, 50));
      seen.again = filtered();
      const click = (of, heading) => {
        const head = of.tHead.rows[0].cells[column(of, heading)];
        head.querySelector("button").click();
        return head.getAttribute("aria-sort");
      };
      seen.start = names(board);
      seen.sort1 = click(board, "test accuracy %"); seen.up = names(board);
      seen.sort2 = click(board, "test accuracy %"); seen.down = names(board);
      seen.sort3 = click(board, "test accuracy %"); seen.back = names(board);
      click(runs, "batch size"); seen.sizes = cells(runs, "batch size");
      click(runs, "norm"); seen.only = [...runs.tHead.querySelectorAll("[aria-sort]")].map((h) => h.ariaSort);
      click(runs, "test accuracy %"); seen.up_runs = cells(runs, "test accuracy %");
      click(runs, "test accuracy %"); seen.down_runs = cells(runs, "test accuracy %");
      const button = board.tHead.querySelector("button"); button.focus();
      seen.keyboard = [button.type, button.tabIndex, doc.activeElement === button];
      return seen;
    """
    seen = site.ask(code)
    first = ["batch", "<i>own</i>", "none", "layer", "weight"]  # batch size 4, where weight diverged
    rest = first[:4]
    assert seen["start"] == [*first, *first, *rest]
    assert (seen["sort1"], seen["sort2"], seen["sort3"]) == ("ascending", "descending", "none")
    assert seen["up"][:5] == first[::-1]  # within the group; a diverged run counts at chance
    assert seen["down"] == seen["back"] == seen["start"]
    assert seen["sizes"] == sorted(seen["sizes"], key=int)
    assert seen["only"].count("ascending") == 1
    assert seen["only"].count("none") == len(seen["only"]) - 1
    assert seen["up_runs"][-2:] == seen["down_runs"][-2:] == ["–", "–"]
    assert seen["up_runs"][:-2] == seen["down_runs"][-3::-1] == sorted(seen["up_runs"][:-2], key=float)
    assert seen["keyboard"] == ["button", 0, True]
    assert (len(seen["all"]["board"]), len(seen["all"]["runs"])) == (14, 26)
    assert seen["schemes"]["board"] == ["batch", "<i>own</i>"] * 3
    assert set(seen["schemes"]["runs"]) == {"batch", "<i>own</i>"}
    assert seen["schemes"]["troubles"] == []
    assert (seen["schemes"]["groups"], seen["both"]["groups"], len(seen["both"]["runs"])) == (3, 1, 4)
    assert seen["all"]["said"].startswith("All ")
    assert " of " in seen["both"]["said"]
    assert seen["again"] == seen["all"]


def test_on_a_phone_the_panels_of_a_figure_stand_below_each_other(site: Site) -> None:
    """Each is cut out of the picture with the ticks of its row and column, and fills the screen's width."""
    code = """
      const box = (element) => {
        const at = element.getBoundingClientRect();
        return [at.left, at.top, at.width, at.height];
      };
      const figure = doc.querySelector("figure.cut");
      const panels = [...figure.querySelectorAll("svg.panel")];
      return { panels: panels.filter((svg) => svg.checkVisibility()).map(box),
               whole: box(figure.querySelector(".paper")), drawn: box(panels[1].querySelector("use")),
               size: panels[1].getAttribute("viewBox").split(" ").slice(2).map(Number),
               frames: [...panels[1].querySelectorAll("svg")]
                 .map((svg) => ["x", "y", "width", "height"].map((name) => Number(svg.getAttribute(name)))) };
    """
    seen = site.ask(code, 400)
    lefts, tops, widths, _ = zip(*seen["panels"], strict=True)
    assert len(seen["panels"]) > 1
    assert list(tops) == sorted(tops)
    assert len({round(left) for left in lefts}) == 1
    assert all(300 < width <= 400 for width in widths)
    assert seen["whole"][2:] == [0, 0]
    assert len(seen["frames"]) > 1, "the ticks stand at the first panel of the row"
    assert seen["drawn"][2] > 500, "all of the picture, of which the frame shows a part"
    (left, _, width, height), *ticks = seen["frames"]
    assert seen["size"] == pytest.approx(
        [left + width, height + sum(y + h - height for x, y, w, h in ticks if y >= height)]
    )
    assert any(x == 0 and w == left and y + h <= height for x, y, w, h in ticks), "those of the vertical axis"
    wide = site.ask(code, 1200)
    assert wide["panels"] == []
    assert wide["whole"][2] > 500


@pytest.mark.parametrize("width", [400, 1200])
def test_the_page_never_scrolls_sideways_and_its_links_lead_somewhere(site: Site, width: int) -> None:
    code = """
      doc.querySelectorAll("details").forEach((fold) => { fold.open = true; });
      const scroll = [...doc.querySelectorAll(".scroll, .paper")];
      const ids = [...doc.querySelectorAll("[id]:not(svg [id])")].map((element) => element.id);
      const links = [...doc.querySelectorAll("a[href^='#']")].map((link) => link.getAttribute("href").slice(1));
      return { page: doc.documentElement.scrollWidth, inside: scroll.some((box) => box.scrollWidth > box.clientWidth),
               focus: scroll.every((box) => box.tabIndex === 0 && box.getAttribute("aria-label")),
               twice: ids.filter((id, place) => ids.indexOf(id) !== place),
               dead: links.filter((id) => !ids.includes(id)), bold: doc.querySelectorAll("b, i").length };
    """
    seen = site.ask(code, width)
    assert seen["page"] <= width
    assert seen["inside"] == (width == 400) or width > 400
    assert seen["focus"]
    assert (seen["twice"], seen["dead"]) == ([], [])
    assert seen["bold"] == 0, "names are no markup"
