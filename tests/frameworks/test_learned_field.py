"""Trainings of Lightning, transformers and mmengine that learn their receptive field, with the real packages."""

from __future__ import annotations

import importlib
import importlib.util
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import rfsearch
from rfsearch.errors import RequestError
from tests.own_loop.planted import ANSWER, DILATIONS, Images, error_on, images, loss_of, network

EPOCHS, BATCH, STEPS_AN_EPOCH = 4, 4, 30
STEPS = EPOCHS * STEPS_AN_EPOCH
COUNT = BATCH * STEPS_AN_EPOCH


class Killed(Exception):
    """What ends a training half-way."""


def with_look(options: dict[str, Any], net: nn.Module) -> dict[str, Any]:
    """Put a function that looks at the network where the options ask for a look."""
    return {**options, "look": lambda: -loss_of(net, -1).item()} if "look" in options else options


def trained_by_lightning(
    folder: Path, resume: bool, kill: bool, options: dict[str, Any], accumulate: int = 1
) -> tuple[nn.Module, Any]:
    pytest.importorskip("lightning")
    from lightning.pytorch import Callback, LightningModule, Trainer
    from lightning.pytorch.callbacks import ModelCheckpoint

    from rfsearch.frameworks.lightning import LearnedField

    class Module(LightningModule):
        def __init__(self) -> None:
            super().__init__()
            self.net = network(norm=False)

        def training_step(self, batch: Any, number: int) -> torch.Tensor:
            seen.add(self.net(batch["image"]).dtype)
            return error_on(self.net, batch["image"])

        def configure_optimizers(self) -> Any:
            optimizer = torch.optim.AdamW(self.parameters(), lr=1e-3)
            if accumulate == 1:
                return optimizer
            schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 1e-2, total_steps=STEPS // accumulate)
            return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}

    class Killer(Callback):
        def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
            if kill and trainer.current_epoch == 2:
                raise Killed

    seen: set[torch.dtype] = set()
    module = Module()
    field = LearnedField("net.1", DILATIONS, **with_look(options, module.net))
    trainer = Trainer(
        max_epochs=EPOCHS, accelerator="cpu", logger=False, enable_progress_bar=False, enable_model_summary=False,
        default_root_dir=folder, gradient_clip_val=0.5, precision="bf16-mixed", accumulate_grad_batches=accumulate,
        callbacks=[field, Killer(), ModelCheckpoint(folder, "last", save_top_k=1)],
    )  # fmt: skip
    loader = torch.utils.data.DataLoader(Images(COUNT), BATCH, num_workers=0)
    trainer.fit(module, loader, ckpt_path=folder / "last.ckpt" if resume else None)
    assert trainer.global_step == STEPS // accumulate
    assert seen == {torch.bfloat16}
    assert {p.dtype for p in module.parameters()} == {torch.float32}
    return module.net, field


