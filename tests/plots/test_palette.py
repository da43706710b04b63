from __future__ import annotations

from normbench.analysis.groups import KNOWN, order
from normbench.config.options import choices
from normbench.plots.palette import palette


def test_every_scheme_on_disk_has_a_colour_of_its_own() -> None:
    assert set(KNOWN) == set(choices("norm"))
    assert len({style.color for style in palette(KNOWN).values()}) == len(KNOWN)


def test_a_known_scheme_looks_the_same_in_every_study() -> None:
    everywhere = palette(KNOWN)
    for name in KNOWN:
        assert palette([name, "mine", "another"])[name] == everywhere[name]


def test_variants_of_a_scheme_share_its_colour() -> None:
    styles = palette(["batch", "batch eps=0.1", "batch momentum=0.5", "none"])
    assert styles["batch eps=0.1"].color == styles["batch"].color
    assert len({str(styles[name].line) for name in styles if name.startswith("batch")}) == 3


def test_schemes_are_distinct_without_colour() -> None:
    styles = palette([*KNOWN, "mine", "another"])
    assert len({(style.marker, str(style.line)) for style in styles.values()}) == len(styles)


def test_order() -> None:
    assert order(["zebra", "selu", "ant", "selu scale=2", "none"]) == ["none", "selu", "selu scale=2", "ant", "zebra"]
