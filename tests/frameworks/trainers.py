"""One training, as a loop and by the trainers of Lightning, transformers and mmengine."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from functools import partial
from itertools import count
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, Dataset

from tests.own_loop.loops import images, scorer

EPOCHS, BATCH, COUNT = 4, 8, 32
STEPS = COUNT // BATCH
LR = 3e-3


def make_model(dropout: float = 0.0) -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(1, 8, 3, padding=1), nn.ReLU(), nn.Conv2d(8, 8, 3, padding=1), nn.ReLU(), nn.Dropout(dropout),
        nn.Conv2d(8, 1, 1),
    )  # fmt: skip


class Images(Dataset):
    """What `images` returns, one at a time."""

    def __init__(self, count: int, seed: int) -> None:
        self._x, self._y = images(count, seed)

    def __len__(self) -> int:
        return len(self._x)

    def __getitem__(self, number: int) -> dict[str, torch.Tensor]:
        return {"x": self._x[number], "y": self._y[number]}


def error(model: nn.Module, batch: dict[str, torch.Tensor]) -> torch.Tensor:
    return F.mse_loss(model(batch["x"]), batch["y"])


def optimizer_of(model: nn.Module) -> torch.optim.Optimizer:
    return torch.optim.AdamW(model.parameters(), lr=LR, weight_decay=0.01)


def schedule_of(optimizer: torch.optim.Optimizer, by_score: bool = False) -> Any:
    if by_score:  # every score is too little better than the one before
        return torch.optim.lr_scheduler.ReduceLROnPlateau(optimizer, "max", 0.3, 0, 99.0, "abs")
    return torch.optim.lr_scheduler.StepLR(optimizer, STEPS + 1, 0.5)


def by_loop(trial, noisy: bool = False) -> None:
    model = trial.prepare(make_model(0.2 if noisy else 0.0))
    optimizer, batches, score = optimizer_of(model), DataLoader(Images(COUNT, 0), BATCH), scorer(model)
    trial.attach(model, optimizer, look=score)
    schedule = schedule_of(optimizer)
    trial.keep(schedule=schedule)
    for _ in trial.epochs(EPOCHS):
        for batch in batches:
            optimizer.zero_grad()
            error(model, batch).backward()
            nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            schedule.step()
        with trial.evaluating():
            trial.report(val=score())


def by_lightning(
    trial, noisy: bool = False, score: str = "val", callbacks=tuple, by_score=False, optimizers: int = 1,
    half: bool = False, **options,
) -> None:  # fmt: skip
    """`noisy`: in an order that is drawn, with dropout. `half`: in half precision, with losses that are scaled."""
    pytest.importorskip("lightning")
    from lightning.pytorch import LightningModule, Trainer
    from lightning.pytorch.plugins import MixedPrecision

    from rfsearch.frameworks.lightning import SearchTrial

    class Module(LightningModule):
        def __init__(self, net: nn.Module) -> None:
            super().__init__()
            self.net = net

        def training_step(self, batch: Any, number: int) -> torch.Tensor:
            loss = error(self.net, batch)
            self.log("train", loss)
            return loss

        def validation_step(self, batch: Any, number: int) -> None:
            self.log("val", -error(self.net, batch))

        def configure_optimizers(self) -> Any:
            optimizer = optimizer_of(self)
            if optimizers > 1:
                self.automatic_optimization = False
                return [optimizer_of(self) for _ in range(optimizers)]
            schedule = {"scheduler": schedule_of(optimizer, by_score), "interval": "epoch" if by_score else "step"}
            return [optimizer], [schedule | {"monitor": "val"}]

    net = trial.prepare(make_model(0.2 if noisy else 0.0))
    options = {"max_epochs": EPOCHS, "devices": trial.world_size} | options
    if half:
        options["plugins"] = [MixedPrecision("16-mixed", "cpu", torch.amp.GradScaler("cpu", growth_interval=3))]
    trainer = Trainer(
        accelerator="cpu", logger=False, enable_checkpointing=False, enable_progress_bar=False, gradient_clip_val=1.0,
        enable_model_summary=False, callbacks=[SearchTrial(trial, score, look=scorer(net)), *callbacks()], **options,
    )  # fmt: skip
    trainer.fit(Module(net), DataLoader(Images(COUNT, 0), BATCH, shuffle=noisy), DataLoader(Images(16, 1), 16))


def by_transformers(
    trial, noisy: bool = False, score: str = "eval_loss", callbacks=tuple, by_score=False, **options
) -> None:
    pytest.importorskip("transformers")
    from transformers import Trainer, TrainingArguments

    from rfsearch.frameworks.transformers import SearchTrial

    class Model(nn.Module):
        def __init__(self, net: nn.Module) -> None:
            super().__init__()
            self.net = net

        def forward(self, x: torch.Tensor, y: torch.Tensor) -> dict[str, torch.Tensor]:
            loss = F.mse_loss(self.net(x), y)
            return {"loss": loss if self.training else -loss}

    model = Model(trial.prepare(make_model(0.2 if noisy else 0.0)))
    optimizer = optimizer_of(model)
    settings = {
        "num_train_epochs": EPOCHS, "per_device_train_batch_size": BATCH, "per_device_eval_batch_size": 16,
        "eval_strategy": "epoch", "save_strategy": "no", "logging_strategy": "no", "report_to": [], "use_cpu": True,
        "disable_tqdm": True, "metric_for_best_model": "eval_loss",
        "max_grad_norm": 1.0, "dataloader_num_workers": 0, "label_names": ["y"],
        "seed": trial.seed, "output_dir": "unused",
    } | options  # fmt: skip
    sampled = Trainer if noisy else type("InOrder", (Trainer,), {"_get_train_sampler": lambda *_: None})
    trainer = sampled(
        model, TrainingArguments(**settings), train_dataset=Images(COUNT, 0), eval_dataset=Images(16, 1),
        callbacks=[SearchTrial(trial, score, look=scorer(model.net)), *callbacks()],
        optimizers=(optimizer, schedule_of(optimizer, by_score)),
    )  # fmt: skip
    trainer.train()


def by_mmengine(
    trial,
    noisy: bool = False,
    score: str = "val",
    callbacks=tuple,
    by_score=False,
    iterations=False,
    accumulate: int = 1,
    **options,
) -> None:
    """`iterations`: in a loop that counts iterations, and no epochs."""
    pytest.importorskip("mmengine")
    from mmengine.evaluator import BaseMetric
    from mmengine.model import BaseModel
    from mmengine.runner import Runner

    from rfsearch.frameworks.mmengine import SearchTrial

    class Model(BaseModel):
        def __init__(self, net: nn.Module) -> None:
            super().__init__()
            self.net = net

        def forward(self, x: torch.Tensor, y: torch.Tensor, mode: str = "tensor") -> Any:
            loss = F.mse_loss(self.net(x), y)
            return {"loss": loss} if mode == "loss" else [{"error": loss}]

    class Error(BaseMetric):
        def process(self, batch: Any, samples: Any) -> None:
            self.results += [sample["error"].item() for sample in samples]

        def compute_metrics(self, results: list[float]) -> dict[str, float]:
            return {"val": -results[0]}

    def batches(data: Images, batch: int, shuffle: bool, sampler: str = "DefaultSampler") -> dict[str, Any]:
        sampler = {"type": sampler, "shuffle": shuffle}
        return {"dataset": data, "batch_size": batch, "num_workers": 0, "sampler": sampler,
                "collate_fn": {"type": "default_collate"}}  # fmt: skip

    model = Model(trial.prepare(make_model(0.2 if noisy else 0.0)))
    schedule = {"type": "StepLR", "step_size": STEPS + 1, "gamma": 0.5, "by_epoch": False}
    if by_score:
        schedule = {"type": "ReduceOnPlateauLR", "monitor": "val", "rule": "greater", "factor": 0.3, "patience": 0,
                    "threshold": 99.0, "threshold_rule": "abs", "by_epoch": True}  # fmt: skip
    settings = {
        "train_cfg": {"by_epoch": True, "max_epochs": EPOCHS},
        "train_dataloader": batches(Images(COUNT, 0), BATCH, noisy),
        "val_cfg": {}, "val_dataloader": batches(Images(16, 1), 16, False), "val_evaluator": [Error()],
        "optim_wrapper": {"accumulative_counts": accumulate, "clip_grad": {"max_norm": 1.0},
                          "optimizer": optimizer_of(model)}, "param_scheduler": schedule,
        "default_hooks": {"logger": None, "checkpoint": None}, "log_level": "ERROR",
        "custom_hooks": [SearchTrial(trial, score, look=scorer(model.net)), *callbacks()],
    }  # fmt: skip
    if iterations:
        settings["train_cfg"] = {"by_epoch": False, "max_iters": EPOCHS * STEPS, "val_interval": STEPS}
        settings["train_dataloader"] = batches(Images(COUNT, 0), BATCH, noisy, "InfiniteSampler")
    with tempfile.TemporaryDirectory() as folder:
        Runner(model, folder, experiment_name=f"trial-{next(_number)}", **settings | options).train()


_number = count()
FRAMEWORKS: dict[str, Callable[..., None]] = {
    "lightning": by_lightning,
    "transformers": by_transformers,
    "mmengine": by_mmengine,
    "mmengine by iterations": partial(by_mmengine, iterations=True),
}
