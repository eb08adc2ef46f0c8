from __future__ import annotations

import copy
import json
from dataclasses import replace

import pytest
import torch

from rfsearch.backbones.small import wei_small
from rfsearch.choices import Candidate, Choice, Dilated, Fractional, Guest, Inflated, Searched, SitePath
from rfsearch.ledger import Cost, Record
from rfsearch.report import Setting, Verdict, summarise
from rfsearch.report.facts import read_facts
from rfsearch.report.view import motions
from rfsearch.surgery import Settings, install
from tests.report.made_up import MakeRun, candidate, record


def told(make_run: MakeRun, records: list[Record], **changes: object) -> tuple[str, Verdict]:
    verdict = summarise(make_run(records, **changes))
    return str(verdict), verdict


def sweep(**changes: object) -> list[Record]:
    """Three dilations, the middle one best on validation, the last one best on test."""
    return [
        record("t0", 1, val=0.60, test=0.61, **changes),
        record("t1", 2, val=0.70, test=0.68, **changes),
        record("t2", 4, val=0.65, test=0.75, **changes),
    ]


def test_winner_is_chosen_on_validation_and_reported_on_test(make_run: MakeRun) -> None:
    text, verdict = told(make_run, sweep())
    assert verdict.best is not None
    assert verdict.best.trial == "t1"
    assert " ".join((verdict.headline, *verdict.confidence)) == (
        "Use dilation 2 at conv6 (92 px). Against the hand default it is 0.070 better on the test images: each was "
        "trained once, so how much of that is chance is unknown."
    )
    assert verdict.findings[:2] == (
        "It scored 0.680 on the test images of rendered faces, which are drawings and no photographs (mean IoU; chosen "
        "on validation, 0.700). Found by exhaustive.",
        "It is not the best one on the test images: dilation 4 at conv6 scored 0.070 better there (0.750 against "
        "0.680), with too few trainings to tell from noise. Test images choose nothing here.",
    )
    assert "nan" not in text


def test_a_score_of_which_a_lower_one_is_better_says_so(make_run: MakeRun) -> None:
    text, verdict = told(make_run, sweep(), space={"direction": "minimize"})
    assert verdict.best is not None
    assert verdict.best.trial == "t0"
    assert "(mean IoU, lower is better; chosen on validation, 0.600)" in text
    assert "not the best one on the test images" not in text


def test_price_counts_everything_until_the_winner(make_run: MakeRun) -> None:
    text, _ = told(make_run, sweep())
    assert "Its training cost 1.00 TFLOP (1.00× one reference training) and 30.0 s of device time." in text
    assert "exhaustive had spent 2.00 TFLOP (2.00× one reference training) and 1 min 00 s of device time" in text


@pytest.mark.parametrize(
    ("data", "phrase"),
    [
        ({"rendered": False, "name": "helen"}, "on the test images of helen ("),
        ({"rendered": True, "name": "blobs"}, "images of blobs, which are rendered: drawings and no photographs"),
    ],
)
def test_data_is_named_for_what_it_is(make_run: MakeRun, data: dict[str, object], phrase: str) -> None:
    assert phrase in str(summarise(make_run(sweep(), data=data)))


def test_hand_default_compared(make_run: MakeRun) -> None:
    text, _ = told(make_run, sweep())
    assert "The hand default (dilation 1 at conv6, 76 px) reached 0.610: the recommended one is 0.070 better." in text


def test_hand_default_won(make_run: MakeRun) -> None:
    text, _ = told(make_run, sweep(), space={"reference": candidate(2)})
    assert text.startswith(
        "Keep the hand default, dilation 2 at conv6 (92 px). It scored best on the validation images"
    )
    assert "None of 2 other candidates beat the hand default on the validation images." in text
    assert "Against the hand default" not in text


def test_hand_default_not_trained(make_run: MakeRun) -> None:
    text, _ = told(make_run, sweep(), space={"reference": candidate(8)})
    assert "hand default (dilation 8 at conv6) has no scored trial in this run" in text


