"""What a claim file may say, and every one that there is."""

from __future__ import annotations

import itertools
import re
from collections.abc import Callable, Iterable
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import yaml
from pydantic import TypeAdapter

from normbench import instruments
from normbench.analysis.groups import Groups
from normbench.analysis.groups import read as read_groups
from normbench.analysis.selection import parse
from normbench.claims.claim import Claim, ClaimError, claims, find, read
from normbench.claims.metrics import AnyMetric, Calculation, Gap, Metric, OfTable, StepsTo, Trained
from normbench.claims.verdicts import chosen
from normbench.config.options import choices, config_dir, description
from normbench.plots import figures
from normbench.runs import SCHEMA_VERSION, Run, Study
from normbench.runs.read import flat

FILES = sorted((config_dir() / "claims").glob("*.yaml"))
assert len(FILES) >= 3
GROUPS = ("norm", "model", "dataset", "instruments")


@cache
def plain(path: str) -> dict[str, Any]:
    """A file of configs/, without what Hydra does with it."""
    return yaml.safe_load((config_dir() / f"{path}.yaml").read_text())


def grid(file: dict[str, Any]) -> Iterable[dict[str, str]]:
    """The words of each run of a study but the seed: the grid, and those of `also`."""
    params = file["hydra"]["sweeper"]["params"]
    for block in ({}, *file["hydra"]["sweeper"].get("also", [])):
        words = {key: str(value) for key, value in {**params, **block}.items() if key != "seed"}
        axes = parse(f"{key}={value}" for key, value in words.items())
        yield from (dict(zip(axes, values, strict=True)) for values in itertools.product(*axes.values()))


@cache
def groups_of(experiment: str) -> Groups:
    """The groups of an experiment, as its study will have them, from its file alone: composing takes minutes."""
    file, runs = plain(f"experiment/{experiment}"), []
    defaults = {key: value for key, value in plain("config").items() if key not in ("defaults", "hydra")}
    fixed = {key: value for key, value in flat(file).items() if not key.startswith(("defaults", "hydra", "question"))}
    usual = {"norm": "batch", "model": "mlp", "dataset": "mnist", "instruments": "quick"}
    for default in file.get("defaults", []):
        if isinstance(default, dict):
            usual |= {key.rpartition("/")[2]: value for key, value in default.items()}
    for i, words in enumerate(grid(file)):
        chosen = {group: words.get(group, usual[group]) for group in GROUPS}
        config: dict[str, Any] = {**defaults, "seed": 0}
        config |= {group: dict(plain(f"{group}/{name}")) for group, name in chosen.items()}
        for key, value in {**fixed, **{k: yaml.safe_load(v) for k, v in words.items() if k not in GROUPS}}.items():
            group, _, option = key.rpartition(".")
            (config[group] if group in GROUPS else config)[option] = value
        run = Run(Path(f"{experiment}-{i}"))
        run.__dict__.update(record={"schema_version": SCHEMA_VERSION, "choices": chosen, "config": config}, summary={})
        runs.append(run)
    return read_groups(Study(Path(experiment), tuple(runs)))


TABLES = {
    one.name: {"step", "layer", "tensor", *one.columns}
    for one in vars(instruments).values()
    if isinstance(one, type) and hasattr(one, "columns") and hasattr(one, "name")
}


def tables_in(metric: Metric) -> list[OfTable]:
    parts = metric.value if isinstance(metric.value, tuple) else ()
    return [metric] if isinstance(metric, OfTable) else [found for part in parts for found in tables_in(part)]


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_every_claim_on_disk(path: Path) -> None:
    claim = read(path)
    assert description(path), "the first line is a comment that says it in short"
    assert not description(path).endswith(".")
    if claim.study:
        assert claim.study in choices("experiment")
        assert claim.figure in {spec.name for spec in figures.FIGURES}
    for check in claim.checks:
        for table in tables_in(check.metric):
            assert {table.column, *table.where} <= TABLES[table.value], "no such columns"
        for only in check.filters:
            assert chosen(groups_of(claim.study), only, check.several), "of no run, or options are left open"


