"""Instruments: what is measured on a model at scheduled steps. They look and never touch."""

from normbench.instruments.activations import Activations
from normbench.instruments.batch_noise import BatchNoise
from normbench.instruments.distributions import Distributions
from normbench.instruments.fit import Fit
from normbench.instruments.gradient_shift import GradientShift
from normbench.instruments.gradients import Gradients
from normbench.instruments.instrument import Instrument, Instruments, Row, Setting, evenly_spaced, log_spaced, snapshots
from normbench.instruments.landscape import Landscape
from normbench.instruments.memory_time import MemoryTime
from normbench.instruments.parameters import Parameters
from normbench.instruments.probe import WAYS, Probe
from normbench.instruments.shift import Shift
from normbench.instruments.statistics import Statistics
from normbench.instruments.time_steps import TimeSteps
from normbench.instruments.train_test_shift import TrainTestShift
from normbench.instruments.units import Units

__all__ = [
    "WAYS",
    "Activations",
    "BatchNoise",
    "Distributions",
    "Fit",
    "GradientShift",
    "Gradients",
    "Instrument",
    "Instruments",
    "Landscape",
    "MemoryTime",
    "Parameters",
    "Probe",
    "Row",
    "Setting",
    "Shift",
    "Statistics",
    "TimeSteps",
    "TrainTestShift",
    "Units",
    "evenly_spaced",
    "log_spaced",
    "snapshots",
]
