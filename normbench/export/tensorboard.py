"""TensorBoard's event files: for each run its curves, the histograms of its layers, and its settings as hparams.

They are written with the messages of the package `tensorboard`, without torch and without TensorFlow, and not with its
EventFileWriter, which puts the time and the machine's name into each file. The wall time of an event is the seconds of
training until then, so TensorBoard's "relative" axis is the time of training; its "wall" axis begins in 1970.
"""

from __future__ import annotations

import io
from collections.abc import Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from normbench.analysis.groups import show
from normbench.analysis.measured import rows
from normbench.runs import Run, Study

if TYPE_CHECKING:
    import pandas as pd

FILE = "events.out.tfevents.0.normbench"
Event = tuple[float, float, Any]  # step, seconds of training, tensorboard's Summary.Value

CURVES = {  # tag -> table and column
    "loss/training": ("steps", "loss"),
    "loss/validation": ("epochs", "validation_loss"),
    "accuracy/validation": ("epochs", "validation_accuracy"),
}
# One curve for each layer and tensor: instrument and column, and which of its rows.
OF_LAYERS: tuple[tuple[str, str, Mapping[str, str]], ...] = (
    ("gradients", "gradient", {}),
    ("gradients", "update_ratio", {}),
    ("units", "zeros", {}),
    ("units", "dead", {}),
    ("shift", "w1_scaled_mean", {"bn_mode": "probe", "since": "start"}),
)
# Tables with quantiles of a layer's values, the finer one first: column -> share of the values below.
QUANTILES = {
    "distributions": {f"q{k:02}": k / 32 for k in range(33)},
    "activations": {"p01": 0.01, "p15": 0.15, "p50": 0.5, "p85": 0.85, "p99": 0.99},
}
TEST, METRICS = "accuracy/test", ("accuracy/test", "accuracy/validation")
STATUS = {"complete": "SUCCESS", "diverged": "FAILURE", "unsupported": "FAILURE", "failed": "FAILURE"}


def tensorboard(study: Study) -> Iterator[tuple[str, bytes]]:
    """One event file per run, in a folder of its name, and one above them that says what the hparams are."""
    from tensorboard.plugins.hparams import api_pb2

    keys = ("norm", *study.varied, "seed")
    hparams = _columns({name: study.settings[name] | {"seed": run.seed} for name, run in study.members.items()}, keys)
    kinds = {bool: "DATA_TYPE_BOOL", float: "DATA_TYPE_FLOAT64", str: "DATA_TYPE_STRING"}
    experiment = api_pb2.Experiment(
        hparam_infos=[
            api_pb2.HParamInfo(name=key, type=api_pb2.DataType.Value(kinds[type(value)]))
            for key, value in next(iter(hparams.values())).items()
        ],
        metric_infos=[api_pb2.MetricInfo(name=api_pb2.MetricName(tag=tag)) for tag in METRICS],
    )
    yield FILE, _encode([(0, 0.0, _hparams("EXPERIMENT_TAG", experiment=experiment))])
    for name, run in study.members.items():
        events = [*_sessions(run, hparams[name]), *_scalars(run), *_histograms(run)]
        yield f"{name}/{FILE}", _encode(sorted(events, key=lambda event: event[0]))


def _columns(settings: Mapping[str, Mapping[str, Any]], keys: Iterable[str]) -> dict[str, dict[str, Any]]:
    """Run -> key -> value, each key's of one type: numbers, truth values, or text as it is typed."""
    found: dict[str, dict[str, Any]] = {name: {} for name in settings}
    for key in keys:
        values = {name: of_run.get(key) for name, of_run in settings.items()}
        kinds = {type(value) for value in values.values()}
        convert: Any = bool if kinds == {bool} else float if kinds <= {int, float} else _text
        for name, value in values.items():
            found[name][key] = convert(value)
    return found


def _text(value: Any) -> str:
    return show(value).encode(errors="replace").decode()


def _sessions(run: Run, hparams: Mapping[str, Any]) -> Iterator[Event]:
    from tensorboard.plugins.hparams import api_pb2, plugin_data_pb2

    start = plugin_data_pb2.SessionStartInfo(group_name=_text(run.name))
    for key, value in hparams.items():
        field = {bool: "bool_value", float: "number_value", str: "string_value"}[type(value)]
        setattr(start.hparams[_text(key)], field, value)
    yield 0, 0.0, _hparams("SESSION_START_INFO_TAG", session_start_info=start)
    seconds, step = _numbers(run.summary.get("seconds")).get("training", 0.0), _numbers(run.summary).get("steps", 0)
    status = api_pb2.Status.Value(f"STATUS_{STATUS.get(run.status, 'RUNNING')}")
    end = plugin_data_pb2.SessionEndInfo(status=status, end_time_secs=seconds)
    yield step, seconds, _hparams("SESSION_END_INFO_TAG", session_end_info=end)
    if (accuracy := _numbers(run.summary).get("test_accuracy")) is not None:
        yield step, seconds, _scalar(TEST, accuracy)


def _numbers(found: Any) -> dict[str, float]:
    values = found.items() if isinstance(found, dict) else ()
    return {key: value for key, value in values if isinstance(value, int | float)}


