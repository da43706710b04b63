"""What differs between runs that are compared, besides the scheme: said, since it can't be undone."""

from __future__ import annotations

from collections import defaultdict

from normbench.analysis.groups import Cells, Setting, label


def differences(cells: Cells) -> list[str]:
    """Sentences; none where the scheme is all that differs."""
    return [*_updates(cells), *_parameters(cells), *_origins(cells)]


def _updates(cells: Cells) -> list[str]:
    """Batch sizes are compared at equal numbers of images: then the numbers of updates are not equal."""
    groups: dict[Setting, dict[int, set[int]]] = defaultdict(lambda: defaultdict(set))
    for entry in cells.entries:
        if "batch_size" in cells.varying and entry.status == "complete" and "steps" in entry.summary:
            rest = tuple((k, entry.settings.get(k)) for k in cells.varying if k not in ("batch_size", "lr"))
            groups[rest][entry.settings["batch_size"]].add(int(entry.summary["steps"]))
    words = []
    for rest, steps in groups.items():
        if len(set.union(*steps.values())) > 1 and all(len(found) == 1 for found in steps.values()):
            counts = "; ".join(f"{size}: {max(found):,}" for size, found in sorted(steps.items()))
            words.append(
                f"Updates by batch size{_of(rest)}: {counts}. Fewer updates are part of what a large batch does."
            )
    return words


def _parameters(cells: Cells) -> list[str]:
    found: dict[Setting, dict[str, int]] = defaultdict(dict)
    for setting, by_scheme in cells.settings.items():
        network = tuple(item for item in setting if item[0].partition(".")[0] in ("model", "dataset"))
        for scheme, cell in by_scheme.items():
            counts = [e.summary["parameters"] for e in cell.entries if e.summary.get("parameters") is not None]
            if counts:
                found[network][scheme] = int(counts[0])
    return [
        f"Parameters differ{_of(network)}: {'; '.join(f'{scheme} {count:,}' for scheme, count in counts.items())}."
        for network, counts in found.items()
        if len(set(counts.values())) > 1
    ]


def _origins(cells: Cells) -> list[str]:
    records = [entry.run.record for entry in cells.entries]
    words = []
    for key in ("normbench", "torch"):
        versions = {str((record.get("versions") or {}).get(key)) for record in records}
        if len(versions) > 1:
            words.append(f"The runs were made by different versions of {key}: {', '.join(sorted(versions))}.")
    commits = {str(record.get("git_commit") or "unknown") for record in records}
    if len(commits) > 1:
        words.append(f"The runs were made by different commits: {', '.join(sorted(_short(c) for c in commits))}.")
    machines = {str((record.get("machine") or {}).get("cpu")) for record in records}
    if len(machines) > 1:
        words.append(f"The runs were made on different machines ({', '.join(sorted(machines))}): mind the seconds.")
    return words


def _of(setting: Setting) -> str:
    words = label(setting, "")
    return f" ({words})" if words else ""


def _short(commit: str) -> str:
    """Twelve letters are enough, and the sign that the code was changed since."""
    return commit[:12] + ("+" if commit.endswith("+") else "")
