"""Write results/README.md, the scoreboard of claims and the README's lines of it from the reports in results/, so that
their numbers can't go stale: python scripts/results.py"""

from __future__ import annotations

from pathlib import Path

import yaml

from normbench.analysis.tables import read_rows
from normbench.claims.claim import claims as all_claims
from normbench.claims.scoreboard import HOW, statements, status_of
from normbench.claims.verdicts import MARKS
from normbench.config.options import experiment_of
from normbench.report.claims import write

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / "results"
FIGURES = ("batch_sizes", "lr_sensitivity", "along_option", "learning_curves")  # where no claim names one
LEADING = ("inputs_shift", "shift_explains_bn", "fewer_steps", "high_lr", "small_batch_fails", "affine_needed",
           "placement", "regularizes", "trains_deep", "ln_in_rnn")  # fmt: skip
# the studies of the table in the README
RECOMMENDING = ("batch_and_lr", "compare", "compare_cnn", "compare_rnn", "compare_cifar10")
MOST = 6  # schemes in a row
START, END = "<!-- {} by scripts/results.py -->\n", "<!-- until here -->"

INTRODUCTION = """\
# What came out

Written by `python scripts/results.py` from the reports in this folder. Each study is one command; its full report, with
tables as CSV, stands in its folder. Accuracies are of the test set; an interval is a 95% Student t interval over seeds.
"""


def main() -> None:
    write(all_claims(), RESULTS)
    (RESULTS / "README.md").write_text(page())
    (ROOT / "README.md").write_text(readme())


def page() -> str:
    """The text of results/README.md."""
    parts = [INTRODUCTION, "## Studies"]
    for folder in sorted(RESULTS.glob("*/report/tables.md")):
        parts.append(study(folder.parent.parent))
    others = sorted(path for path in RESULTS.glob("*/report/*.md") if path.stem in ("matrix", "paper"))
    parts.append("## Other tables")
    parts.append("\n".join(f"- [{path.read_text().splitlines()[0].strip('# ')}]({_relative(path)})" for path in others))
    parts += ["## Claims", claims()]
    return "\n\n".join(part.strip("\n") for part in parts) + "\n"


def study(folder: Path) -> str:
    """One study: the question, what its report answers, the settings, a figure."""
    name, report = folder.name, folder / "report"
    paragraphs = (report / "tables.md").read_text().split("\n\n")
    end = next(i for i, text in enumerate(paragraphs) if text.startswith("All runs:"))
    answers = [text for text in paragraphs[1:end] if not text.startswith(">")]
    lines = [f"### {name}", *answers, paragraphs[end]]
    names = [
        figure for figure in (*_figures_of_claims(name), *FIGURES) if (report / "figures" / f"{figure}.png").exists()
    ]
    if names:
        lines.append(f"![{name}: {names[0].replace('_', ' ')}]({name}/report/figures/{names[0]}.png)")
    experiment, _ = experiment_of(name)
    links = [f"`normbench run experiment={experiment}`"] if experiment else []
    page = report / "report.html"  # to be opened from a clone: GitHub shows its source
    links += [f"[the page]({name}/report/report.html)"] if page.exists() else []
    links += [f"[leaderboard]({name}/report/leaderboard.md)", f"[all tables]({name}/report/tables.md)"]
    lines.append(" · ".join(links))
    return "\n\n".join(lines)


def claims() -> str:
    """How many statements have which verdict, those that a lesson starts with, and the way to the scoreboard."""
    table = statements(status_of(all_claims(), RESULTS))
    counts = table.caption.removesuffix(HOW).strip()
    return f"{counts}\n\n{leading('claims/report/')}"


def leading(base: str) -> str:
    """Ten claims that are answered, a line each, those of `LEADING` first; `base`: the way to the scoreboard."""
    rows = {row["claim"]: row for row in statements(status_of(all_claims(), RESULTS)).rows[::-1]}
    names = dict.fromkeys([*LEADING, *(claim.id for claim in all_claims())])
    answered = [row for row in (rows[name] for name in names) if row["verdict"] in MARKS]
    lines = []
    for row in answered[:10]:
        known = row["verdict"] != "undecided" and any(unit in row["measured"] for unit in (" points", " times"))
        number = f" ({row['measured'].partition(' (')[0]})" if known else ""  # others need the scoreboard's words
        lines.append(f"- {MARKS[row['verdict']][0]} {row['verdict']}: {row['sentence'].removesuffix('.')}{number}.")
    words = f"[The scoreboard]({base}scoreboard.md) has them all, with intervals."
    return "\n".join([*lines, "", words])


def best_schemes() -> str:
    """Network, data and batch size -> the schemes that may be the best: from the studies made for it."""
    paths = [RESULTS / name / "report/tables/shortlist.csv" for name in RECOMMENDING]
    rows = [row for path in paths if path.exists() for row in read_rows(path)]
    networks = list(dict.fromkeys((row["dataset"], row["model"]) for row in rows))
    lines = ["| network | batch size | may be the best | ahead of no norm, points |", "|---|---:|---|---|"]
    for row in sorted(rows, key=lambda row: (networks.index((row["dataset"], row["model"])), int(row["batch_size"]))):
        gain = ""
        if row["gain_low"]:
            low, high = (100 * float(row[f"gain_{end}"]) for end in ("low", "high"))
            gain = f"{row['highest']} {100 * float(row['gain']):+.1f} ({low:+.1f} to {high:+.1f})"
        network = row["model"].upper() + {"mnist": "", "cifar10": ", CIFAR-10"}[row["dataset"]]
        best = row["may_be_best"].split(", ")
        if len(best) > MOST:
            best = [*best[:4], f"and {len(best) - 4} more of {row['compared']}"]
        lines.append(f"| {network} | {row['batch_size']} | {', '.join(best)} | {gain} |")
    return "\n".join(lines)


def readme() -> str:
    """The text of README.md with its table of schemes and its lines of claims as they stand."""
    text = (ROOT / "README.md").read_text()
    for name, words in (("schemes", best_schemes()), ("claims", leading("results/claims/report/"))):
        before, start, rest = text.partition(START.format(name))
        _, end, after = rest.partition(END)
        text = before + start + words + "\n" + end + after
    return text


def _figures_of_claims(name: str) -> list[str]:
    """The figures that the claims of a study point to, in the order of the claims' files."""
    found = [yaml.safe_load(path.read_bytes()) for path in sorted((ROOT / "configs/claims").glob("*.yaml"))]
    return [claim["figure"] for claim in found if claim.get("study") == name and claim.get("figure")]


def _relative(path: Path) -> str:
    return path.relative_to(RESULTS).as_posix()


if __name__ == "__main__":
    main()
