"""results/README.md says what the committed reports say, and links to files that there are."""

from __future__ import annotations

import re
import runpy
from pathlib import Path

RESULTS = Path(__file__).parent.parent / "results"


def test_the_page_of_results_is_what_the_script_writes_of_the_reports() -> None:
    page = runpy.run_path(str(RESULTS.parent / "scripts" / "results.py"))["page"]
    assert (RESULTS / "README.md").read_text() == page(), "run python scripts/results.py"


def test_its_links_lead_somewhere() -> None:
    links = re.findall(r"\]\(([^)#]+)\)", (RESULTS / "README.md").read_text())
    assert len(links) > 50
    assert not [link for link in links if not link.startswith("http") and not (RESULTS / link).exists()]
