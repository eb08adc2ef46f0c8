"""A network with a planted dilation, for trainings in loops of their own."""

import torch
from torch import nn
from torch.nn import functional as F

DILATIONS = [1, 2, 3, 4, 6, 8]
ANSWER = 4


def network(dilation: int = 1, norm: bool = True) -> nn.Sequential:
    torch.manual_seed(3)
    body = nn.Sequential(nn.Conv2d(2, 6, 3, padding=1), nn.BatchNorm2d(6) if norm else nn.Identity(), nn.ReLU())
    return nn.Sequential(body, nn.Conv2d(6, 5, 3, padding=dilation, dilation=dilation), nn.Conv2d(5, 5, 1))


TEACHER = network(ANSWER, norm=False)


def images(step: int, count: int = 4) -> torch.Tensor:
    draw = torch.Generator().manual_seed(step)
    return F.avg_pool2d(torch.randn(count, 2, 44, 44, generator=draw), 5, 1)


def error_on(model: nn.Module, x: torch.Tensor) -> torch.Tensor:
    with torch.no_grad():
        answer = TEACHER(x)
    return F.mse_loss(model(x), answer)


def loss_of(model: nn.Module, step: int, count: int = 4) -> torch.Tensor:
    return error_on(model, images(step, count))


class Images(torch.utils.data.Dataset):
    """Images by number, for loaders."""

    def __init__(self, count: int) -> None:
        self._count = count

    def __len__(self) -> int:
        return self._count

    def __getitem__(self, number: int) -> dict[str, torch.Tensor]:
        return {"image": images(number, 1)[0]}
