"""Instruments: what is measured on a model at scheduled steps. They leave the model as it was.

Start with `instrument.py` and `probe.py`, then `activations.py`. A module has one table, or a few that belong together.
"""

from normbench.instruments.activations import Activations, Distributions, TimeSteps, Units
from normbench.instruments.batch_noise import BatchNoise
from normbench.instruments.gradients import Gradients
from normbench.instruments.instrument import Instrument, Instruments, Row, Setting, evenly_spaced
from normbench.instruments.landscape import GradientShift, Landscape
from normbench.instruments.network import Fit, MemoryTime
from normbench.instruments.parameters import Parameters
from normbench.instruments.probe import BN_MODES, Probe
from normbench.instruments.shift import Shift
from normbench.instruments.statistics import Statistics
from normbench.instruments.train_test_shift import TrainTestShift

__all__ = [
    "BN_MODES", "Activations", "BatchNoise", "Distributions", "Fit", "GradientShift", "Gradients", "Instrument",
    "Instruments", "Landscape", "MemoryTime", "Parameters", "Probe", "Row", "Setting", "Shift", "Statistics",
    "TimeSteps", "TrainTestShift", "Units", "evenly_spaced",
]  # fmt: skip
