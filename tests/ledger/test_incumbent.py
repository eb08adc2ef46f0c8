"""Who wins: the best on validation of those that were scored, the first of equals."""

from dataclasses import replace

from rfsearch.ledger import Cost, Record, incumbent, leaders

RECORD = Record("a", "exhaustive", 0, "completed", "{}", 1, 1, Cost(1.0), val=0.5, test=0.1)


def test_the_best_scored_trial_leads_and_the_first_of_equals_stays():
    better, equal = replace(RECORD, trial="b", val=0.7), replace(RECORD, trial="c", val=0.7, test=0.9)
    assert incumbent([RECORD, better, equal], "maximize") is better
    assert incumbent([equal, better, RECORD], "maximize") is equal


def test_a_negative_score_leads_where_there_is_no_better_one():
    low, lower = replace(RECORD, val=-0.2), replace(RECORD, trial="b", val=-0.5)
    assert incumbent([lower, low], "maximize") is low


def test_what_was_not_scored_never_leads():
    pruned, failed = replace(RECORD, val=0.9, status="pruned"), replace(RECORD, val=None, status="failed")
    assert incumbent([pruned, RECORD, failed], "maximize") is RECORD
    assert incumbent([None, pruned, failed], "maximize") is None
    assert incumbent([], "maximize") is None


def test_every_arm_has_its_own_leader_and_one_without_a_score_has_none():
    other, worse = replace(RECORD, trial="b", seed=1, val=0.2), replace(RECORD, trial="c", val=0.4)
    pruned = replace(RECORD, trial="d", strategy="random", status="pruned")
    assert leaders([RECORD, other, worse, pruned], "maximize") == {("exhaustive", 0): RECORD, ("exhaustive", 1): other}


def test_where_lower_is_better_the_lowest_score_leads():
    low, lower = replace(RECORD, trial="low", val=0.2), replace(RECORD, trial="lower", val=0.1)
    negative = replace(RECORD, trial="negative", val=-3.0)
    assert incumbent([low, lower], "minimize") is lower
    assert incumbent([None, low, negative, lower], "minimize") is negative
    assert leaders([low, lower], "minimize") == {("exhaustive", 0): lower}
