"""Score and fine-tune the networks that an export chooses between, on the run's own images."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import chain

import numpy as np
import torch
from torch import Tensor, nn

from rfsearch.backbones.vgg import FEATURES
from rfsearch.backbones.weights import load_weights
from rfsearch.choices import Room
from rfsearch.data import ImageSet
from rfsearch.errors import ModelError, SpaceError
from rfsearch.layers import FractionalConv2d, InflationFactor, SampleStride
from rfsearch.lazy import give_sizes
from rfsearch.networks import fresh_backbone
from rfsearch.receptive import receptive_field
from rfsearch.space import Space
from rfsearch.surgery import measure_sites
from rfsearch.surgery.dilation import _KEY as DILATION
from rfsearch.surgery.inserts import SplitSite
from rfsearch.surgery.places import lone_convolution
from rfsearch.tasks.from_space import task_of
from rfsearch.training.batches import training_batches
from rfsearch.training.optimisation import Optimisation
from rfsearch.training.schedule import tuning_recipe

_COMPARED = 8  # images


@dataclass(frozen=True)
class Scored:
    """Hold the scores of one network.

    Attributes:
        name: Which network: trained, rounded or split.
        steps: Number of steps of fine-tuning.
        val: Validation score.
        test: Test score, None without a test split.
        chosen: Whether this network was exported.
    """

    name: str
    steps: int
    val: float
    test: float | None
    chosen: bool = False


class Bench:
    """Score networks on the run's images, and train them further."""

    def __init__(self, space: Space, data: ImageSet, device: torch.device, say: Callable[[str], None]) -> None:
        self._space, self._data, self._device, self._say = space, data, device, say
        self.task = task_of(space, data)

    def backbone(self) -> nn.Module:
        """Build the space's network afresh."""
        network = fresh_backbone(self._space, self.task)
        give_sizes(network, self._data.input_shape)
        return network

    @property
    def size(self) -> tuple[int, int]:
        """(H, W) of the run's images, px."""
        return self._data.image_size

    @property
    def ignored(self) -> int | None:
        """The ignored class id where the network has a channel for it: no pixel is called by it."""
        ignored = self._data.ignore_index
        return ignored if ignored is not None and ignored < self._data.num_classes else None

    def pixels(self) -> Tensor:
        """Return up to 8 real images, of the test split if there is one: B x C x H x W uint8."""
        splits = self._data.splits
        return torch.from_numpy(np.array(splits.get("test", splits["val"]).some(_COMPARED).images))

    def field_px(self, model: nn.Module) -> int:
        """Return the receptive field of a unit of the output, px, without what sees the whole image."""
        read = receptive_field(model, self._data.input_shape)
        return read.local_px or read.px

    def rooms(self) -> dict[str, Room]:
        """Return what every site of the space has room for."""
        model, rooms = self.backbone(), {}
        for site in measure_sites(model, self._space.sites, self._data.image_size, self._data.in_channels):
            conv = lone_convolution(model, site.path)
            span = min(site.map_size) - self._space.sampling.kernel
            rooms[site.path] = Room(site.largest_dilation, span, _channels(conv) if conv is not None else 0)
        return rooms

    def score(self, model: nn.Module, name: str, steps: int = 0) -> Scored:
        splits, found = self._data.splits, []
        model.to(self._device)
        model.eval()
        for split in ("val", "test"):
            if split in splits:
                tuned = f" after {steps} steps" if steps else ""
                self._say(f"Scoring the {name} network{tuned} on {len(splits[split])} {split} images ...")
                batch = self._space.recipe.eval_batch_size
                found.append(self.task.evaluate(model, splits[split], batch, self._device).primary)
        return Scored(name, steps, found[0], found[1] if len(found) > 1 else None)

    def finetune(self, model: nn.Module, name: str, steps: int) -> nn.Module | None:
        """Train the network further, by the space's recipe at a tenth of its rate; None if the loss is no number."""
        self._say(f"Fine-tuning the {name} network for {steps} steps ...")
        recipe = self._space.recipe
        torch.manual_seed(0)
        model.to(self._device)
        if not model.training:
            model.train()
        batches = training_batches(recipe, self._data, self.task, 0, self._device)
        tuning = tuning_recipe(recipe, steps)
        optimisation = Optimisation(model, self.task, tuning, self._trained(model))
        for step in range(steps):
            optimisation.set_rates(step)
            optimisation.clear()
            loss = optimisation.find_gradients(*batches.at(step))
            optimisation.move()
        model.eval()
        return model if math.isfinite(loss.item()) else None

    def _trained(self, model: nn.Module) -> list[nn.Parameter]:
        """Return the parameters of a form whose training had begun with trained weights, its sites aside.

        None where they have no rate of their own: then nobody needs the weights again.
        """
        space = self._space
        if space.recipe.pretrained_lr_multiplier == 1:
            return []
        if space.weights == "hub":
            return [parameter for name, parameter in model.named_parameters() if name.startswith(FEATURES)]
        names = load_weights(self.backbone(), space.weights, space.backbone).names
        return [parameter for name, parameter in model.named_parameters() if name in names]


def take_weights(source: nn.Module, target: nn.Module) -> None:
    """Copy all weights between two forms of one network that differ only in dilations and inflation, in place.

    Raises ModelError where they differ in more.
    """
    given, taken = list(_weights(source)), list(_weights(target))
    shapes, wanted = ([tuple(tensor.shape) for tensor in found] for found in (given, taken))
    if shapes != wanted:
        raise ModelError(f"These are not two forms of one network: {len(given)} and {len(taken)} tensors of their own.")
    with torch.no_grad():
        for old, new in zip(given, taken, strict=True):
            new.copy_(old)
    for left, right in zip(_telling(source), _telling(target), strict=True):
        right.set_extra_state(left.get_extra_state())


def _weights(model: nn.Module) -> Iterator[Tensor]:
    """Yield all that a state dict holds but for f, gamma and dilations, in the order of the modules."""
    for module in model.modules():
        if not isinstance(module, InflationFactor | SampleStride):
            dilation = {"log_dilation", "bounds"} if isinstance(module, FractionalConv2d) else {DILATION}
            for name, tensor in chain(module._parameters.items(), module._buffers.items()):
                if tensor is not None and name not in dilation | module._non_persistent_buffers_set:
                    yield tensor


def _telling(model: nn.Module) -> list[nn.Module]:
    """Return the modules that keep more in a state dict than tensors of their own."""
    plain = nn.Module.get_extra_state
    return [module for module in model.modules() if type(module).get_extra_state is not plain]


def _channels(conv: nn.Module) -> int:
    """Return how many output channels of a convolution can be split between two dilations, 0 if none can."""
    try:
        split = SplitSite(conv, 1 + max(conv.dilation), 1)  # type: ignore[arg-type]
    except SpaceError:
        return 0
    return split.near.out_channels + split.far.out_channels
