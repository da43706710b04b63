"""Networks. They never name a norm: they ask `scheme.block(...)`, so every scheme works in every model."""

from normbench.models.cells import GRUCell, LSTMCell, RecurrentCell, TanhCell
from normbench.models.cnn import CNN, ConvPoolC
from normbench.models.init import initialize
from normbench.models.mlp import MLP, mlp_deep
from normbench.models.resnet import ResNet
from normbench.models.rnn import RNN

__all__ = [
    "CNN",
    "MLP",
    "RNN",
    "ConvPoolC",
    "GRUCell",
    "LSTMCell",
    "RecurrentCell",
    "ResNet",
    "TanhCell",
    "initialize",
    "mlp_deep",
]