def test_hand_default_given_as_a_plain_dilation(make_run: MakeRun) -> None:
    text, _ = told(make_run, sweep(), space={"reference": 1})
    assert "The hand default (dilation 1 at conv6, 76 px) reached 0.610" in text


@pytest.mark.parametrize(
    ("ours", "said"),
    [
        ((2.2, 2.0, 2.4), "takes 2.20 ms (2.00 to 2.40), with the hand default 2.10 ms (2.05 to 2.15): a tie"),
        ((42.0, 40.0, 44.0), "takes 42.0 ms (40.0 to 44.0), with the hand default 2.10 ms (2.05 to 2.15): 20.0×"),
        ((1.05, 1.0, 1.1), "(2.05 to 2.15): 0.500× as long."),
        ((4.0, 3.0, 9.0), "(2.05 to 2.15): not to be compared, since the machine was busy with something else."),
        (None, None),
    ],
)
def test_latencies_are_told_apart_only_where_their_spreads_are_apart(make_run: MakeRun, ours, said) -> None:
    default, winner, other = sweep(infer_latency_ms=2.1, infer_latency_spread_ms=(2.05, 2.15))
    median, *ends = ours or (42.0,)
    winner = replace(winner, infer_latency_ms=median, infer_latency_spread_ms=tuple(ends) or None)
    text, _ = told(make_run, [default, winner, other])
    assert said in text if said else "One image takes" not in text


def test_the_latency_of_a_winner_stands_alone_without_a_measured_default(make_run: MakeRun) -> None:
    default, winner, other = sweep()
    winner = replace(winner, infer_latency_ms=2.2, infer_latency_spread_ms=(2.0, 2.4))
    text, _ = told(make_run, [default, winner, other])
    assert "One image takes 2.20 ms (2.00 to 2.40)." in text


def test_one_seed_carries_no_interval(make_run: MakeRun) -> None:
    text, _ = told(make_run, sweep())
    assert "One seed carries no interval" in text
    assert "bootstrap" not in text


def seeds(n: int) -> list[Record]:
    return [
        record(f"{strategy}-{seed}", dilation, val=base + 0.01 * seed, test=base + 0.01 * seed, strategy=strategy,
               seed=seed, train_seed=seed)
        for seed in range(n)
        for strategy, dilation, base in (("exhaustive", 2, 0.70), ("random", 4, 0.60))
    ]  # fmt: skip


@pytest.mark.parametrize("count", [2, 3])
def test_few_seeds_carry_their_values_and_no_interval(make_run: MakeRun, count: int) -> None:
    text, _ = told(make_run, seeds(count))
    values = "0.700 and 0.710" if count == 2 else "0.700, 0.710 and 0.720"
    assert f"images ({count} seeds): exhaustive {values}; random 0.6" in text
    assert f"{count} seeds carry no interval and no probability" in text
    assert not any(word in text for word in ("interval 0", "Probability", "Wilcoxon"))


def test_four_seeds_carry_an_interval_and_no_test(make_run: MakeRun) -> None:
    text, _ = told(make_run, seeds(4))
    # Student's t with three degrees of freedom, 3.182, on a standard deviation of 0.01291
    assert "exhaustive 0.715 (mean of 4, 95 % interval 0.694 to 0.736); random 0.615 (mean of 4" in text
    assert "With fewer than 7 paired seeds (4 seeds here) no test was made." in text
    assert "Probability that exhaustive ends above, on a random pair of seeds: random 1.0." in text
    assert "Wilcoxon" not in text


def test_seven_seeds_carry_a_test(make_run: MakeRun) -> None:
    text, _ = told(make_run, seeds(7))
    assert "Wilcoxon's signed-rank test of exhaustive against random p = 0.016" in text
    assert "no test was made" not in text


