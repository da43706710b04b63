"""Write results/README.md from the committed reports, so that its numbers can't go stale: python scripts/results.py"""

from __future__ import annotations

from pathlib import Path

import yaml

from normbench.analysis.tables import read_rows

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / "results"
FIGURES = ("batch_sizes", "lr_sensitivity", "along_option", "learning_curves")  # where no claim names one

INTRODUCTION = """\
# What came out

Written by `python scripts/results.py` from the reports in this folder. Each study is one command; its full report, with
tables as CSV, stands in its folder. Accuracies are of the test set; an interval is a 95% Student t interval over seeds.
"""


def main() -> None:
    (RESULTS / "README.md").write_text(page())


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
    command = f"`normbench run experiment={name}` · " if (ROOT / "configs/experiment" / f"{name}.yaml").exists() else ""
    lines.append(f"{command}[leaderboard]({name}/report/leaderboard.md) · [all tables]({name}/report/tables.md)")
    return "\n\n".join(lines)


def claims() -> str:
    """The scoreboard in short: every statement, its verdict, and the number of its first check."""
    rows = read_rows(RESULTS / "claims/report/scoreboard.csv")
    counts = {
        verdict: sum(row["verdict"] == verdict for row in rows) for verdict in dict.fromkeys(r["verdict"] for r in rows)
    }
    lines = [f"{len(rows)} statements: {', '.join(f'{count} {verdict}' for verdict, count in counts.items())}. "
             "[Every check](claims/report/scoreboard.md).", "", "| claim | statement | verdict | number |",
             "|---|---|---|---|"]  # fmt: skip
    for row in rows:
        cells = [
            row["claim"],
            f"{row['sentence']} ({'; '.join(filter(None, (row['statement'], row.get('setting'))))})",
            row["verdict"],
            f"{row['check']}: {row['measured']}" if row["measured"] else "",
        ]
        lines.append(f"| {' | '.join(cell.replace('|', '/') for cell in cells)} |")
    return "\n".join(lines)


def _figures_of_claims(name: str) -> list[str]:
    """The figures that the claims of a study point to, in the order of the claims' files."""
    found = [yaml.safe_load(path.read_bytes()) for path in sorted((ROOT / "configs/claims").glob("*.yaml"))]
    return [claim["figure"] for claim in found if claim.get("study") == name and claim.get("figure")]


def _relative(path: Path) -> str:
    return path.relative_to(RESULTS).as_posix()


if __name__ == "__main__":
    main()