def _scalars(run: Run) -> Iterator[Event]:
    """Empty cells, NaN and infinities have no event: a run that diverged has fewer."""
    for tag, (name, column) in CURVES.items():
        table = _table(run, name, column)
        for step, seconds, value in zip(table["step"], table["train_seconds"], table[column], strict=True):
            yield step, seconds, _scalar(tag, value)
    for name, column, where in OF_LAYERS:
        table = _table(run, name, column, where=where)
        for step, seconds, tensor, value in zip(*_positions(table), table[column], strict=True):
            yield step, seconds, _scalar(f"{column}/{tensor}", value)


def _histograms(run: Run) -> Iterator[Event]:
    """The values of each layer and tensor at each snapshot, from the quantiles that `distributions` or else
    `activations` has measured on the validation images (`bn_mode` probe).
    """
    for name, levels in QUANTILES.items():
        table = _table(run, name, *levels, where={"bn_mode": "probe"})
        for step, seconds, tensor, quantiles in zip(
            *_positions(table), table[list(levels)].to_numpy(float), strict=True
        ):
            yield step, seconds, _histogram(tensor, histogram(quantiles, np.array(list(levels.values()))))
        if len(table):
            return


def _table(run: Run, name: str, *columns: str, where: Mapping[str, str] | None = None) -> pd.DataFrame:
    """The rows of a table that have all of these numbers, without those of single units."""
    table = rows(run, name, "step", "train_seconds", *columns)
    for key, value in (where or {}).items():
        table = table[table[key] == value] if key in table else table
    table = table[table["unit"].isna()] if "unit" in table else table
    return table.dropna(subset=["step", "train_seconds", *columns])


def _positions(table: pd.DataFrame) -> tuple[Iterable[Any], ...]:
    """Of each row: step, seconds of training, "layer/tensor"."""
    tensors = (f"{layer}/{tensor}" for layer, tensor in zip(table["layer"], table["tensor"], strict=True))
    return table["step"], table["train_seconds"], tensors


def histogram(quantiles: np.ndarray, levels: np.ndarray) -> np.ndarray:
    """Buckets [left, right, percent of the values] from quantiles: one between each and the next, which holds the share
    of the values that lies between their levels. TensorBoard interpolates inside a bucket, so the bands of its
    Distributions tab pass through the quantiles exactly.

    What lies below the first level or above the last (1% each of `activations`, nothing of `distributions`, which has
    the least and the greatest value) is put at that quantile. Where quantiles are equal, as those of ReLU are at 0,
    the bucket is a millionth of the range wide rather than nothing: TensorBoard divides by the width.

    Shape: quantiles, levels [Q] -> [Q + 1, 3], without the buckets that hold nothing.
    """
    edges, shares = np.r_[quantiles[0], quantiles, quantiles[-1]], np.diff(np.r_[0.0, levels, 1.0])
    width = 1e-6 * (np.ptp(edges) or max(1.0, abs(edges[0])))
    edges = np.maximum.accumulate(np.sort(edges) + width * np.arange(len(edges)) / len(edges))
    return np.stack([edges[:-1], edges[1:], 100 * shares], 1)[shares > 0]


def _scalar(tag: str, value: float) -> Any:
    from tensorboard.compat.proto.summary_pb2 import Summary

    return Summary.Value(tag=tag, simple_value=value)


def _histogram(tag: str, buckets: np.ndarray) -> Any:
    from tensorboard.compat.proto.summary_pb2 import Summary
    from tensorboard.plugins.histogram.metadata import create_summary_metadata
    from tensorboard.util.tensor_util import make_tensor_proto

    metadata = create_summary_metadata(display_name="", description="Percent of the values, from their quantiles.")
    return Summary.Value(tag=tag, metadata=metadata, tensor=make_tensor_proto(buckets, dtype=np.float64))


def _hparams(tag: str, **message: Any) -> Any:
    """A message of the hparams plugin. Its own helper writes the keys in an order that differs between processes."""
    from tensorboard.compat.proto.summary_pb2 import Summary, SummaryMetadata
    from tensorboard.plugins.hparams import metadata
    from tensorboard.plugins.hparams.plugin_data_pb2 import HParamsPluginData

    data = HParamsPluginData(version=metadata.PLUGIN_DATA_VERSION, **message).SerializeToString(deterministic=True)
    about = SummaryMetadata(plugin_data=SummaryMetadata.PluginData(plugin_name=metadata.PLUGIN_NAME, content=data))
    return Summary.Value(tag=getattr(metadata, tag), metadata=about, tensor=metadata.NULL_TENSOR)


def _encode(events: Iterable[Event]) -> bytes:
    from tensorboard.compat.proto import event_pb2
    from tensorboard.compat.proto.summary_pb2 import Summary
    from tensorboard.summary.writer.record_writer import RecordWriter

    buffer = io.BytesIO()
    writer = RecordWriter(buffer)
    writer.write(event_pb2.Event(file_version="brain.Event:2").SerializeToString())
    for step, seconds, value in events:
        event = event_pb2.Event(wall_time=seconds, step=int(step), summary=Summary(value=[value]))
        writer.write(event.SerializeToString(deterministic=True))
    return buffer.getvalue()
