"""How well the network fits its training images, beside images that it was not trained on."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from torch import nn

from normbench.instruments.instrument import Instrument, Row
from normbench.instruments.probe import Probe
from normbench.norms import preserve_state
from normbench.training.evaluation import sample_batches
from normbench.training.loop import Step, loss_and_accuracy

AT_ONCE = 500  # images


class Fit(Instrument):
    """Of the network as a whole, in inference (running statistics, no dropout): mean loss and accuracy on training
    images, the same at each snapshot, and on the validation set.

    The loss that training itself reports is of mini-batches before their update, with the statistics of the batch and
    with dropout: of a network that is not the one whose generalisation is asked for. `images` says how many training
    images there are: as many as the run allows (`instruments.images`). With label noise they have the wrong labels.
    """

    name = "fit"
    columns: Sequence[str] = ("images", "train_loss", "train_accuracy", "validation_loss", "validation_accuracy")

    def measure(self, step: Step, model: nn.Module, probe: Probe) -> Iterator[Row]:
        device, row = probe.images.device, {"layer": "", "tensor": "", "images": self.setting.images}
        sets = {"train": (self.setting.train, self.setting.images)}
        sets["validation"] = (self.setting.validation, len(self.setting.validation))
        with preserve_state(model):
            for name, (examples, count) in sets.items():
                loss, accuracy = loss_and_accuracy(model, sample_batches(examples, count, AT_ONCE, device))
                row |= {f"{name}_loss": loss, f"{name}_accuracy": accuracy}
        yield row