def test_noise_unknown_without_replicates(make_run: MakeRun) -> None:
    text, _ = told(make_run, sweep())
    assert "is unknown: none was repeated with another seed. To know it: rfsearch resume " in text


def learned(name: str, dilation: int, f: float, **changes: object) -> Record:
    return record(name, dilation, learned=True, strategy="inflation", ends={"conv6": f}, **changes)


def test_f_that_never_left_its_start(make_run: MakeRun) -> None:
    text, _ = told(make_run, [learned("a", 2, 1.02), learned("b", 4, 0.98, val=0.6)])
    assert "The recommended f never left its start (less than 3 % away)" in text
    assert "In all 2 trials the learned f never left its start" in text


def test_f_that_moved(make_run: MakeRun) -> None:
    text, _ = told(make_run, [learned("a", 2, 0.73, rf_px=120), learned("b", 4, 1.0, val=0.6)])
    assert "The recommended f never" not in text
    assert "In 1 of 2 learned trials f never left its start: b." in text
    assert "(120 px, moved there from 92 px)" in text


def test_f_that_came_back_to_its_start_is_not_said_to_have_stayed(make_run: MakeRun) -> None:
    wander = ((0, "conv6", 1.0), (50, "conv6", 1.4), (100, "conv6", 1.02))
    back = learned("a", 2, 1.02, trace=wander)
    text, _ = told(make_run, [back, learned("b", 4, 0.98, val=0.6, trace=((0, "conv6", 1.0), (50, "conv6", 0.99)))])
    assert "The recommended f moved and came back to its start: it ended less than 3 % away." in text
    assert "In 1 of 2 learned trials f never left its start: b." in text
    assert "In 1 of 2 learned trials f moved and came back to its start: a." in text
    facts = read_facts(make_run([]).manifest)
    assert [motion.flag for motion in motions(back, facts)] == ["came back to its start"]
    assert [motion.flag for motion in motions(learned("c", 2, 1.02), facts)] == ["never moved"]


def test_a_path_that_never_moved_beside_one_that_came_back(make_run: MakeRun) -> None:
    pair = Candidate({"conv6": (Inflated(2, 1.0, True), Inflated(4, 1.0, True))}).to_json()
    wander = ((0, "conv6/1", 1.0), (0, "conv6/2", 1.0), (50, "conv6/1", 1.4), (50, "conv6/2", 1.0))
    text, _ = told(make_run, [record("a", candidate=pair, ends={"conv6/1": 1.0, "conv6/2": 1.0}, trace=wander)])
    assert "The recommended f moved and came back to its start" in text
    assert "never left its start" not in text


@pytest.mark.parametrize("bound", [0.25, 4.0])
def test_f_at_a_bound(make_run: MakeRun, bound: float) -> None:
    text, _ = told(make_run, [learned("a", 2, bound), learned("b", 4, 1.3, val=0.6)])
    assert f"The recommended f ended at its bound of {bound:g}" in text
    assert f"In 1 of 2 learned trials f ended at a bound ({bound:g}): a." in text


def planned(*dilations: int) -> dict[str, object]:
    """A run of two arms that was to train these dilations."""
    row = {"rf_px": 92, "share": 2.9, "flop": 1e12, "seconds": 30.0, "peak_bytes": 1}
    arms = [{"strategy": "exhaustive", "seed": 0}, {"strategy": "random", "seed": 0}]
    return {"forecast": [{"candidate": candidate(d), **row} for d in dilations], "arms": arms}


def test_one_distinguishable_candidate(make_run: MakeRun) -> None:
    text, _ = told(make_run, [record("a")], **planned(2))
    assert "The space holds one distinguishable candidate" in text


def test_only_one_candidate_scored(make_run: MakeRun) -> None:
    text, _ = told(make_run, [record("a"), record("b", 4, val=None, test=None, status="failed", cause="boom")])
    assert "Only one candidate was scored" in text
    assert "1 trial of 2 failed: boom." in text


