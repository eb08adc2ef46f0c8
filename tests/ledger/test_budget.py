"""Budgets: what the text means, and what is refused."""

import pytest

from rfsearch.errors import BudgetError
from rfsearch.ledger import Budget, Cost


@pytest.mark.parametrize(
    ("text", "currency", "limit"),
    [
        ("7x", "flop", 7e12),
        ("0.5x", "flop", 5e11),
        ("2e15flop", "flop", 2e15),
        ("30min", "device_s", 1800.0),
        ("90 s", "device_s", 90.0),
        ("2h", "device_s", 7200.0),
        ("40epoch", "epochs", 40.0),
    ],
)
def test_a_budget_is_read_in_its_currency(text, currency, limit):
    budget = Budget.parse(text, reference_flop=1e12)
    assert (budget.currency, budget.limit) == (currency, pytest.approx(limit))


@pytest.mark.parametrize("text", ["0x", "-3x", "0min", "7", "7parsec", "x", "", "nanx", "1e999x", "7 x y"])
def test_nonsense_is_refused_with_the_rule(text):
    with pytest.raises(BudgetError, match="A budget is a positive number and a unit"):
        Budget.parse(text, reference_flop=1e12)


def test_spending_is_counted_in_the_budgets_own_currency():
    cost = Cost(flop=3.0, device_s=5.0, epochs=7.0)
    assert [Budget.parse(text, 1.0).spent(cost) for text in ("1x", "1min", "1epoch")] == [3.0, 5.0, 7.0]
