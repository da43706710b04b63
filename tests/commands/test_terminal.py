"""What a terminal shows: lines wrapped at words, something at once, a study in short."""

from __future__ import annotations

import io
import subprocess
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest

from normbench.analysis.groups import read
from normbench.cli import main
from normbench.commands import console, report
from normbench.runs import load

Add = Callable[..., Path]
HELP = [["--help"], *([command, "--help"] for command in ("run", "explain", "claims", "verify")), ["list", "norm"]]


@pytest.fixture(params=[80, 100])
def screen(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> io.StringIO:
    """Standard output and error are a terminal of this width."""
    shown = io.StringIO()
    terminal = console.SafeConsole(file=shown, width=request.param, force_terminal=True, color_system=None)
    monkeypatch.setattr(console, "out", terminal)
    monkeypatch.setattr(console, "err", terminal)
    return shown


@pytest.mark.parametrize("words", HELP, ids=" ".join)
def test_text_is_wrapped_at_words(words: list[str], screen: io.StringIO, monkeypatch: pytest.MonkeyPatch) -> None:
    def show() -> str:
        with suppress(SystemExit):
            main(words)
        return screen.getvalue()

    wrapped = show()
    assert max(len(line) for line in wrapped.splitlines() if not console.COMMAND.search(line)) <= console.out.width
    monkeypatch.setattr(console.out, "_width", 10_000)
    assert show().removeprefix(wrapped).split() == wrapped.split(), "no word is cut"


def test_commands_and_paths_are_left_whole(screen: io.StringIO) -> None:
    command = "normbench run -m norm=none,batch batch_size=4,64 seed=0,1,2 study=s results_dir=" + 9 * "/folder"
    console.say(f"batch_size=4,64 lists several values. To sweep over them: {command}")
    console.say(f"report: {20 * '/folder'}/report.html")
    assert screen.getvalue().splitlines() == [
        "batch_size=4,64 lists several values. To sweep over them:", command,
        "report:", f"{20 * '/folder'}/report.html",
    ]  # fmt: skip


def test_a_line_goes_on_below_its_last_column(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = console.SafeConsole(file=io.StringIO(), width=30, force_terminal=True, color_system=None)
    console.say("  norm=batch  over the batch and space", terminal)
    assert terminal.file.getvalue() == "  norm=batch  over the batch\n              and space\n"  # type: ignore[attr-defined]


def test_something_is_on_the_screen_before_torch_is_imported() -> None:
    code = (
        "import sys\nfrom normbench.commands import console\nfrom normbench.cli import main\n"
        "console.announce = lambda text: print(text, 'torch' in sys.modules, 'hydra' in sys.modules)\n"
        "main(['run', 'norm=bogus'])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "normbench run: reading the configuration False False\n"


def test_what_is_announced_is_for_a_terminal_alone(
    screen: io.StringIO, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["run", "norm=bogus"]) == 2
    assert screen.getvalue().startswith(
        "normbench run: reading the configuration ...\nnormbench: error: norm is one of"
    )
    piped = console.SafeConsole(file=io.StringIO())
    monkeypatch.setattr(console, "err", piped)
    console.announce("reading")
    assert piped.file.getvalue() == ""  # type: ignore[attr-defined]


def test_a_study_in_short(study: Path, add: Add, screen: io.StringIO) -> None:
    for seed, accuracy in enumerate((0.90, 0.92, 0.94)):
        add(norm="none", batch_size=4, seed=seed, accuracy=accuracy)
        add(norm="none", batch_size=64, seed=seed, accuracy=accuracy - 0.2)
    add(norm="weight_standardization", batch_size=4, seed=0, accuracy=0.81)
    add(norm="weight_standardization", batch_size=4, seed=1, status="diverged")
    add(norm="batch", batch_size=4, seed=0, status="unsupported")
    report._print_accuracies(read(load(study)))
    assert [" ".join(line.split()) for line in screen.getvalue().splitlines()] == [
        "test accuracy in %, mean and 95% interval, n = 2 to 3",
        "batch size batch size",
        "4 64",
        "none 92.0 ± 5.0 72.0 ± 5.0",
        "batch unsupported",
        "weight_standardization 45.5 (0 to 100)",
        "1 of 2 diverged",
    ]


def test_schemes_at_their_best_lr_where_more_was_swept(study: Path, add: Add, screen: io.StringIO) -> None:
    for lr, accuracy in ((0.01, 0.7), (0.1, 0.8), (1.0, 0.6)):
        for norm, batch_size in (("none", 4), ("none", 64), ("[red]x[/red]", 4)):
            add(norm=norm, lr=lr, batch_size=batch_size, accuracy=accuracy, dataset="synthetic")
    groups = read(load(study))
    report._print_accuracies(groups)
    lines = screen.getvalue().splitlines()
    assert lines[0] == "test accuracy in %, mean, n = 1, each scheme at its own best lr, synthetic data"
    assert [line.split() for line in lines[3:]] == [["none", "80.0", "80.0"], ["[red]x[/red]", "80.0"]]


def test_every_lr_where_nothing_else_was_swept(study: Path, add: Add, screen: io.StringIO) -> None:
    for lr, accuracy in ((0.01, 0.7), (0.1, 0.8)):
        for norm in ("none", "batch", "layer"):
            add(norm=norm, lr=lr, accuracy=accuracy)
    report._print_accuracies(read(load(study)))
    lines = screen.getvalue().splitlines()
    assert [line.split() for line in lines[1:]] == [
        ["lr", "lr"], ["0.01", "0.1"], *([norm, "70.0", "80.0"] for norm in ("none", "batch", "layer"))
    ]  # fmt: skip