@pytest.mark.parametrize(
    "changes", [planned(1, 2), {**planned(1, 2), "arms": planned(1)["arms"][:1]}, planned(1, 2, 4)]
)
def test_the_space_is_spoken_of_only_after_a_whole_search_of_several_arms(make_run: MakeRun, changes) -> None:
    same_field = told(make_run, [record("a", 1, rf_px=99), record("b", 2, rf_px=99, val=0.5)], **changes)[0]
    assert "All 2 scored candidates have the same receptive field of 99 px" in same_field
    assert ("the space holds no other one" in same_field) == (changes == planned(1, 2))


def test_equal_scores(make_run: MakeRun) -> None:
    assert "this data cannot tell them apart" in told(make_run, [record("a", 1), record("b", 2)])[0]


def test_tie(make_run: MakeRun) -> None:
    text, verdict = told(make_run, [record("a", 2), record("b", 4, test=0.5), record("c", 1, val=0.1)])
    assert "1 other candidate reached the same validation score: a tie" in text
    assert verdict.best is not None
    assert verdict.best.trial == "a"


def test_best_at_the_edge_of_the_range(make_run: MakeRun) -> None:
    records = [record("a", 8), record("b", 2, val=0.5)]
    text, _ = told(make_run, records, **planned(2, 8))
    assert "The recommended dilation, 8 at conv6, is the largest that was searched" in text
    assert "that was searched" not in told(make_run, records, **planned(2, 4, 8))[0]


def test_best_at_the_lower_edge(make_run: MakeRun) -> None:
    text, _ = told(make_run, [record("a", 2), record("b", 8, val=0.5)], space={"dilations": [2, 8]}, **planned(2, 8))
    assert "The recommended dilation, 2 at conv6, is the smallest that was searched" in text


def test_dilation_one_has_nothing_below(make_run: MakeRun) -> None:
    text, _ = told(make_run, [record("a", 1), record("b", 8, val=0.5)], **planned(1, 8))
    assert "is 1, the smallest there is" in text


def test_inside_the_range_says_nothing_of_an_edge(make_run: MakeRun) -> None:
    assert "that was searched" not in told(make_run, sweep(), **planned(1, 2, 4))[0]


def test_largest_dilation_drawn_inwards_by_f_is_no_edge(make_run: MakeRun) -> None:
    text, _ = told(make_run, [learned("a", 8, 2.0, rf_px=120), record("b", 2, val=0.5)], **planned(2))
    assert "that was searched" not in text


def test_unfinished_run(make_run: MakeRun) -> None:
    text, _ = told(make_run, sweep(), open_trials=2)
    assert "This run is unfinished: 2 trials handed out without a result yet." in text


def test_nothing_at_all(make_run: MakeRun) -> None:
    text, verdict = told(make_run, [])
    assert text == "No trial has finished yet, so there is nothing to report."
    assert verdict.best is None
    assert verdict.setting is None


def test_nothing_scored(make_run: MakeRun) -> None:
    lost = [record(f"t{i}", val=None, test=None, status="failed", cause="NaN loss") for i in range(2)]
    text, verdict = told(make_run, [*lost, record("p", val=0.9, status="pruned")])
    assert "No trial was scored, so no receptive field won: 3 trials, 2 failed and 1 pruned." in text
    assert "The most frequent cause: NaN loss." in text
    assert verdict.best is None


def test_cut_winner_and_missing_test_are_reported(make_run: MakeRun) -> None:
    text, _ = told(make_run, [record("a", val=0.9, test=None, status="cut"), record("b", 4)])
    assert "Its training was cut by the end of the budget" in text
    assert "It has no test score" in text
    assert "It scored 0.900 on the validation images" in text


def test_no_test_split(make_run: MakeRun) -> None:
    text, _ = told(make_run, [record("a", test=None), record("b", 4, val=0.6, test=None)])
    assert "It scored 0.700 on the validation images" in text
    assert "which flatters it" in text