def trained_by_transformers(
    folder: Path, resume: bool, kill: bool, options: dict[str, Any], accumulate: int = 1
) -> tuple[nn.Module, Any]:
    pytest.importorskip("transformers")
    from transformers import Trainer, TrainerCallback, TrainingArguments

    from rfsearch.frameworks.transformers import LearnedField

    class Model(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.net = network(norm=False)

        def forward(self, image: torch.Tensor) -> dict[str, torch.Tensor]:
            return {"loss": error_on(self.net, image)}

    class Killer(TrainerCallback):
        def on_step_begin(self, args: Any, state: Any, control: Any, **given: Any) -> None:
            if kill and state.global_step == STEPS // accumulate // 2 + 5:
                raise Killed

    model = Model()
    field = LearnedField("net.1", DILATIONS, **with_look(options, model.net))
    arguments = TrainingArguments(
        str(folder), num_train_epochs=EPOCHS, per_device_train_batch_size=BATCH, learning_rate=1e-3, use_cpu=True,
        save_steps=STEPS // accumulate // 2, save_strategy="steps", report_to=[], disable_tqdm=True, max_grad_norm=0.5,
        bf16=True, dataloader_num_workers=0, logging_strategy="no", gradient_accumulation_steps=accumulate,
        lr_scheduler_type="linear" if accumulate == 1 else "cosine",
    )  # fmt: skip
    trainer = Trainer(model, arguments, train_dataset=Images(COUNT), callbacks=[field, Killer()])
    trainer.train(resume_from_checkpoint=resume or None)
    return model.net, field


def trained_by_mmengine(
    folder: Path, resume: bool, kill: bool, options: dict[str, Any], accumulate: int = 1
) -> tuple[nn.Module, Any]:
    pytest.importorskip("mmengine")
    from mmengine.hooks import Hook
    from mmengine.model import BaseModel
    from mmengine.runner import Runner

    from rfsearch.frameworks.mmengine import LearnedField

    seen: set[torch.dtype] = set()

    class Model(BaseModel):
        def __init__(self) -> None:
            super().__init__()
            self.net = network(norm=False)

        def forward(self, image: torch.Tensor, mode: str = "tensor") -> dict[str, torch.Tensor]:
            seen.add(self.net(image).dtype)
            return {"loss": error_on(self.net, image)}

    class Killer(Hook):
        def before_train_iter(self, runner: Runner, batch_idx: int, data_batch: Any = None) -> None:
            if kill and runner.iter == STEPS // 2:
                raise Killed

    loop: dict[str, Any] = {"train_cfg": {"by_epoch": True, "max_epochs": EPOCHS}, "default_hooks": {"logger": None}}
    if accumulate > 1:
        saving = {"type": "CheckpointHook", "by_epoch": False, "interval": STEPS_AN_EPOCH + 14}
        loop = {
            "train_cfg": {"by_epoch": False, "max_iters": STEPS},
            "default_hooks": {"logger": None, "checkpoint": saving},
            "param_scheduler": {"type": "CosineAnnealingLR", "T_max": STEPS, "by_epoch": False},
        }
    model = Model()
    field = LearnedField("net.1", DILATIONS, **with_look(options, model.net))
    runner = Runner(
        model, str(folder), train_dataloader={"dataset": Images(COUNT), "batch_size": BATCH, "num_workers": 0,
        "sampler": {"type": "DefaultSampler", "shuffle": False}, "collate_fn": {"type": "default_collate"}},
        optim_wrapper={"type": "AmpOptimWrapper", "dtype": "bfloat16", "clip_grad": {"max_norm": 0.5},
                       "accumulative_counts": accumulate, "optimizer": {"type": "AdamW", "lr": 1e-3}}, resume=resume,
        custom_hooks=[field, Killer()], log_level="ERROR", experiment_name=f"{folder.name}-{resume}-{kill}", **loop,
    )  # fmt: skip
    runner.train()
    assert seen == {torch.bfloat16}
    return model.net, field


FRAMEWORKS: dict[str, Callable[..., tuple[nn.Module, Any]]] = {
    "lightning": trained_by_lightning,
    "transformers": trained_by_transformers,
    "mmengine": trained_by_mmengine,
}


@pytest.fixture(autouse=True)
def mmengine_has_mixed_precision(monkeypatch):
    """Its AMP asks for a GPU, and has an autocast for CPUs behind that question."""
    if importlib.util.find_spec("mmengine"):
        wrapper = importlib.import_module("mmengine.optim.optimizer.amp_optimizer_wrapper")
        monkeypatch.setattr(wrapper, "is_cuda_available", lambda: True)


@pytest.mark.parametrize(
    "options",
    [pytest.param({"start": 2}, id="moved"), pytest.param({"look": True}, id="searched", marks=pytest.mark.slow)],
)
@pytest.mark.parametrize(
    "framework", ["lightning", *(pytest.param(name, marks=pytest.mark.slow) for name in ("transformers", "mmengine"))]
)
def test_a_training_killed_half_way_ends_as_an_unbroken_one_and_plain(framework, options, tmp_path, monkeypatch):
    # mmengine 0.10 cannot read its own checkpoints by torch's default for untrusted files.
    monkeypatch.setenv("TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD", "1")
    trained = FRAMEWORKS[framework]
    net, field = trained(tmp_path / "whole", False, False, dict(options))
    assert field.report().steps == STEPS
    assert field.report().dilations == {next(iter(field.report().starts)): ANSWER}
    assert type(net[1]) is nn.Conv2d
    assert net[1].dilation == (ANSWER, ANSWER)
    patch = field.learner.patch()
    patch["sites"] = {"1": next(iter(patch["sites"].values()))}
    fresh = rfsearch.apply(network(norm=False), patch)
    fresh.load_state_dict(net.state_dict())
    assert torch.equal(fresh(images(0)), net.to("cpu")(images(0)))

    with pytest.raises(Killed):
        trained(tmp_path / "broken", False, True, dict(options))
    resumed, again = trained(tmp_path / "broken", True, False, dict(options))
    assert again.report() == field.report()
    for name, value in net.state_dict().items():
        assert torch.equal(value, resumed.state_dict()[name]), name


@pytest.mark.slow
@pytest.mark.parametrize("framework", FRAMEWORKS)
def test_a_resumed_trainer_goes_on_with_its_schedule_and_its_accumulation(framework, tmp_path, monkeypatch):
    """A trainer's own checkpoint, in mmengine one between two epochs, is enough for it and for what is learned."""
    monkeypatch.setenv("TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD", "1")
    trained = FRAMEWORKS[framework]
    net, field = trained(tmp_path / "whole", False, False, {"start": 2}, 2)
    assert field.report().steps == STEPS // 2
    with pytest.raises(Killed):
        trained(tmp_path / "broken", False, True, {"start": 2}, 2)
    resumed, again = trained(tmp_path / "broken", True, False, {"start": 2}, 2)
    assert again.report() == field.report()
    for name, value in net.state_dict().items():
        assert torch.equal(value, resumed.state_dict()[name]), name


@pytest.mark.parametrize("framework", FRAMEWORKS)
def test_without_a_trainer_there_is_no_report(framework):
    module = pytest.importorskip(f"rfsearch.frameworks.{framework}", exc_type=ImportError)
    with pytest.raises(RequestError, match="nothing is learned yet"):
        module.LearnedField("1", DILATIONS).report()
