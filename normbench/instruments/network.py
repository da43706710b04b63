"""The network as a whole: how well it fits its training images, beside others; what a run costs in time and memory."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor, nn

from normbench.instruments.gradients import in_training
from normbench.instruments.instrument import Instrument, Row
from normbench.instruments.probe import Probe
from normbench.norms import preserve_state
from normbench.training.evaluation import sample_batches
from normbench.training.loop import Step, loss_and_accuracy
from normbench.training.memory import flops, saved_for_backward, size

AT_ONCE = 500  # images


class Fit(Instrument):
    """Of the network as a whole, in inference (running statistics, no dropout): mean loss and accuracy on training
    images, the same at each snapshot, and on the validation set.

    The loss that training itself reports is of mini-batches before their update, with the statistics of the batch and
    with dropout: of a network that is not the one whose generalisation is asked for. `images` says how many training
    images there are: as many as the run allows (`instruments.images`). With label noise they have the wrong labels.
    """

    name = "fit"
    columns = ("images", "train_loss", "train_accuracy", "validation_loss", "validation_accuracy")

    def measure(self, step: Step, model: nn.Module, probe: Probe) -> Iterator[Row]:
        row: Row = {"layer": "", "tensor": "", "images": self.setting.images}
        sets = {"train": (self.setting.train, self.setting.images)}
        sets["validation"] = (self.setting.validation, len(self.setting.validation))
        for name, (examples, count) in sets.items():
            batches = sample_batches(examples, count, AT_ONCE, probe.images.device, self.setting.seed)
            with preserve_state(model):
                loss, accuracy = loss_and_accuracy(model, batches)
            row |= {f"{name}_loss": loss, f"{name}_accuracy": accuracy}
        yield row


class MemoryTime(Instrument):
    """Of the network as a whole (`layer` is empty):

        training_ms, evaluating_ms, measuring_ms   milliseconds per update so far
        parameters, buffers                        bytes
        saved                                      bytes kept for the backward pass of one batch, the loss included
                                                   (no parameters, no buffers) = saved_per_image x batch +
                                                   saved_constant
        flops, flops_per_image                     of an update and of each of its images, forward and backward: matrix
                                                   products and convolutions alone, see `training.memory.flops`
        peak                                       most bytes taken on the GPU so far, instruments' included; empty on a
                                                   CPU, where a process's size says little

    What is saved, and FLOPs, are counted once, in passes in the mode of training: over one batch, and over an image
    more.
    """

    name = "memory_time"
    columns = (
        "training_ms", "evaluating_ms", "measuring_ms",
        "parameters", "buffers", "saved", "saved_per_image", "saved_constant", "flops", "flops_per_image", "peak",
    )  # fmt: skip
    remembers = ("saved",)

    def __init__(self) -> None:
        self.saved: dict[str, float] = {}  # with FLOPs

    def measure(self, step: Step, model: nn.Module, probe: Probe) -> Iterator[Row]:
        with self.setting.update.precision(probe.images.device):
            self.saved = self.saved or self._count(model, probe.images[0], probe.labels[0])
        self.result = {"flops": self.saved.get("flops")}
        times = {f"{what}_ms": 1000 * seconds / step.index if step.index else ""
                 for what, seconds in self.setting.seconds().items()}  # fmt: skip
        device = probe.images.device
        peak = torch.cuda.max_memory_allocated(device) if device.type == "cuda" else ""
        yield {"layer": "", "tensor": "", **times, "parameters": size(model.parameters()),
               "buffers": size(model.buffers()), **self.saved, "peak": peak}  # fmt: skip

    def _count(self, model: nn.Module, image: Tensor, label: Tensor) -> dict[str, float]:
        """Bytes kept for the backward pass of a batch of such images: all, those that each image adds, and the rest;
        FLOPs of an update, and per image.
        """
        size, accumulate = self.setting.batch_size, self.setting.update.accumulate
        batches = [(image.expand(n, *image.shape).clone(), label.expand(n).clone()) for n in (size, size + 1)]
        with in_training(model):
            one, more = (saved_for_backward(model, *batch) for batch in batches)
        with in_training(model):
            count = flops(model, *batches[0])
        per_image = more - one
        return {"saved": one, "saved_per_image": per_image, "saved_constant": one - per_image * size,
                "flops": accumulate * count, "flops_per_image": count / size}  # fmt: skip
