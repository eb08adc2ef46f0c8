"""Compare receptive fields: how long a 200-layer network takes, and which tool gets which network right.

Truth is the support of the input gradient of a linearised copy (weights positive, nothing that gates, max pools made
means), in float64: first to last pixel, the largest of some units in the middle of the map. For large networks it is
the closed form r = 1 + sum of (k - 1) prod(strides before) along the longest path, also measured where that is cheap.
Nothing here uses the arithmetic of rfsearch.receptive for it.

The peers, where they are installed (`pip install receptivefield==0.5.0 torchscan==0.2.0`):
- receptivefield measures by gradients. It gets what its documentation asks for: a model with `feature_maps`, in
  evaluation mode, linear, with mean pools and positive weights, and an image larger than the field; more than that,
  functional ReLU and pools are made linear for it as well, and biases are positive, which its zero image needs.
- torchscan 0.2.0 gives a receptive field per module call. Chaining them in the order of execution,
  r += (k - 1) jump, jump *= stride, is ours; releases before 0.2 chained so themselves. Its documentation claims
  sequential paths only and no functional calls; what it says of others is listed, but not held against it.
"""

from __future__ import annotations

import argparse
import os
import statistics
import time
from typing import Any

import pandas as pd
import torch
from provenance import RESULTS, provenance, write_sidecar
from receptive_field_cases import Case, Extent, Linearised, cases, deep
from receptive_field_tools import PEERS, by_receptivefield, by_rfsearch, by_torchscan, installed, judged
from torch import nn

from rfsearch.receptive import trace_model

NAME = "receptive_field"
TARGET_S = 1.0
TOOLS = ("rfsearch", *PEERS)


# Every answer of a peer that is not the truth, and the line of its code that makes it so.


