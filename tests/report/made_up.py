"""Small made-up runs, written to be written with the real journal."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from rfsearch.choices import Candidate, Inflated, inflated
from rfsearch.ledger import Cost, Record, Run
from rfsearch.ledger.record import parsed

REFERENCE_FLOP = 1e12
MakeRun = Callable[..., Run]
MakeDirectory = Callable[..., Path]


def candidate(dilation: int, f: float = 1.0, learned: bool = False, site: str = "conv6") -> str:
    return Candidate({site: Inflated(dilation, f, learned) if learned else inflated(dilation, f)}).to_json()


def record(name: str, dilation: int = 2, val: float | None = 0.7, test: float | None = 0.69, **changes: Any) -> Record:
    """A completed trial of one site.

    start_f, learned: Of its candidate. ends: What training moved, by path. Everything else replaces a field.
    """
    f, learned = changes.pop("start_f", 1.0), changes.pop("learned", False)
    ends = changes.pop("ends", {})
    fields: dict[str, Any] = {
        "strategy": "exhaustive",
        "seed": 0,
        "status": "completed",
        "candidate": candidate(dilation, f, learned),
        "rf_px": 60 + 16 * dilation,
        "rf_init_px": 60 + 16 * dilation,
        "cost": Cost(1e12, 30.0, 4.0),
        "scores": {} if test is None else {"skin": test + 0.1, "eyes": test - 0.1},
        "infer_latency_ms": 5.0 + dilation,
        "infer_mac": 2e9,
        "infer_peak_bytes": 100_000_000 + dilation,
        "steps": 100,
        "forecast": Cost(0.9e12, 33.0, 4.0),
        "forecast_peak_bytes": 90_000_000,
        "train_peak_bytes": 99_000_000,
    }
    made = Record(name, val=val, test=test, **{**fields, **changes})
    known = parsed(made.candidate)
    return replace(made, outcome=known.ended(ends).to_json() if known else made.candidate)


def manifest(**changes: Any) -> dict[str, Any]:
    """A whole manifest; changes replace its top-level entries, tables are merged."""
    body: dict[str, Any] = {
        "schema": 1,
        "command": "rfsearch run --space made-up",
        "request": {"space": "made-up"},
        "space": {
            "name": "made-up",
            "preset": "mini",
            "title": "A made-up space",
            "metric": "mean IoU",
            "sites": ["conv6"],
            "dilations": [1, 2, 4, 8],
            "reference": candidate(1),
            "image_size": [32, 32],
        },
        "arms": [{"strategy": "exhaustive", "seed": 0}],
        "budget": {"text": "4x", "currency": "flop", "limit": 4 * REFERENCE_FLOP, "reference_flop": REFERENCE_FLOP},
        "data": {
            "name": "rendered-faces",
            "summary": "drawn faces",
            "rendered": True,
            "notice": "",
            "classes": ["skin", "eyes"],
            "fingerprint": "abc123",
            "splits": {"train": 8, "val": 4, "test": 4},
        },
        "versions": {"rfsearch": "0.1.0"},
        "machine": {"cpu": "a processor", "cores": 2, "memory_bytes": 2**33, "device": "cpu"},
        "started": "2026-01-01T00:00:00+00:00",
        "workers": 1,
    }
    for key, value in changes.items():
        body[key] = {**body[key], **value} if isinstance(value, Mapping) and isinstance(body.get(key), dict) else value
    return body


def examples(directory: Path, images: int = 2, ignored: bool = True) -> None:
    rng = np.random.default_rng(0)
    truth = rng.integers(0, 3, (images, 16, 20)).astype(np.uint8)
    prediction = truth.copy()
    prediction[:, :4] = 0
    if ignored:
        truth[:, -1] = 255
    directory.mkdir(parents=True)
    pictures = rng.integers(0, 255, (images, 3, 16, 20)).astype(np.uint8)
    np.savez_compressed(directory / "examples.npz", images=pictures, truth=truth, prediction=prediction)
