"""Networks. They never name a norm: they ask `scheme.block(...)`, so every scheme works in every model."""

from normbench.models.cnn import CNN
from normbench.models.convpool_c import ConvPoolC
from normbench.models.gru import GRUCell
from normbench.models.initialization import initialize, require_method
from normbench.models.lstm import LSTMCell
from normbench.models.mlp import MLP
from normbench.models.mlp_deep import mlp_deep
from normbench.models.recurrent import RecurrentCell
from normbench.models.resnet import ResNet
from normbench.models.rnn import RNN
from normbench.models.tanh_cell import TanhCell
from normbench.models.vgg11 import vgg11

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
    "require_method",
    "vgg11",
]