def windows(model: nn.Module, size: tuple[int, ...], channels: int, units: int) -> list[list[tuple[int, int]]]:
    """Return the first and last pixel per axis that some units in the middle see, one entry per unit."""
    image = torch.ones(1, channels, *size, dtype=torch.float64, requires_grad=True)
    output = Linearised(model).double()(image)
    middle = [(n - units) // 2 for n in output.shape[2:]]
    found = []
    for i in range(units):
        unit = tuple(place + i for place in middle)
        (grad,) = torch.autograd.grad(output[(0, slice(None), *unit)].sum(), image, retain_graph=i + 1 < units)
        places = grad[0].sum(0).nonzero()
        found.append([(int(a), int(b)) for a, b in zip(places.min(0).values, places.max(0).values, strict=True)])
    return found


def truth(case: Case, model: nn.Module) -> tuple[Extent, float, set[Extent], str]:
    """Return extent and jump, px, the extents of single units, and how they are known."""
    axes = len(case.size)
    closed = None if case.truth is None else (case.truth[0],) * axes
    if case.measured is None:
        assert closed
        assert case.truth
        return closed, case.truth[1], {closed}, "closed form"
    model = model if case.narrow is None else case.narrow()
    found = windows(model, case.measured, case.channels, case.units)
    clear = all(low > 0 and high < n - 1 for unit in found for (low, high), n in zip(unit, case.measured, strict=True))
    assert clear or case.whole, f"{case.name}: too small an image for its truth"
    each: list[Extent] = [tuple(high - low + 1 for low, high in unit) for unit in found]
    extent = tuple(max(unit[i] for unit in each) for i in range(axes))
    if closed:
        assert closed == extent, f"{case.name}: closed form {closed}, measured {extent}"
        assert case.truth
        return closed, case.truth[1], {closed}, "closed form and gradient"
    jump = case.jump
    if jump is None:
        more = windows(model, case.measured, case.channels, 2 * case.units)
        moves = [more[case.units + i][-1][side] - more[i][-1][side] for i in range(case.units) for side in (0, 1)]
        jump = statistics.mean(moves) / case.units
    return extent, jump, set(each), "gradient"


def compare(case: Case, peers: dict[str, str]) -> dict[str, Any]:
    """Return the row of one network: the truth, and what every tool answers."""
    torch.manual_seed(0)
    model = case.build().eval()
    extent, jump, accepted, known_by = truth(case, model)
    row: dict[str, Any] = {
        "case": case.name,
        "image_px": " x ".join(map(str, case.size)),
        "truth_h": extent[-2] if len(extent) > 1 else None,
        "truth_w": extent[-1],
        "jump": jump,
        "truth_by": known_by,
    }
    asked = {"rfsearch": by_rfsearch, "receptivefield": by_receptivefield, "torchscan": by_torchscan}
    for tool, ask in asked.items():
        if peers.get(tool) == "missing":
            row |= {f"{tool}": "not installed"}
            continue
        answer = judged(case, tool, ask(case, model), extent, accepted)
        jump_right = answer.jump is not None and abs(answer.jump - jump) < 1e-6
        row |= {
            tool: answer.status,
            f"{tool}_claims": answer.claimed,
            f"{tool}_h": answer.extent[-2] if len(answer.extent) > 1 else None,
            f"{tool}_w": answer.extent[-1] if answer.extent else None,
            f"{tool}_jump": answer.jump,
            f"{tool}_jump_right": jump_right if answer.status in ("right", "wrong") else None,
            f"{tool}_s": None if answer.seconds is None else float(f"{answer.seconds:.3g}"),
            f"{tool}_why": answer.why,
        }
    print(f"{case.name:42}", extent, f"jump {jump:g}", end="")
    for tool in TOOLS:
        print(f" | {tool}: {row[tool]} {row.get(f'{tool}_h')} {row.get(f'{tool}_w')}", end="")
        print(f" j{row.get(f'{tool}_jump')} {row.get(f'{tool}_s')} s {row.get(f'{tool}_why')}", end="")
    print(flush=True)
    return row


def summary(table: pd.DataFrame, peers: dict[str, str]) -> dict[str, Any]:
    """Summarise the table for each tool."""
    body: dict[str, Any] = {"cases": len(table)}
    for tool in TOOLS:
        if peers.get(tool) == "missing":
            body[tool] = "not installed"
            continue
        claims = table[f"{tool}_claims"].astype(bool)
        answered = table[tool].isin(["right", "wrong"])
        ours = claims & ~table[tool].isin(["refuses"])
        right = table[tool] == "right"
        body[tool] = {
            "claims_to_work": int(ours.sum()),
            "right_among_those": int((right & ours).sum()),
            "jump_right_among_those": int((table[f"{tool}_jump_right"].eq(True) & ours).sum()),
            **{status: int((table[tool] == status).sum()) for status in ("right", "wrong", "refuses", "fails")},
            "right_where_it_does_not_claim_to": int((right & ~claims).sum()),
            "seconds_in_all": round(float(table.loc[answered, f"{tool}_s"].sum()), 2),
        }
        if tool != "rfsearch":
            same = right & (table.rfsearch == "right")
            body[tool]["rfsearch_agrees_where_it_is_right"] = f"{int(same.sum())} of {int(right.sum())}"
            bad = table[table[tool].isin(["wrong", "fails"])]
            body[tool]["wrong_or_failing_because"] = dict(zip(bad.case, bad[f"{tool}_why"], strict=True))
            said = table[table[tool] == "refuses"]
            body[tool]["refuses_because"] = dict(zip(said.case, said[f"{tool}_why"], strict=True))
    return body


def timings(runs: int) -> dict[str, Any]:
    """Measure the seconds to run a model on shapes, and to follow it to every module's field."""
    body = {}
    for name, build in deep().items():
        model = build()
        tracing, tracing_cpu, following, following_cpu = [], [], [], []
        for _ in range(runs + 1):  # the first warms up
            began = time.perf_counter()
            at_work = time.process_time()
            trace = trace_model(model, (1, 3, 224, 224))
            then, worked = time.perf_counter(), time.process_time()
            fields = trace.receptive_fields()
            following.append(time.perf_counter() - then)
            following_cpu.append(time.process_time() - worked)
            tracing.append(then - began)
            tracing_cpu.append(worked - at_work)
        beyond = following[1:]
        body[name] = {
            "modules_quoted": len(fields),
            "operators_followed": trace.operator_count,
            "px_at": {path: fields[path].px for path in ("", "layer4", "features") if path in fields},
            "first_run_s": [round(tracing[0], 3), round(following[0], 3)],
            "tracing_s": round(statistics.median(tracing[1:]), 3),
            "tracing_cpu_s": round(statistics.median(tracing_cpu[1:]), 3),
            "following_s": round(statistics.median(beyond), 3),
            "following_cpu_s": round(statistics.median(following_cpu[1:]), 3),
            "following_s_least_and_most": [round(min(beyond), 3), round(max(beyond), 3)],
            "under_1_s_beyond_tracing": statistics.median(beyond) < TARGET_S,
        }
        print(name, body[name], flush=True)
    return body


def main() -> None:
    """Compare all networks, and write the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--runs", type=int, default=7, help="timed runs of each deep network")
    parser.add_argument("--only", help="cases whose name contains this; writes nothing")
    asked = parser.parse_args()
    torch.set_num_threads(1)
    peers = installed()
    if asked.only:
        for case in cases():
            if asked.only in case.name:
                compare(case, peers)
        return
    deep_networks = timings(asked.runs)
    table = pd.DataFrame([compare(case, peers) for case in cases()])
    table.to_csv(RESULTS / f"{NAME}.csv", index=False)
    origin = provenance()
    body = {
        **origin,
        "versions": {**origin["versions"], **peers},
        "threads": 1,
        "load_average_at_the_end": [round(load, 2) for load in os.getloadavg()],
        "deep_networks": {
            "image": [1, 3, 224, 224],
            "runs": asked.runs,
            "split": "tracing_s: the model on shapes; following_s: from there the fields of all modules; medians; cpu: "
            "the processor's time, which others on the machine disturb less",
            "target": f"following_s under {TARGET_S:g}",
            "target_met": all(entry["under_1_s_beyond_tracing"] for entry in deep_networks.values()),
            "by_network": deep_networks,
        },
        "truth": " ".join(__doc__.split("\n\n")[1].split()),
        "peers": " ".join(__doc__.split("\n\n")[2].split()),
        "right": "every axis' extent to the pixel; receptivefield also with that of a single unit in the middle",
        "seconds": "median of three calls, one where it took over a second; models built before; torchscan counts FLOP "
        "and memory in the same call, receptivefield gets larger images where the field needs them",
        "summary": summary(table, peers),
    }
    write_sidecar(NAME, body)
    print(body["summary"])


if __name__ == "__main__":
    main()
