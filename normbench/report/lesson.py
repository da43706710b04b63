"""Lab sheets: a claim as a notebook and as a page for paper, and its answer key.

A lesson is a Markdown file of configs/lessons, named after its claim; every other claim that has a study gets
parts/claim.md. Jinja fills in the claim and its answers. A block of `python` becomes a cell of code, a block of `blank`
a figure to draw into; what stands below the line KEY is the answer key.
"""

from __future__ import annotations

import io
import json
import re
from base64 import b64encode
from collections.abc import Callable, Iterator
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import Any

import yaml
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markdown_it import MarkdownIt
from markupsafe import Markup

from normbench.claims.claim import Claim, ClaimError, claims
from normbench.claims.scoreboard import minutes, status_of, verdict_words
from normbench.claims.verdicts import Judged
from normbench.config.options import config_dir, experiment_of
from normbench.plots.drawing import look, panels
from normbench.report import html

KEY = "<!-- answer key -->"
MINUTES = 2  # that a lesson's command may take, on two cores
DRAW = "a figure to draw into"
QUICKSTART = "quickstart"  # a lesson of no claim
BLOCK = re.compile(r"^```(python|blank)\n(.*?)^```\n", re.MULTILINE | re.DOTALL)


def lessons() -> dict[str, str]:
    """The lessons that have a text of their own, "small_batch_fails" -> title."""
    paths = sorted((config_dir() / "lessons").glob("*.md"))
    return {path.stem: _title(path.read_text(encoding="utf-8")) for path in paths}


def find(name: str) -> Claim | None:
    """The claim of this name, or the main one of the study of this name; None for the quickstart. Raises ClaimError."""
    if name == QUICKSTART:
        return None
    found = [claim for claim in claims() if claim.id == name]
    found += [claim for claim in claims() if claim.study == name and claim.main]
    if not found:
        raise ClaimError(f"there is no lesson {name}. They are listed by normbench lesson.")
    if not found[0].study:
        raise ClaimError(f"{name} is calculated, there is nothing to train: normbench claims --run {name}.")
    return found[0]


def lesson(name: str) -> dict[str, bytes]:
    """The files of a lesson by name: notebook, page, and for a claim the answer key. Raises ClaimError."""
    claim = find(name)
    own = claim.id if claim else QUICKSTART
    judged, figures = _answers(claim) if claim else (None, Path())
    environment = Environment(loader=FileSystemLoader(config_dir() / "lessons"), undefined=StrictUndefined)
    environment.trim_blocks = environment.lstrip_blocks = environment.keep_trailing_newline = True
    environment.filters |= {"cell": lambda text: str(text).replace("|", "\\|"), "verdicts": verdict_words}
    template = environment.get_template(f"{own}.md" if own in lessons() else "parts/claim.md")
    about: dict[str, Any] = {"claim": claim, "judged": judged}
    if claim:
        about |= {
            "minutes": minutes(claim.study),
            "question": experiment_of(claim.study)[1],
            "budget": budget(claim.study),
        }
    sheet, _, key = template.render(**about).partition(f"{KEY}\n")
    files = {f"{own}.ipynb": notebook(sheet), f"{own}.html": page(sheet)}
    if claim:
        with suppress(OSError):
            key += f"\n![The study's figure]({html.data_address((figures / f'{claim.figure}.png').read_bytes())})\n"
        files[f"{own}-key.html"] = page(key)
    return files


def _answers(claim: Claim) -> tuple[Judged, Path]:
    """What a study's report says of a claim, here or in the checkout that we are in; and the folder of its figures."""
    places = (Path("results"), config_dir().parent / "results")
    found = {results: status_of([claim], results)[0] for results in places}
    results = next((place for place, judged in found.items() if judged.answers), places[0])
    return found[results], results / claim.study / "report" / "figures"


def budget(study: str) -> dict[str, float]:
    """How long a run trains where one seed of the study is to take MINUTES: {"max_samples": 8000}."""
    given = yaml.safe_load((config_dir() / "experiment" / f"{study}.yaml").read_bytes())
    key = next((key for key in ("max_samples", "max_steps") if key in given), "epochs")
    seeds = len(range(*map(int, re.findall(r"\d+", given["hydra"]["sweeper"]["params"]["seed"]))))  # range(2,8)
    share = min(1.0, MINUTES * seeds / float(minutes(study) or MINUTES * seeds))
    value = float(f"{given.get(key, 1) * share:.2g}")
    return {key: value if key == "epochs" else int(value)}


def notebook(text: str) -> bytes:
    """Markdown as a notebook, format 4.5, without outputs."""
    cells: list[dict[str, Any]] = []
    for kind, part in _parts(text):
        cell: dict[str, Any] = {"cell_type": "markdown", "id": f"cell-{len(cells)}", "metadata": {}, "source": part}
        if kind == "python":
            cell |= {"cell_type": "code", "source": part, "execution_count": None, "outputs": []}
        elif kind == "blank":
            cell |= {"source": f"![{DRAW}](attachment:blank.png)"}
            cell |= {"attachments": {"blank.png": {"image/png": b64encode(blank(part)).decode()}}}
        cells.append(cell | {"source": cell["source"].strip("\n").splitlines(keepends=True)})
    about = {"kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"}}
    made = {"cells": cells, "metadata": about, "nbformat": 4, "nbformat_minor": 5}
    return (json.dumps(made, indent=1, ensure_ascii=False) + "\n").encode()


def page(text: str) -> bytes:
    """Markdown as a page that needs no network; HTML in it is text."""
    as_markdown: dict[str, Callable[[str], str]] = {
        "text": str,
        "python": "```python\n{}```\n".format,
        "blank": lambda part: f"\n![{DRAW}]({html.data_address(blank(part))})\n",
    }
    markdown = "".join(as_markdown[kind](part) for kind, part in _parts(text))
    body = MarkdownIt("commonmark", {"html": False}).enable("table").render(markdown)
    return html.render("lesson.html", {}, [], title=_title(text), body=Markup(body)).encode()


def _parts(text: str) -> Iterator[tuple[str, str]]:
    """("text" | "python" | "blank", what is in it), in order."""
    found = BLOCK.split(text)
    for place, part in enumerate(found):
        kind = "text" if place % 3 == 0 else found[place - 1]
        if place % 3 != 1 and part.strip():
            yield kind, part


@cache
def blank(spec: str) -> bytes:
    """Axes without data, as PNG, from YAML: {x: label, ticks: [...], y: label, range: [low, high], panels: titles}."""
    about = yaml.safe_load(spec)
    png, titles, places = io.BytesIO(), about.get("panels", [""]), range(len(about["ticks"]))
    with look():
        canvas, [axes] = panels(1, len(titles), 3.4 if len(titles) > 1 else 5.5, 3, sharey=True)
        for ax, title in zip(axes, titles, strict=True):
            ax.set(title=title, xlabel=about["x"], xlim=(-0.3, places[-1] + 0.3), ylim=about["range"])
            ax.set_xticks(places, list(map(str, about["ticks"])))
        axes[0].set_ylabel(about["y"])
        canvas.savefig(png, format="png", dpi=110, bbox_inches="tight", metadata={"Software": None})
    return png.getvalue()


def _title(text: str) -> str:
    return text.lstrip().splitlines()[0].lstrip("# ")
