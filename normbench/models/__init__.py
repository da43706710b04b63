"""Networks. They never name a norm: they ask `scheme.block(...)`, so every scheme works in every model."""

from normbench.models.cnn import CNN
from normbench.models.initialization import initialize, require_method
from normbench.models.lstm import LSTMCell
from normbench.models.mlp import MLP
from normbench.models.rnn import RNN

__all__ = ["CNN", "MLP", "RNN", "LSTMCell", "initialize", "require_method"]
