"""The packages: what is in them, and that the wheel works where there is no checkout."""

from __future__ import annotations

import os
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest
import yaml

from normbench import __version__

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def dist(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the sdist, and the wheel that was built from it."""
    folder = tmp_path_factory.mktemp("dist")
    command = [sys.executable, "-m", "build", "--no-isolation", "--outdir", str(folder), str(ROOT)]
    subprocess.run(command, check=True, capture_output=True)
    return folder


@pytest.fixture(scope="module")
def wheel(dist: Path) -> Path:
    return dist / f"normbench-{__version__}-py3-none-any.whl"


def test_the_wheel_holds_the_package_with_its_yaml_and_nothing_else(wheel: Path) -> None:
    names, about = zipfile.ZipFile(wheel).namelist(), f"normbench-{__version__}.dist-info"
    assert {name.split("/")[0] for name in names} == {"normbench", about}
    for path in (ROOT / "configs").rglob("*.yaml"):
        assert f"normbench/configs/{path.relative_to(ROOT / 'configs').as_posix()}" in names
    assert {"normbench/py.typed", f"{about}/licenses/LICENSE"} <= set(names)
    for name in ("page.html", "page.css", "page.js"):
        assert f"normbench/report/templates/{name}" in names


def test_the_sdist_holds_the_sources_and_no_results(dist: Path) -> None:
    with tarfile.open(dist / f"normbench-{__version__}.tar.gz") as archive:
        names = {name.split("/")[1] for name in archive.getnames()}
    assert names >= {"normbench", "configs", "tests", "scripts", "LICENSE", "README.md", "CITATION.cff"}
    assert "results" not in names


def test_the_citation_is_of_this_version() -> None:
    assert yaml.safe_load((ROOT / "CITATION.cff").read_text())["version"] == __version__


def test_the_demo_runs_from_any_folder(wheel: Path, tmp_path: Path) -> None:
    site, here = tmp_path / "site", tmp_path / "here"
    here.mkdir()
    zipfile.ZipFile(wheel).extractall(site)
    code = (
        "import normbench, sys; from normbench.cli import main\n"
        f"assert normbench.__file__.startswith({str(site)!r}), normbench.__file__\n"
        "sys.exit(main(sys.argv[1:]))"
    )
    words = ["demo", "dataset=synthetic", "max_samples=64", "norm=none,batch", "batch_size=4,8", "seed=0", "jobs=1"]
    env = {**os.environ, "PYTHONPATH": str(site), "NORMBENCH_DATA": str(tmp_path / "none")}
    done = subprocess.run([sys.executable, "-c", code, *words], cwd=here, env=env, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == "report: results/demo/report/report.html"
    assert [path.name for path in here.iterdir()] == ["results"]
    assert len(list((here / "results" / "demo").glob("*/summary.json"))) == 4
    assert not (tmp_path / "none").exists()
