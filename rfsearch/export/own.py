"""Write the winner of a run whose trainings were a user's own: its weights, and the patch that they fit."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from rfsearch.errors import RunDirectoryError
from rfsearch.export.exporting import patch_of
from rfsearch.export.origin import record_of
from rfsearch.export.portable import apply_call, default_folder, runs_code, write_patch
from rfsearch.ledger import read_run
from rfsearch.networks import read_checkpoint, settings_of_run
from rfsearch.training import checkpoint


@dataclass(frozen=True)
class ExportedWeights:
    """Tell what was written.

    Attributes:
        trial: Name of the trial.
        candidate: What its network has, in words.
        model: SPEC or name of what makes the network.
        patch: File of the patch.
        weights: File of the state dict.
        runs_code: Whether files of layers lie beside the patch, which run where it is applied.
    """

    trial: str
    candidate: str
    model: str
    patch: Path
    weights: Path
    runs_code: bool = False

    @property
    def usage(self) -> str:
        """Lines of Python that use them."""
        return "\n".join(
            (
                "import rfsearch, torch",
                "",
                f"model = {apply_call('make_model()', self.patch, self.runs_code)}  # make_model: {self.model}",
                f"model.load_state_dict(torch.load({str(self.weights)!r}, weights_only=True))",
            )
        )


def export_weights(run_dir: Path, out: Path | None, trial: str | None) -> ExportedWeights:
    """Write a trial's state dict and patch.

    Args:
        run_dir: The run's directory.
        out: Folder to write to. None: `run_dir/export`.
        trial: A trial that leads its arm. None: the winner.

    Raises:
        RunDirectoryError: No such checkpoint is kept, or the folder cannot be written.
        UntrustedError: Its layers may not be imported here.
    """
    run, directory = read_run(run_dir), out or default_folder(run_dir)
    record = record_of(run, trial)
    state = read_checkpoint(run_dir, record.trial)
    backbone, settings = settings_of_run(run.manifest)
    patch = patch_of(backbone, settings, record)
    try:
        directory.mkdir(parents=True, exist_ok=True)
        write_patch(patch, directory)
        checkpoint.save(state["model"], directory / "model.pt")
    except OSError as error:
        raise RunDirectoryError(f"{directory}: cannot be written: {error.strerror or error}.") from error
    return ExportedWeights(
        record.trial,
        str(patch.candidate),
        backbone,
        directory / "patch.json",
        directory / "model.pt",
        runs_code(patch),
    )