def forms(value: float, than: float = 0.0) -> list[str]:
    """How a sentence may write a number: 2048, 2,048, 40%, 0.5 points."""
    shares = [value, value / than] if than else [value]
    return [f"{value:g}", f"{value:,g}", f"{100 * value:g} point", *(f"{100 * share:g}%" for share in shares)]


def names(sentence: str, value: str, than: float = 0.0) -> bool:
    """Whether a sentence names a value of an option, or the margin of a check; true, none and 0 need no name."""
    try:
        wanted = forms(float(value), than) if float(value) else [""]
    except ValueError:
        wanted = ["" if value in ("true", "false", "none", "null") else value]
    return any(re.search(rf"(?<![\d.,]){re.escape(form)}(?![\d]|[.,]\d)", sentence, re.IGNORECASE) for form in wanted)


def updates(experiment: str) -> set[int]:
    """The numbers of updates and images that the file of a study asks for."""
    found: set[int] = set()
    for group in groups_of(experiment).groups:
        steps, samples = group.values["max_steps"], group.values["max_samples"]
        found |= {steps} if steps else {samples, samples // group.values["batch_size"]} if samples else set()
    return found


@pytest.mark.parametrize("claim", [claim for claim in claims() if claim.study], ids=lambda claim: claim.id)
def test_a_sentence_says_what_is_tested(claim: Claim) -> None:
    """The sentence that is ours names the margins, and the values of each option that the study varies."""
    [*_, (key, sentence)] = claim.statements.items()
    varying = set(groups_of(claim.study).varying)
    for check in claim.checks:
        if key in check.answers:
            for option, values in (item for only in check.filters for item in only.items()):
                assert option not in varying or all(names(sentence, value) for value in values), option
            if isinstance(check.metric, StepsTo | Gap):
                assert names(sentence, str(check.metric.value))
            if check.margin > (1 if check.ratio else 0) and not isinstance(check.metric, Trained | Calculation):
                assert names(sentence, str(check.margin), check.than), check.margin
    for text in claim.statements.values():
        assert not re.search(r"\b(because|always|as well|everywhere)\b", text), "a cause, or more, than was tested"
        numbers = {int(n.replace(",", "")) for n in re.findall(r"([\d,]+) (?:updates|images)", text)}
        assert numbers <= updates(claim.study), "of another study"


def test_what_a_sentence_names() -> None:
    sentence = "At lr 0.001 and batch size 2,048, with 40% wrong labels and ReLU, 0.5 points or more."
    for value in ("0.001", "2048", "0.4", "relu", "0.005", "0", "true", "none"):
        assert names(sentence, value), value
    for value in ("0.01", "0.0001", "204", "48", "0.04", "0.05", "sigmoid", "1"):
        assert not names(sentence, value), value


def test_claims_come_in_their_order() -> None:
    found = claims()
    assert [claim.id for claim in found] == [claim.id for claim in find([])]
    assert [claim.order for claim in found] == sorted(claim.order for claim in found)
    assert {claim.id for claim in found} == {path.stem for path in FILES}
    assert [claim.id for claim in find([found[1].id, found[0].id])] == [found[0].id, found[1].id]
    with pytest.raises(ClaimError, match=r"there is no claim small_batch_fail\. There is: small_batch_fails"):
        find(["small_batch_fail"])


def test_what_is_left_out(claim_of: Callable[..., Claim], check: Callable[..., dict[str, Any]]) -> None:
    of = {"norm": "batch", "norm.placement": "after", "batch_size": 2, "model.hidden": "[30, 30]", "lr": [1, "1e-1"]}
    claim = claim_of(check(of=of), check(expect="equal", margin=0.01, say="so"), restated="It helps a bit.")
    first, second = claim.checks
    inherited = {"batch_size": ("2",), "model.hidden": ("[30, 30]",), "lr": ("1", "1e-1")}
    assert first.against == {"norm": ("none",), **inherited}
    assert first.answers == ("as_stated", "restated")
    assert first.words == ("test_accuracy: norm=batch norm.placement=after batch_size=2 model.hidden=[30, 30] "
                           "lr=1,1e-1 minus norm=none")  # fmt: skip
    assert second.words == "so"
    assert (claim.level, claim.statements["restated"]) == (0.975, "It helps a bit.")


@pytest.mark.parametrize(
    ("metric", "said"),
    [
        ("seconds.training", "seconds.training"),
        ({"steps_to": 0.95}, "updates to 95% validation accuracy"),
        ({"accuracy": "test"}, "test accuracy (diverged: chance)"),
        ({"gap_at": 0.1}, "validation minus training loss where the training loss is 0.1"),
        ({"minus": ["test_loss", "train_loss"]}, "(test_loss) minus (train_loss)"),
        ({"ratio": [{"steps_to": 0.5}, "steps"]}, "(updates to 50% validation accuracy) over (steps)"),
        ({"table": "shift", "column": "a_b", "where": {"unit": None, "layer": ["x", "y"]}, "at": "max"},
         "a b (shift, unit=null layer=x,y, max snapshot, mean)"),
        ({"correlate": ["a", {"steps_to": 0.5}]}, "rank correlation over schemes: a with updates to 50%"),
        ({"calculation": "ln_ignores_batch", "number": "layer"}, "ln_ignores_batch: layer"),
    ],
)  # fmt: skip
def test_metrics_in_words(metric: Any, said: str) -> None:
    assert TypeAdapter(AnyMetric).validate_python(metric).words.startswith(said)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"order": None}, "order: Field required"),
        ({"topic": "beauty"}, "topic: Input should be 'internal covariate shift', 'the layer'"),
        ({"studdy": "x"}, "studdy: Extra inputs are not permitted"),
        ({"study": None}, "checks of runs need study: NAME"),
        ({"restated": "But.", "answers": ["as_stated"]}, "its checks answer as_stated: it has as_stated, restated"),
        ({"answers": ["restated"]}, "its checks answer restated: it has as_stated"),
        ({"expect": "better"}, "checks 0 expect: Input should be 'higher', 'lower' or 'equal'"),
        ({"margin": -0.1}, r"the margin is at least 0 \(not negative"),
        ({"margin": 0, "expect": "equal"}, "the margin is above 0"),
        ({"scale": "ratio"}, r"the margin is at least 1 \(a factor"),
        ({"of": None}, "a check names the runs with `of`"),
        ({"of": "batch"}, "of: Value error, runs are named {option: value}"),
        ({"than": 0.5}, "either with the runs `against` or with the number `than`"),
        ({"metric": {"steps_too": 0.9}}, "a metric is a column of the study's frame or one of steps_to"),
        ({"metric": {"ratio": ["a", {"steps_to": 2}]}}, "Input should be less than 1"),
        ({"metric": {"table": "shift"}}, "column"),
        ({"metric": {"calculation": "folds", "number": "x"}}, "the number of a calculation does not"),
        ({"scale": "ratio", "margin": 2, "against": None}, "`than` is a number above 0"),
    ],
)
def test_a_claim_that_cannot_be_meant(
    claim_of: Callable[..., Claim], check: Callable[..., dict[str, Any]], values: dict[str, Any], message: str
) -> None:
    of_claim = {key: value for key, value in values.items() if key in ("order", "topic", "studdy", "study", "restated")}
    with pytest.raises(ClaimError, match=message) as raised:
        claim_of(check(**{key: value for key, value in values.items() if key not in of_claim}), **of_claim)
    assert "helps.yaml" in str(raised.value)


def test_a_file_that_is_no_claim(tmp_path: Path) -> None:
    for text, message in (("# x\n- 1\n", "a claim is written key: value"), ("a: [", "claim x: .*expected")):
        (tmp_path / "x.yaml").write_text(text)
        with pytest.raises(ClaimError, match=message):
            read(tmp_path / "x.yaml")


def test_a_verdict_outlives_a_change_of_words_and_no_other(tmp_path: Path) -> None:
    given = yaml.safe_load((config_dir() / "claims" / "placement.yaml").read_text())
    first, *others = given["checks"]

    def digest(**changed: Any) -> str:
        (tmp_path / "placement.yaml").write_text(yaml.safe_dump({**given, "checks": [{**first, **changed}, *others]}))
        return read(tmp_path / "placement.yaml").digest

    assert digest() == digest(say="accuracy before minus after")
    assert digest() != digest(margin=0.3)


def test_one_claim_of_a_study_answers_its_question() -> None:
    main = [claim.study for claim in claims() if claim.main]
    assert main
    assert len(main) == len(set(main))
    assert "" not in main
