"""A LightningModule that learns its receptive field while it is trained, by one callback.

    pip install '.[lightning]'
    python examples/lightning_module.py

It parses faces that rfsearch draws, so there is nothing to download; 300 steps take a minute on two CPU cores.
"""

from __future__ import annotations

import argparse

import torch
from lightning.pytorch import LightningModule, Trainer
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from rfsearch.data import ImageSet, Split, rendered_faces
from rfsearch.frameworks.lightning import LearnedField


class Parser(LightningModule):
    """Give every pixel a class. Its widest convolution, `context`, sees 3 x 3 px of a map at an eighth of the size."""

    def __init__(self, classes: int) -> None:
        super().__init__()
        strided = [(3, 16), (16, 32), (32, 48)]
        self.features = nn.Sequential(
            *(
                nn.Sequential(nn.Conv2d(i, o, 3, stride=2, padding=1, bias=False), nn.BatchNorm2d(o), nn.ReLU())
                for i, o in strided
            )
        )
        self.context = nn.Conv2d(48, 48, 3, padding=1)
        self.head = nn.Conv2d(48, classes, 1)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        logits = self.head(torch.relu(self.context(self.features(images))))
        return nn.functional.interpolate(logits, size=images.shape[-2:], mode="bilinear")

    def training_step(self, batch: list[torch.Tensor], number: int) -> torch.Tensor:
        images, labels = batch
        return nn.functional.cross_entropy(self(images), labels)

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.AdamW(self.parameters(), lr=3e-3)


def tensors_of(split: Split) -> TensorDataset:
    """Return images, N x 3 x H x W in [0, 1], and their class ids, N x H x W."""
    return TensorDataset(torch.from_numpy(split.images).float() / 255, torch.from_numpy(split.targets).long())


def main() -> None:
    """Train, and print what was learned."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=300)
    steps = parser.parse_args().steps
    faces: ImageSet = rendered_faces(train=128, val=32, test=1)
    module = Parser(len(faces.classes))
    images, labels = tensors_of(faces.splits["val"]).tensors

    def look() -> float:
        """Tell how good the module is as it stands, on faces that it is not trained on."""
        return -nn.functional.cross_entropy(module(images), labels).item()

    field = LearnedField("context", dilations=[1, 2, 3, 4, 6, 8], look=look)
    trainer = Trainer(
        max_steps=steps, accelerator="cpu", callbacks=[field], logger=False, enable_checkpointing=False,
        enable_progress_bar=False, enable_model_summary=False,
    )  # fmt: skip
    trainer.fit(module, DataLoader(tensors_of(faces.splits["train"]), batch_size=8, shuffle=True))
    print(field.report())
    print(module.context)


if __name__ == "__main__":
    main()
