"""Where a study comes from: data, versions, machines, dates, the settings that all runs share."""

from __future__ import annotations

from datetime import UTC, datetime

from normbench.analysis.groups import Groups, show
from normbench.plots.drawing import plural


def counts(groups: Groups) -> str:
    """How many runs there are, of what, and what became of them."""
    statuses = [run.status for run in groups.members]
    words = ", ".join(f"{statuses.count(status)} {status}" for status in sorted(set(statuses)))
    parts = [
        plural(len(statuses), "run") + ": " + plural(len(groups.schemes), "scheme"),
        plural(len(groups.settings), "setting"),
        plural(len({run.seed for run in groups.members}), "seed"),
    ]
    return f"{', '.join(parts)}. {words}."


def facts(groups: Groups) -> list[tuple[str, str]]:
    """Where the runs come from; several values are listed where the runs differ."""
    records = [run.record for run in groups.members]
    versions: dict[str, set[str]] = {}
    for record in records:
        for name, version in (record.get("versions") or {}).items():
            versions.setdefault(str(name), set()).add(str(version))
    data = [run.summary.get("dataset") or {} for run in groups.members]
    seconds = [(run.summary.get("seconds") or {}).get("total") or 0.0 for run in groups.members]
    machines = {", ".join(f"{k} {v}" for k, v in (record.get("machine") or {}).items()) for record in records}
    sets = {
        f"{d.get('name')}: {d.get('train')} train, {d.get('validation')} validation, {d.get('test')} test images, "
        f"sha256 {str(d.get('checksum'))[:12]}{', SYNTHETIC' if d.get('synthetic') else ''}"
        for d in data
        if d
    }
    found = [
        ("Data", " / ".join(sorted(sets))),
        ("Seeds", ", ".join(map(str, sorted({run.seed for run in groups.members}, key=_by_size)))),
        ("Versions", ", ".join(f"{name} {' / '.join(sorted(found))}" for name, found in versions.items())),
        ("Commit", " / ".join(sorted({str(record.get("git_commit") or "unknown") for record in records}))),
        ("Machine", " / ".join(sorted(machines))),
        ("Wall time", f"{sum(seconds):,.0f} s over all runs that are over, added up"),
        ("Files dated", _dates(groups)),
    ]
    return [(name, value) for name, value in found if value]


def scheme_options(groups: Groups) -> list[tuple[str, str]]:
    """Each scheme's own options, without the parts that are built from them."""
    found: dict[str, list[str]] = {}
    for run in groups.members:
        if groups.scheme_of(run) not in found:
            own = {k.removeprefix("norm."): v for k, v in run.values.items() if k.startswith("norm.")}
            plain = {k: v for k, v in own.items() if "." not in k and k != "name" and v is not None}
            found[groups.scheme_of(run)] = [
                f"{key}={show(value)}" for key, value in plain.items() if "_target_" not in str(value)
            ]
    return [(scheme, " ".join(found[scheme])) for scheme in groups.schemes if found.get(scheme)]


def tracebacks(groups: Groups) -> dict[str, list[str]]:
    """Traceback -> the runs that failed with it: a mistake in a scheme fails all its runs alike."""
    found: dict[str, list[str]] = {}
    for run in groups.members:
        if run.status == "failed" and (text := run.traceback.strip()):
            found.setdefault(text, []).append(run.name)
    return found


def _dates(groups: Groups) -> str:
    paths = [run.folder / name for run in groups.members for name in ("config.yaml", "summary.json")]
    times = [path.stat().st_mtime for path in paths if path.exists()]
    days = sorted({datetime.fromtimestamp(time, UTC).date().isoformat() for time in times})
    return " to ".join(dict.fromkeys([days[0], days[-1]])) if days else ""


def _by_size(value: object) -> tuple[float, str]:
    return (float(value), "") if isinstance(value, int | float) else (float("inf"), str(value))
