"""Plans of requests, made in one call."""

from pathlib import Path

import torch

from rfsearch.ledger import Request
from rfsearch.planning.plan import Plan, make_plan, read_data
from rfsearch.planning.request import check_request


def planned(request: Request, cache: Path) -> Plan:
    """Check a request, read its data and plan it on the CPU."""
    checked = check_request(request)
    return make_plan(checked, read_data(checked, cache), torch.device("cpu"))
