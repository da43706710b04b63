"""Instruments: what is measured on a model at scheduled steps. They look and never touch."""

from normbench.instruments.activations import Activations
from normbench.instruments.instrument import Instrument, Row
from normbench.instruments.observing import observing
from normbench.instruments.schedule import evenly_spaced, log_spaced

__all__ = ["Activations", "Instrument", "Row", "evenly_spaced", "log_spaced", "observing"]