def test_setting_of_a_plain_dilation(make_run: MakeRun) -> None:
    _, verdict = told(make_run, sweep())
    assert verdict.setting == Setting(
        ("conv6: dilation 2",),
        "model.conv6.dilation = (2, 2)\nmodel.conv6.padding = tuple(2 * (k // 2) for k in model.conv6.kernel_size)",
        "The padding keeps the map's size for odd kernels.",
    )


def test_setting_of_a_learned_factor(make_run: MakeRun) -> None:
    _, verdict = told(make_run, [learned("a", 4, 0.73)])
    assert verdict.setting is not None
    assert verdict.setting.plain == (
        "conv6: dilation 4 behind a map inflated by f = 0.73; nearest plain dilation 5 (4 / 0.73 = 5.48)",
    )
    assert "# model.conv6.dilation = (5, 5)" in verdict.setting.code
    assert "it was not trained in this run" in verdict.setting.note


@pytest.mark.parametrize("ends", [Inflated(2, 0.708), Fractional(3.56), Dilated(3)])
def test_the_code_installs_what_is_recommended(make_run: MakeRun, ends: Choice) -> None:
    end = Candidate({"conv6": ends})
    run = make_run([replace(record("a"), candidate=end.to_json(), outcome=end.to_json())])
    setting = summarise(run).setting
    assert setting is not None
    wanted = wei_small(11)
    given = {"model": copy.deepcopy(wanted)}
    exec(setting.code, given)
    install(wanted, end, Settings())
    images = torch.randn(1, 3, 48, 48)
    assert torch.equal(given["model"].eval()(images), wanted.eval()(images))


def test_setting_quotes_the_plain_dilation_where_it_was_trained(make_run: MakeRun) -> None:
    _, verdict = told(make_run, [learned("a", 2, 0.5), record("b", 4, val=0.5, test=0.512)])
    assert verdict.setting is not None
    assert verdict.setting.note == (
        "The nearest plain dilation was trained in this run too: 0.500 on the validation images (what is recommended "
        "0.700), and 0.512 on the test images."
    )


def test_setting_of_several_sites(make_run: MakeRun) -> None:
    pair = Candidate({"layer4.2.conv2": Dilated(3), "head": Dilated(1)}).to_json()
    _, verdict = told(make_run, [record("a", candidate=pair)])
    assert verdict.setting is not None
    assert "model.head.dilation = (1, 1)" in verdict.setting.code
    assert "model.get_submodule('layer4.2.conv2').dilation = (3, 3)" in verdict.setting.code


def test_unknown_kind_of_choice_is_shown_as_it_is(make_run: MakeRun) -> None:
    odd = json.dumps({"conv6": {"gamma": 2.5}})
    _, verdict = told(make_run, [record("a", candidate=odd)])
    assert odd in verdict.headline
    assert verdict.setting is None


def test_bare_manifest(make_run: MakeRun) -> None:
    gone = dict.fromkeys(("space", "budget", "data", "arms", "versions", "machine", "request", "command"))
    run = make_run(sweep(), **gone)
    text = str(summarise(run))
    assert "Use dilation 2 at conv6 (92 px)." in text
    assert "1.00 TFLOP and 30.0 s of device time" in text


def test_verdict_as_json(make_run: MakeRun) -> None:
    _, verdict = told(make_run, sweep(cost=Cost(1.0, 2.0, 3.0)))
    body = json.loads(json.dumps(verdict.to_json()))
    assert body["best"]["trial"] == "t1"
    assert body["headline"] == verdict.headline


