"""The pages that a newcomer reads: short enough, up to date, and with links that lead somewhere."""

from __future__ import annotations

import re
import runpy
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent


def test_the_page_of_results_is_what_the_script_writes_of_the_reports() -> None:
    page = runpy.run_path(str(ROOT / "scripts" / "results.py"))["page"]
    assert (ROOT / "results" / "README.md").read_text() == page(), "run python scripts/results.py"


def test_whole_pages_are_small_and_link_to_what_lies_beside_them() -> None:
    pages = sorted((ROOT / "results").glob("*/report/report.html"))
    for page in pages:
        assert page.stat().st_size < 2_000_000, page
        links = re.findall(r'href="([^"#]*)["#]', page.read_text())
        assert not (lost := [link for link in links if link and not (page.parent / link).exists()]), (page, lost)


@pytest.mark.parametrize(("path", "links"), [("README.md", 5), ("results/README.md", 50), ("configs/README.md", 0)])
def test_links_lead_somewhere(path: str, links: int) -> None:
    found = re.findall(r"\]\(([^)#]+)\)", (ROOT / path).read_text())
    assert len(found) >= links
    assert not [
        link for link in found if not link.startswith("http") and not (ROOT / path).parent.joinpath(link).exists()
    ]


def test_the_readme_is_a_page() -> None:
    assert len((ROOT / "README.md").read_bytes()) <= 10_000
