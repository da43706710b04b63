"""`normbench diff`: two studies, setting by setting."""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path

import pytest
from scipy import stats

from normbench.analysis.comparisons import changes
from normbench.analysis.groups import read
from normbench.analysis.statistics import welch
from normbench.cli import main
from normbench.commands import console
from normbench.runs import load_together

BEFORE, AFTER = (0.90, 0.91, 0.93, 0.905), (0.88, 0.885, 0.915, 0.88)


@pytest.fixture
def two(tmp_path: Path, writer: Callable[..., Path]) -> tuple[Path, Path]:
    """Two studies of one name: the same, paired, unpaired, without a result in one, and in one alone."""
    now, then = tmp_path / "now" / "demo", tmp_path / "then" / "demo"
    for seed, (before, after) in enumerate(zip(BEFORE, AFTER, strict=True)):
        writer(then, norm="batch", seed=seed, accuracy=before)
        writer(now, norm="batch", seed=seed, accuracy=after)
        writer(then, norm="layer", seed=seed, accuracy=before)
        writer(now, norm="layer", seed=seed + 3, accuracy=after)  # one seed in both
        for folder in (now, then):
            writer(folder, norm="none", seed=seed, accuracy=before)
    writer(now, norm="none", seed=9, accuracy=0.1)  # has no partner: left out
    writer(then, norm="selu", seed=0)
    writer(now, norm="selu", seed=0, status="failed")
    writer(now, norm="rms", batch_size=4, status="diverged")
    return then, now


def test_differences_are_paired_where_seeds_match_and_otherwise_welchs(two: tuple[Path, Path]) -> None:
    rows = {row["scheme"]: row for row in changes(read(load_together(*two)), "then/demo", "now/demo")}
    paired, unpaired = stats.ttest_rel(AFTER, BEFORE), stats.ttest_ind(AFTER, BEFORE, equal_var=False)
    for scheme, test in (("batch", paired), ("layer", unpaired)):
        low, high = test.confidence_interval()
        row = rows[scheme]
        assert [row[key] for key in ("low", "high", "p")] == pytest.approx([low, high, test.pvalue])
        assert row["difference"] == pytest.approx(-0.02125)
        assert row["paired"] is (scheme == "batch")
    assert rows["batch"]["p_holm"] == pytest.approx(2 * paired.pvalue)  # two tests were made
    assert rows["none"]["before"] == rows["none"]["after"] == list(BEFORE)
    assert rows["selu"]["difference"] is None
    assert (rows["selu"]["only"], rows["rms"]["only"]) == ("", "now/demo")
    assert not welch([1, 2], [3])["p"]  # one run has no spread


def test_the_command_says_what_changed_in_80_columns(two: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    printed = io.StringIO()
    terminal = console.SafeConsole(file=printed, width=80, force_terminal=True, color_system=None, highlight=False)
    monkeypatch.setattr(console, "out", terminal)
    monkeypatch.chdir(two[0].parent.parent)
    assert main(["diff", "then/demo", "now/demo"]) == 0
    lines = printed.getvalue().splitlines()
    assert max(map(len, lines)) <= 80
    text = " ".join(" ".join(lines).split())
    assert text.startswith(
        "A: then/demo, 13 runs B: now/demo, 15 runs 4 settings in both: 1 changed (p < 0.05 after Holm's correction "
        "for all of them); 1 without a change that these seeds show; 1 with the same accuracies; 1 without a result"
    )
    assert "batch, batch size 91.13 89.00 -2.13 -2.89 to -1.36 4 changed 64" in text
    assert "4+4 not shown" in text
    assert "selu, batch size 90.00 – – 1+0 no result 64" in text
    assert "only in B: rms, batch size 4" in text


def test_what_cannot_be_compared_is_refused(
    two: tuple[Path, Path], tmp_path: Path, refused: Callable[[list[str], str], None]
) -> None:
    then, now = map(str, two)
    refused(["diff", then, str(two[0] / ".." / "demo")], "is named twice")
    refused(["diff", then, str(tmp_path)], "holds no runs")
    refused(["diff", then], "required: B")
    for run in two[1].iterdir():
        (run / "config.yaml").write_text("")
    refused(["diff", then, now], "holds no run that can be read")