def test_what_several_searches_found_is_counted(make_run: MakeRun) -> None:
    searched = Candidate({"conv6": Searched(2)}).to_json()

    def found(number: int, dilation: int, **changes: object) -> Record:
        return record(
            f"t{number}",
            dilation,
            candidate=searched,
            ends={"conv6": dilation},
            train_seed=number,
            rf_init_px=1,
            **changes,
        )

    trials = [found(0, 4), found(1, 8, val=0.8), found(2, 4), found(3, 1, status="cut", val=0.1)]
    text, verdict = told(make_run, trials)
    assert "Of 3 trainings that searched the dilation themselves, 2 found 4 and 1 found 8." in text
    assert "moved there" not in verdict.headline
    assert "nothing to choose from" not in text


def test_a_real_dilation_is_offered_as_a_layer_and_counted_with_those_close_to_it(make_run: MakeRun) -> None:
    searched = Candidate({"conv6": Searched(2)}).to_json()
    trials = [
        record(f"t{number}", 2, candidate=searched, ends={"conv6": real}, train_seed=number, val=val, rf_init_px=1)
        for number, (real, val) in enumerate([(3.56, 0.9), (3.49987, 0.8), (8.0, 0.7), (4.2, 0.6)])
    ]
    text, verdict = told(make_run, trials)
    assert verdict.headline.startswith("Use dilation 3.56, found in training, at conv6 (")
    assert (
        "Of 4 trainings that searched the dilation themselves, 2 found 3.5 to 3.56, 1 found 4.2 and 1 found 8." in text
    )
    assert verdict.setting is not None
    assert verdict.setting.plain == ("conv6: dilation 3.56; nearest plain dilation 4",)
    assert verdict.setting.code.splitlines() == [
        "import rfsearch",
        "",
        "model = rfsearch.apply(model, {'conv6': {'dilation': 3.56, 'kind': 'fractional'}})",
        "",
        "# Without rfsearch, the nearest plain dilation:",
        "# model.conv6.dilation = (4, 4)",
        "# model.conv6.padding = tuple(4 * (k // 2) for k in model.conv6.kernel_size)",
    ]
    assert "about the MACs of a plain one, but can take longer" in verdict.setting.note
    assert "inflated" not in text


@pytest.mark.parametrize(
    ("seeds", "said"),
    [
        (4, "Of 20 trainings that searched the dilation themselves, 8 found 3 to 4.2, 8 found 9 to 10 and 4 found 12."),
        (1, "Of 5 trainings that searched the dilation themselves, 1 found 3, 1 found 4.2, 1 found 9, 1 found 10 and"),
    ],
)
def test_found_dilations_are_grouped_by_what_noise_can_tell_apart(make_run: MakeRun, seeds: int, said: str) -> None:
    """Neighbours that score alike are one group; of one training each nobody knows that."""
    searched = Candidate({"conv6": Searched(2)}).to_json()
    levels = {3.0: 0.70, 4.2: 0.705, 9.0: 0.5, 10.0: 0.498, 12.0: 0.7}
    trials = [
        record(
            f"t{real}-{seed}",
            2,
            candidate=searched,
            ends={"conv6": real},
            train_seed=round(10 * real) + 1000 * seed,
            val=level + (0.0, 0.012, -0.011, 0.006)[seed],
            rf_init_px=1,
        )
        for real, level in levels.items()
        for seed in range(seeds)
    ]
    assert said in told(make_run, trials)[0]


def test_a_training_that_two_arms_share_found_one_dilation(make_run: MakeRun) -> None:
    searched = Candidate({"conv6": Searched(2)}).to_json()
    finds = [(3.5, 0), (8.0, 1), (3.5, 0), (8.0, 1)]
    trials = [
        record(f"t{n}", 2, candidate=searched, ends={"conv6": real}, train_seed=seed, seed=n, rf_init_px=1)
        for n, (real, seed) in enumerate(finds)
    ]
    assert (
        "Of 2 trainings that searched the dilation themselves, 1 found 3.5 and 1 found 8." in told(make_run, trials)[0]
    )


