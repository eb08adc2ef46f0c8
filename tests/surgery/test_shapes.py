"""The shape a module gives, found without running it."""

import pytest
import torch
from torch import nn

from rfsearch.choices import Candidate, Inflated
from rfsearch.errors import ModelError
from rfsearch.surgery import build
from rfsearch.surgery.shapes import output_shape


def test_of_a_module_in_training_whose_map_is_one_pixel() -> None:
    """Where batch normalisation refuses to train."""
    module = nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2)).train()
    assert output_shape(module, (1, 1, 3, 3)) == (1, 2, 1, 1)
    assert module.training
    assert module[1].num_batches_tracked == 0


@pytest.mark.parametrize("dtype", [torch.float16, torch.float64])
def test_of_any_type(dtype: torch.dtype) -> None:
    assert output_shape(nn.Conv1d(3, 2, 3, stride=2).to(dtype), (4, 3, 10)) == (4, 2, 4)


def test_of_sizes_that_depend_on_a_number_inside() -> None:
    """An inflated site in what is asked: its f must still be read."""
    model = build(nn.Sequential(nn.Conv2d(1, 2, 3, padding=1)), Candidate({"0": Inflated(1, 2.0, learned=True)}))
    assert output_shape(model[0].inflation, (1, 1, 5, 4)) == (1, 1, 10, 8)
    outer = build(nn.Sequential(model), Candidate({"0": Inflated(1, 1.5)}))
    assert outer(torch.zeros(1, 1, 9, 8)).shape == (1, 2, 9, 8)


def test_hooks_are_neither_run_nor_lost() -> None:
    seen: list[object] = []
    module = nn.Sequential(nn.ReLU())
    module[0].register_forward_hook(lambda *args: seen.append(args))
    module.register_forward_pre_hook(lambda *args: seen.append(args))
    assert output_shape(module, (1, 2, 3)) == (1, 2, 3)
    assert seen == []
    module(torch.zeros(1))
    assert len(seen) == 2


def test_what_is_no_map_to_a_map_is_told() -> None:
    with pytest.raises(ModelError, match=r"A Conv2d does not take a map of \(1, 2, 5, 5\)"):
        output_shape(nn.Conv2d(3, 1, 3), (1, 2, 5, 5))
    with pytest.raises(ModelError, match="maps one tensor to one. Got a tuple of a MaxPool2d"):
        output_shape(nn.MaxPool2d(2, return_indices=True), (1, 2, 4, 4))
