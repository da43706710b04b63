from __future__ import annotations

from normbench.analysis.groups import order
from normbench.plots.palette import palette

ISSUED = ("none", "batch", "layer", "weight", "weight_mean_only", "selu")


def test_a_known_scheme_looks_the_same_in_every_study() -> None:
    everywhere = palette(ISSUED)
    for name in ISSUED:
        assert palette([name, "mine", "another"])[name] == everywhere[name]


def test_eighteen_schemes_are_told_apart_without_colour() -> None:
    styles = palette([*ISSUED, *(f"mine{i}" for i in range(12))])
    assert len({(style.color, style.marker, str(style.line)) for style in styles.values()}) == 18
    assert len({(style.marker, str(style.line)) for style in styles.values()}) == 18


def test_unknown_schemes_take_the_first_free_styles_in_order_of_name() -> None:
    one, other = palette(["none", "b", "a"]), palette(["a", "b", "none"])
    assert one == other
    assert one["a"] != one["b"]
    assert len({style.color for style in one.values()}) == 3


def test_order() -> None:
    assert order(["zebra", "selu", "ant", "none"]) == ["none", "selu", "ant", "zebra"]