def test_two_paths_that_were_found_are_reported_with_their_guidance_and_together(make_run: MakeRun) -> None:
    guided = SitePath(Searched(2), ("left eye", "nose"))
    searched = Candidate({"conv6": (guided, Searched(2))}).to_json()
    trials = [
        record(f"t{n}", 2, candidate=searched, ends={"conv6/1": one, "conv6/2": 4}, train_seed=n, val=val, rf_init_px=1)
        for n, (one, val) in enumerate([(8.47, 0.9), (1.9, 0.8), (2.1, 0.7)])
    ]
    text, verdict = told(make_run, trials)
    assert verdict.headline.startswith(
        "Use dilation 8.47, found in training, guided by left eye, nose, at conv6/1; "
        "dilation 4, found in training, at conv6/2 ("
    )
    assert "2 found 1.9 to 2.1 | 4 and 1 found 8.47 | 4." in text


def test_one_search_is_not_counted(make_run: MakeRun) -> None:
    searched = Candidate({"conv6": Searched(2)}).to_json()
    text, _ = told(make_run, [*sweep(), record("t3", 4, val=0.8, candidate=searched, ends={"conv6": 4})])
    assert "searched the dilation" not in text


def test_a_dilation_found_in_training_is_reported_as_found(make_run: MakeRun) -> None:
    """Started at 2 and ended at 8, the largest of the space: no inflation anywhere."""
    searched = Candidate({"conv6": Searched(2)}).to_json()
    text, verdict = told(
        make_run,
        [*sweep(), record("t3", 2, val=0.8, test=0.8, candidate=searched, ends={"conv6": 8})],
        **planned(1, 2, 4),
    )
    assert verdict.headline.startswith("Use dilation 8, found in training, at conv6 (")
    assert verdict.setting is not None
    assert "model.conv6.dilation = (8, 8)" in verdict.setting.code
    assert "The recommended dilation, 8 at conv6, is the largest that was searched" in text
    assert "inflated" not in text
    assert "bound" not in text


@pytest.mark.parametrize(
    ("found", "headline"),
    [
        ({"conv6": 8}, "Use dilation 8 with layer dcls, found in training from 2, at conv6 ("),
        ({}, "Use dilation 2 with layer dcls at conv6 ("),
    ],
)
def test_a_layer_is_reported_with_what_it_found(make_run: MakeRun, found: dict[str, float], headline: str) -> None:
    """No plain dilation stands in for it, so the trained network is what is offered."""
    layer = Candidate({"conv6": Guest(2, "peers.dcls:dcls")}).to_json()
    text, verdict = told(make_run, [*sweep(), record("t3", 2, val=0.8, test=0.8, candidate=layer, ends=found)])
    assert verdict.headline.startswith(headline)
    assert verdict.setting is not None
    assert verdict.setting.plain == (f"conv6: dilation {8 if found else 2}, with the layer peers.dcls:dcls",)
    assert "trained(" in verdict.setting.code
    assert "inflated" not in text
    assert "bound" not in text


def heirs() -> list[Record]:
    """A sweep, and a population of which two end at the hand default's dilation, one of them best of all."""
    stretch = {"strategy": "pbt", "cost": Cost(0.25e12, 8.0, 1.0), "forecast": None}
    return [
        *sweep(),
        record("p0", 8, val=0.5, test=None, **{**stretch, "status": "pruned"}),
        record("p1", 1, val=0.9, test=0.8, heir_of="p0", train_seed=5, **stretch),
        record("p2", 1, val=0.8, test=0.2, heir_of="p0", train_seed=6, **stretch),
    ]


def test_what_heirs_end_with_is_no_training_of_the_hand_default_nor_a_repeat(make_run: MakeRun) -> None:
    text, verdict = told(make_run, heirs())
    assert verdict.headline.startswith("Use dilation 1, reached over several trials, at conv6 (")
    assert "The hand default (dilation 1 at conv6, 76 px) reached 0.610: the recommended one is 0.19 better." in text
    assert "Keep the hand default" not in text
    assert "none was repeated with another seed" in text
    assert "Its training, on from p0, cost 250 GFLOP" in text
