"""Build the network of a run, as its backbone makes it and as a trial has trained it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import nn

from rfsearch import plugins
from rfsearch.choices import Candidate
from rfsearch.errors import RunDirectoryError, nearest
from rfsearch.identity import network_of, require_same_tensors
from rfsearch.lazy import give_sizes
from rfsearch.ledger import incumbent, read_run
from rfsearch.ledger.manifest import Manifest, read_manifest
from rfsearch.ledger.typed_json import sound
from rfsearch.space import Space
from rfsearch.storage import run_directory
from rfsearch.surgery import Settings, install
from rfsearch.tasks.base import Task
from rfsearch.training import checkpoint, settings_of
from rfsearch.trust import opened


def fresh_backbone(space: Space, task: Task[object]) -> nn.Module:
    """Build a space's network, with no trained weights and no site changed."""
    return plugins.make_backbone(space.backbone, task.out_channels, task.in_channels)


def settings_of_run(manifest: Manifest) -> tuple[str, Settings]:
    """Return the SPEC of a run's network, and what surgery needs to install candidates in it."""
    space = sound(manifest.resolved_space)
    return space.backbone, settings_of(space, sound(manifest.data.classes))


def checkpoint_file(run_dir: Path, trial: str) -> Path:
    """Return the file of a trial's final weights."""
    return run_dir / "checkpoints" / trial / "model.pt"


def read_checkpoint(run_dir: Path, trial: str) -> dict[str, Any]:
    """Return the final weights of a trial, `model`, and the candidate that they fit, `candidate`.

    Raises:
        RunDirectoryError: They are not kept, or damaged.
    """
    file = checkpoint_file(run_dir, trial)
    if not file.is_file():
        kept = [path.parent.name for path in sorted((run_dir / "checkpoints").glob("*/model.pt"))]
        raise RunDirectoryError(f"{run_dir}: no checkpoint of trial {trial!r} is kept.{nearest(trial, kept)}")
    state = checkpoint.load(file, torch.device("cpu"))
    if state is None or not isinstance(state.get("candidate"), str) or not isinstance(state.get("model"), dict):
        raise RunDirectoryError(
            f"{file}: damaged: no checkpoint can be read from it. Other trials that are kept can be exported by name."
        )
    return state


def trained(run: Path | str, trial: str | None = None, *, trust: bool = False) -> nn.Module:
    """Load a trained network of a run, its paths and blocks in place, in evaluation mode.

    Args:
        run: The run's directory, or its URI.
        trial: A trial that leads its arm. Default: the winner.
        trust: Whether code may run that the directory names, is not installed, and was not named in a run begun here.

    Raises:
        RunDirectoryError: No such checkpoint is kept, it is damaged, or the backbone makes another network now.
        RequestError: It names such code.
    """
    run_dir = run_directory(run)
    read_manifest(run_dir)
    with opened(run_dir, trust):
        return load_trained(run_dir, trial)


def load_trained(run_dir: Path, trial: str | None = None) -> nn.Module:
    """Load a trained network as `trained` does, of a directory that has been opened, or not, by whoever asks.

    What may be imported is not asked, and nothing is remembered.

    Args:
        run_dir: The run's directory.
        trial: A trial that leads its arm. None: the winner.

    Raises:
        RunDirectoryError: No such checkpoint is kept, it is damaged, or the backbone makes another network now.
        UntrustedError: It names code that is refused here.
    """
    manifest = read_manifest(run_dir)
    space, classes = manifest.image_space, sound(manifest.data.classes)
    image_size = sound(manifest.space.image_size)
    if trial is None:
        known = read_run(run_dir)
        best = incumbent(known.records, known.direction)
        if best is None:
            raise RunDirectoryError(f"{run_dir}: no trial was scored, so there is no winner.")
        trial = best.trial
    state, file = read_checkpoint(run_dir, trial), checkpoint_file(run_dir, trial)
    in_channels, out_channels = sound(manifest.space.in_channels), sound(manifest.space.out_channels) or len(classes)
    model = plugins.make_backbone(space.backbone, out_channels, in_channels)
    require_same_tensors(sound(manifest.network), network_of(space.backbone, model), space.backbone, run_dir)
    give_sizes(model, (1, in_channels, *image_size))
    install(model, Candidate.from_json(state["candidate"]), settings_of(space, classes))
    try:
        model.load_state_dict(state["model"])
    except RuntimeError as error:
        raise RunDirectoryError(
            f"{file}: its weights do not fit the network that backbone {space.backbone} makes now: "
            f"{' '.join(str(error).split())[:300]}"
        ) from error
    model.eval()
    return model
