"""The wheel: what is in it, and that it works where there is no checkout."""

from __future__ import annotations

import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("dist")
    command = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(folder), str(ROOT)]
    subprocess.run(command, check=True, capture_output=True)
    [path] = folder.glob("*.whl")
    return path


def test_the_wheel_holds_the_package_with_its_yaml_and_nothing_else(wheel: Path) -> None:
    names = zipfile.ZipFile(wheel).namelist()
    assert {name.split("/")[0] for name in names} == {"normbench", "normbench-0.1.0.dist-info"}
    for path in (ROOT / "configs").rglob("*.yaml"):
        assert f"normbench/configs/{path.relative_to(ROOT / 'configs').as_posix()}" in names
    assert "normbench/py.typed" in names
    for name in ("page.html", "page.css", "page.js"):
        assert f"normbench/report/templates/{name}" in names


def test_it_runs_from_any_folder(wheel: Path, tmp_path: Path) -> None:
    site, here = tmp_path / "site", tmp_path / "here"
    here.mkdir()
    zipfile.ZipFile(wheel).extractall(site)
    code = (
        "import normbench, sys; from normbench.cli import main\n"
        f"assert normbench.__file__.startswith({str(site)!r}), normbench.__file__\n"
        "sys.exit(main(sys.argv[1:]))"
    )
    words = ["run", "-m", "dataset=synthetic", "max_steps=5", "norm=none,batch", "jobs=1"]
    env = {**os.environ, "PYTHONPATH": str(site), "NORMBENCH_DATA": str(tmp_path / "none")}
    done = subprocess.run([sys.executable, "-c", code, *words], cwd=here, env=env, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    study = here / "results" / "norm-synthetic-max_steps_5"
    assert (study / "report" / "report.html").exists()
    assert len(list(study.glob("*/summary.json"))) == 2
