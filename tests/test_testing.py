"""The suites for plugin authors: what ships passes them, and each kind of broken plugin fails just the check meant."""

import copy
import math
import random
import time
from dataclasses import replace

import numpy as np
import pytest
import torch
from pydantic import ConfigDict, Field
from torch import nn

from rfsearch import plugins, testing
from rfsearch.backbones.small import wei_small
from rfsearch.data import IGNORE, Folder, Layout, rendered_faces
from rfsearch.errors import DataError
from rfsearch.outputs import main_output
from rfsearch.space import Candidate, Choice, read_space
from rfsearch.strategies import Description, Exhausted, Heir
from rfsearch.strategies.bayesian import Bayesian
from rfsearch.strategies.exhaustive import Exhaustive
from rfsearch.strategies.random import RandomSearch
from rfsearch.tasks.metrics import METRICS
from rfsearch.tasks.segmentation import Scores, Segmentation
from tests.data.test_folder_kinds import put
from tests.toys import toy_file

SPACE = read_space(plugins.space_file("helen"), None)


def failures(checks, *arguments) -> dict[str, str]:
    """Which checks a plugin fails, and what they say."""
    found = {}
    for check in checks:
        try:
            check(*arguments)
        except AssertionError as error:
            found[check.__name__] = str(error)
    return found


def by_name(check) -> str:
    return check.__name__


# --- what ships ---


@pytest.mark.parametrize("check", testing.BACKBONE_CHECKS, ids=by_name)
@pytest.mark.parametrize("name", [name for name in plugins.names("backbones") if name.endswith("small")])
def test_every_small_backbone_passes(check, name):
    torch.manual_seed(0)
    check(plugins.backbone(name))


@pytest.mark.parametrize("check", testing.TASK_CHECKS, ids=by_name)
@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize("name", plugins.names("tasks"))
def test_every_task_passes(check, metric, name):
    check(plugins.load("tasks", name), metric)


@pytest.mark.parametrize("check", testing.SPACE_CHECKS, ids=by_name)
@pytest.mark.parametrize("name", plugins.names("spaces"))
def test_every_space_passes(check, name):
    check(plugins.space_file(name))


# --- broken strategies ---


class _Broken(RandomSearch):
    """Random search, to be broken in one place."""

    def __init__(self, space, seed):
        super().__init__(space, seed)
        self.space, self.asked, self.told = space, 0, []


class _Unseeded(_Broken):
    def suggest(self, pending):
        return self.space.uniform(Choice(random.choice(self.space.dilations)))


class _Counting(_Broken):
    def suggest(self, pending):
        self.asked += 1
        return self.space.uniform(Choice(self.space.dilations[self.asked % len(self.space.dilations)]))


class _OutOfSpace(_Broken):
    def suggest(self, pending):
        return self.space.uniform(Choice(1000))


class _OutOfBounds(_Broken):
    def suggest(self, pending):
        return self.space.uniform(Choice(self.space.reference, f=3.0))


class _ForgetsASite(_Broken):
    def suggest(self, pending):
        return Candidate.of({self.space.sites[0]: Choice(self.space.reference)})


class _OnePathTooMany(_Broken):
    def suggest(self, pending):
        return self.space.uniform([Choice(self.space.reference)] * 2)


class _GivesADict(_Broken):
    def suggest(self, pending):
        return {"conv6": 2}


class _HeirOfAStranger(_Broken):
    def suggest(self, pending):
        return Heir(super().suggest(pending), "nobody")


class _NeverBegins(_Broken):
    def suggest(self, pending):
        return Exhausted("nothing to do")


class _GivesUpInSilence(_Broken):
    def suggest(self, pending):
        return super().suggest(pending) if not self.told else Exhausted("")

    def observe(self, record):
        self.told.append(record)


class _TrustsEveryScore(_Broken):
    def observe(self, record):
        super().observe(record)
        self.told.append(1 / record.val)


class _StopsAtNan(_Broken):
    def observe(self, record):
        super().observe(record)
        if record.val is not None:
            self.told.append(int(record.val))


class _EatsThePending(_Broken):
    def suggest(self, pending):
        answer = super().suggest(pending)
        if pending:
            pending.pop()
        return answer


class _RemembersItsOwnSuggestions(_Broken):
    """Keeps what it suggested rather than what it is told: a replayed ledger leaves it at the start."""

    def observe(self, record):
        if self.told and self.told[-1] == record.candidate:
            super().observe(record)

    def suggest(self, pending):
        answer = super().suggest(pending)
        self.told = [answer.to_json()]
        return answer


class _DescribesAnotherStart(_Broken):
    def describe(self):
        return Description((self.space.uniform(Choice(self.space.dilations[-1])),))


class _DescribesAList(_Broken):
    def describe(self):
        return [self.space.default_candidate]


class _DescribesNoCandidate(_Broken):
    def describe(self):
        return Description(("conv6",))


class _DescribesWhatIsNotInTheSpace(_Broken):
    def describe(self):
        return Description((self.space.default_candidate, self.space.uniform(Choice(1000))))


class _MovesOnByDescribing(_Broken):
    def describe(self):
        self.asked += 1
        return Description((self.space.default_candidate,), draws=f"draw {self.asked}")


class _LearnsByBeingAskedToPrune(Bayesian):
    def prune(self, candidate, rungs):
        self._seed += 1
        return False


class _PrunesMaybe(Bayesian):
    def prune(self, candidate, rungs):
        return "maybe"


DESCRIBED = "strategy_describes_what_it_tries_first"
IN_THE_SPACE = "strategy_suggests_candidates_of_the_space"
BROKEN_STRATEGIES = [
    (_Unseeded, "strategy_repeats_itself", "same seed and the same records"),
    (_Counting, "strategy_suggests_without_changing_its_state", "suggest changes no state"),
    (_OutOfSpace, IN_THE_SPACE, r"a dilation is one of the space's, \[1, 2, 3, 4, 6, 8, 11\]. conv6 got 1000"),
    (_OutOfBounds, IN_THE_SPACE, r"f is within the space's f_search, \[0.7, 1.4\]. conv6 got 3"),
    (_OnePathTooMany, IN_THE_SPACE, r"a site has 1 path\(s\) in the form 'single'. conv6 has 2"),
    (_GivesADict, IN_THE_SPACE, r"suggest gives a Candidate, an Heir or Exhausted. Got {'conv6': 2}"),
    (_HeirOfAStranger, IN_THE_SPACE, "an heir is of a trial that the strategy awaits one of, .* Got Heir"),
    (_NeverBegins, IN_THE_SPACE, "told nothing yet has something to try"),
    (_NeverBegins, "strategy_takes_pending_trials_into_account", "told nothing yet has something to try"),
    (_GivesUpInSilence, "strategy_survives_every_outcome", "Exhausted says why"),
    (_EatsThePending, "strategy_takes_pending_trials_into_account", "leaves the list of pending"),
    (_RemembersItsOwnSuggestions, "strategy_resumes_by_replaying_records", "told the records of a run"),
    (_DescribesAnotherStart, DESCRIBED, "the first suggestion is described. Got conv6: d=1, which is not"),
    (_DescribesAList, DESCRIBED, r"describe gives a Description. Got \[Candidate"),
    (_DescribesNoCandidate, DESCRIBED, "described candidates are Candidates. Got 'conv6'"),
    (_DescribesWhatIsNotInTheSpace, DESCRIBED, "a dilation is one of the space's, .* conv6 got 1000"),
    (_MovesOnByDescribing, DESCRIBED, "the same description when it is asked again"),
    (_LearnsByBeingAskedToPrune, "strategy_prunes_without_changing_its_state", "prune changes no state"),
    (_PrunesMaybe, "strategy_prunes_without_changing_its_state", "True or False. Got 'maybe'"),
]


@pytest.mark.parametrize(("strategy", "check", "message"), BROKEN_STRATEGIES, ids=lambda value: str(value)[:60])
def test_a_broken_strategy_fails(strategy, check, message):
    with pytest.raises(AssertionError, match=message):
        getattr(testing, check)(strategy, SPACE)


def test_a_candidate_without_all_sites_fails():
    space = SPACE.with_(sites=("a", "b"))
    with pytest.raises(AssertionError, match=r"names every site of the space once, \['a', 'b'\]. Got \['a'\]"):
        testing.strategy_suggests_candidates_of_the_space(_ForgetsASite, space)


def test_a_sampling_outside_the_form_or_the_bounds_fails():
    class Samples(_Broken):
        def suggest(self, pending):
            return self.space.uniform(self.space.sampled(99.0, 5))

    with pytest.raises(AssertionError, match="gets an LS-DFN block in the form 'lsdfn' and in no other"):
        testing.strategy_suggests_candidates_of_the_space(Samples, SPACE)
    with pytest.raises(AssertionError, match=r"gamma is within the space's bounds, \[0.25, 16\]. conv6 got 99"):
        testing.strategy_suggests_candidates_of_the_space(Samples, SPACE.with_form("lsdfn"))


@pytest.mark.parametrize(("strategy", "raised"), [(_TrustsEveryScore, TypeError), (_StopsAtNan, ValueError)])
def test_a_strategy_that_a_failed_or_diverged_trial_stops_fails(strategy, raised):
    with pytest.raises(raised):
        testing.strategy_survives_every_outcome(strategy, SPACE)


def test_a_strategy_without_pruning_has_nothing_to_prove_there():
    testing.strategy_prunes_without_changing_its_state(Exhaustive, SPACE)


# --- broken backbones ---


class _Net(nn.Module):
    """A small sound network, to be broken in one place."""

    def __init__(self, num_classes, in_channels=3):
        super().__init__()
        self.conv = nn.Conv2d(in_channels, 8, 3, 2, 1)
        self.bn = nn.BatchNorm2d(8)
        self.output = nn.Conv2d(8, num_classes, 1)

    def forward(self, image):
        return self.output(torch.relu(self.bn(self.conv(image))))


class _ThreeChannels(_Net):
    def __init__(self, num_classes, in_channels=3):
        super().__init__(num_classes, 3)


class _NoDefault(_Net):
    def __init__(self, num_classes, in_channels):
        super().__init__(num_classes, in_channels)


class _TwentyOne(_Net):
    def __init__(self, num_classes, in_channels=3):
        super().__init__(21, in_channels)


class _Tuple(_Net):
    def forward(self, image):
        return len(image), super().forward(image)


class _EvenSides(_Net):
    def forward(self, image):
        assert image.shape[-1] % 2 == 0
        return super().forward(image)


class _Enlarges(_Net):
    def forward(self, image):
        return nn.functional.interpolate(super().forward(image), scale_factor=4)


class _Infinite(_Net):
    def forward(self, image):
        return super().forward(image) / 0


class _DropoutAlways(_Net):
    def forward(self, image):
        return nn.functional.dropout(super().forward(image), 0.5, training=True)


class _CountsInEvaluation(_Net):
    def __init__(self, num_classes, in_channels=3):
        super().__init__(num_classes, in_channels)
        self.register_buffer("seen", torch.zeros(()))

    def forward(self, image):
        self.seen += 1
        return super().forward(image)


class _BatchStatistics(_Net):
    def forward(self, image):
        logits = super().forward(image)
        return logits - logits.mean(dim=(0, 2, 3), keepdim=True)


class _Detached(_Net):
    def forward(self, image):
        return self.output(torch.relu(self.bn(self.conv(image))).detach())


class _NanGradient(_Net):
    def forward(self, image):
        return super().forward(image) + torch.sqrt(0 * self.output.bias.sum())


class _HidesAWeight(_Net):
    """Holds a weight that its state dict does not."""

    def __init__(self, num_classes, in_channels=3):
        super().__init__(num_classes, in_channels)
        self.hidden = [torch.randn(1, num_classes, 1, 1)]

    def forward(self, image):
        return super().forward(image) + self.hidden[0]


class _SharedWhenCopied(_Net):
    def __deepcopy__(self, memo):
        return self


class _OwnGenerator(_Net):
    def __init__(self, num_classes, in_channels=3):
        super().__init__(num_classes, in_channels)
        nn.init.constant_(self.output.bias, random.SystemRandom().random())


class _BranchesOnAValue(_Net):
    def forward(self, image):
        logits = super().forward(image)
        return logits if logits.mean().item() < 1e9 else 2 * logits


ANY_SIZE = "backbone_takes_images_of_any_size"
COPIED = "backbone_can_be_copied_and_restored"
BROKEN_BACKBONES = [
    (_ThreeChannels, "backbone_builds_for_any_classes_and_channels", r"takes images of \(2, 1, 96, 128\)"),
    (_NoDefault, "backbone_builds_for_any_classes_and_channels", r"builds for \(num_classes, in_channels=3\)"),
    (_TwentyOne, "backbone_builds_for_any_classes_and_channels", "2 x 2 x h x w. Got Tensor of shape 2 x 21"),
    (_Tuple, ANY_SIZE, "Got a tuple of 2"),
    (_EvenSides, ANY_SIZE, r"takes images of \(1, 3, 97, 131\)"),
    (_Enlarges, ANY_SIZE, "no larger than the image, 96 x 128 px. Got 192 x 256"),
    (_Infinite, ANY_SIZE, "are finite"),
    (_OwnGenerator, "backbone_is_the_same_for_the_same_seed", "does not decide output.bias"),
    (_DropoutAlways, "backbone_is_deterministic_in_evaluation", "Got two answers"),
    (_CountsInEvaluation, "backbone_is_deterministic_in_evaluation", r"changed \['seen'\]"),
    (_BatchStatistics, "backbone_takes_each_image_for_itself", "do not depend on the others"),
    (_Detached, "backbone_lets_gradients_reach_every_parameter", r"None reaches \['conv.weight', 'conv.bias', 'bn"),
    (_NanGradient, "backbone_lets_gradients_reach_every_parameter", r"Those of \['output.bias'\] are not"),
    (_BranchesOnAValue, "backbone_can_be_forecast", "sizes depend on no value.*item"),
    (_HidesAWeight, COPIED, "restored from its state dict gives the logits of the original"),
    (_SharedWhenCopied, COPIED, "copied with copy.deepcopy has parameters of its own"),
]


def test_a_sound_backbone_passes_all():
    assert failures(testing.BACKBONE_CHECKS, _Net) == {}


@pytest.mark.parametrize(("backbone", "check", "message"), BROKEN_BACKBONES, ids=lambda value: str(value)[:60])
def test_a_broken_backbone_fails(backbone, check, message):
    with pytest.raises(AssertionError, match=message):
        getattr(testing, check)(backbone)


# --- broken tasks ---


class _Perturbed(Segmentation):
    """The task that ships, to be broken in one place."""


class _NanLoss(_Perturbed):
    def loss(self, logits, labels):
        return super().loss(logits, labels) * math.nan


class _LossADay(_Perturbed):
    def loss(self, logits, labels):
        return 0 * main_output(logits).sum() + 1


class _PicksByValue(_Perturbed):
    def loss(self, logits, labels):
        logits = self._at_label_size(logits, labels).permute(0, 2, 3, 1)
        return nn.functional.cross_entropy(logits[labels != IGNORE], labels[labels != IGNORE])


class _RewardsErrors(_Perturbed):
    def loss(self, logits, labels):
        return -super().loss(logits, labels)


class _TrainsOnIgnored(_Perturbed):
    def loss(self, logits, labels):
        return super().loss(logits, labels.where(labels != IGNORE, 0))


class _Percent(_Perturbed):
    def _summary(self, confusion):
        scores = super()._summary(confusion)
        return Scores(100 * scores.primary, {name: 100 * value for name, value in scores.all.items()})


class _HidesItsPrimary(_Perturbed):
    def _summary(self, confusion):
        return Scores(super()._summary(confusion).primary, {})


class _LowerIsBetter(_Perturbed):
    def _summary(self, confusion):
        scores = super()._summary(confusion)
        return Scores(1 - scores.primary, {name: 1 - value for name, value in scores.all.items()})


class _AveragesOverBatches(_Perturbed):
    def score(self, model, split, batch_size, device):
        whole = super().score(model, split, batch_size, device)
        value = whole.primary * (1 - 1 / (batch_size + 10)) if whole.primary < 1 else 1.0
        return Scores(value, {**whole.all, self.primary: value})


TRAINED, PREFERS, BEST = "task_loss_can_be_trained_with", "task_loss_prefers_the_truth", "task_scores_the_truth_best"
BROKEN_TASKS = [
    (_NanLoss, TRAINED, "a loss is one finite number. Got nan"),
    (_LossADay, TRAINED, "finite gradient in the logits, other than zero. Got 0 at most"),
    (_PicksByValue, "task_loss_can_be_forecast", r"no x\[mask\], no item"),
    (_RewardsErrors, PREFERS, "loss of the truth is less"),
    (_TrainsOnIgnored, PREFERS, "pixels labelled -100 do not enter"),
    (_Percent, BEST, r"scores lie in 0..1. Got {"),
    (_HidesItsPrimary, BEST, "primary score, f_classmean_pooled, is one of all scores"),
    (_LowerIsBetter, BEST, "the truth scores 1. Got"),
    (_AveragesOverBatches, BEST, "does not depend on how it is cut into batches"),
]


@pytest.mark.parametrize(("task", "check", "message"), BROKEN_TASKS, ids=lambda value: str(value)[:60])
def test_a_broken_task_fails(task, check, message):
    with pytest.raises(AssertionError, match=message):
        getattr(testing, check)(task, "helen-f")


# --- layouts, sound and broken ---


class _Drawn(Layout):
    """Rendered faces of a folder that has a file `faces`."""

    def read(self, root, size, *, cache=None, memory_limit_bytes=None):
        if not (root / "faces").is_file():
            raise DataError(f"{root}: there is no file faces.")
        return rendered_faces(3, 2, 0, size or (36, 48), seed=self.seed())

    def seed(self):
        return 0


class _ForgetsItsKey(_Drawn):
    key: int = Field(default=3, exclude=True)


class _TakesAnyKey(_Drawn):
    model_config = ConfigDict(extra="allow")


class _ShufflesImages(_Drawn):
    def seed(self):
        return random.getrandbits(30)


class _IgnoresTheSize(_Drawn):
    def read(self, root, size, **how):
        return super().read(root, None, **how)


class _UnknownIds(_Drawn):
    def read(self, root, size, **how):
        return replace(super().read(root, size, **how), classes=("a", "b"), flip_pairs=())


class _ValidatesOnTrainingImages(_Drawn):
    def read(self, root, size, **how):
        data = super().read(root, size, **how)
        return replace(data, splits={"train": data.splits["train"], "val": data.splits["train"]})


class _OtherImagesWhenMapped(_Drawn):
    def read(self, root, size, *, cache=None, memory_limit_bytes=None):
        return super().read(root, size) if memory_limit_bytes is None else rendered_faces(3, 2, 0, (36, 48), seed=1)


class _WritesBesideTheData(_Drawn):
    def read(self, root, size, **how):
        data = super().read(root, size, **how)
        (root / "index").write_text(str(time.time_ns()))
        return data


class _TrustsTheFolder(_Drawn):
    def read(self, root, size, **how):
        (root / "faces").read_text()
        return super().read(root, size, **how)


class _GivesADictOfArrays(_Drawn):
    def read(self, root, size, **how):
        return super().read(root, size, **how).splits


TABLE = "layout_is_a_table_of_keys"
TRAINABLE = "layout_reads_images_that_can_be_trained_on"
BROKEN_LAYOUTS = [
    (_ForgetsItsKey(key=4), TABLE, "survives JSON unchanged"),
    (_TakesAnyKey(), TABLE, "refuses a key that is none of its fields"),
    (_UnknownIds(), TRAINABLE, r"ids of the 2 classes, .* split train also holds \[2, "),
    (_ValidatesOnTrainingImages(), TRAINABLE, "no image is in two splits"),
    (_GivesADictOfArrays(), TRAINABLE, "read gives an ImageSet. Got dict"),
    (_ShufflesImages(), "layout_repeats_itself", "twice gives the same images"),
    (_IgnoresTheSize(), "layout_gives_the_size_that_is_asked_for", r"\(40, 56\). Got \(36, 48\)"),
    (_OtherImagesWhenMapped(), "layout_reads_alike_within_any_memory", "the memory limit changes no image"),
    (_WritesBesideTheData(), "layout_leaves_the_folder_alone", "reading changes no file"),
    (_TrustsTheFolder(), "layout_reports_a_folder_that_is_none_of_its_own", "is a DataError. Got FileNotFoundError"),
]


@pytest.fixture
def faces(tmp_path):
    (tmp_path / "faces").touch()
    return tmp_path


def test_a_sound_layout_passes_all(faces):
    assert failures(testing.LAYOUT_CHECKS, _Drawn(), faces) == {}


@pytest.mark.parametrize("check", testing.LAYOUT_CHECKS, ids=by_name)
def test_the_folder_layout_passes(check, tmp_path):
    for title in ("train", "val"):
        for name in ("0", "1"):
            put(
                tmp_path,
                title,
                f"{title}{name}",
                np.full((24, 32, 3), int(name), np.uint8),
                label=np.eye(24, 32, dtype=np.uint8),
            )
    check(Folder(), tmp_path)


@pytest.mark.parametrize(("layout", "check", "message"), BROKEN_LAYOUTS, ids=lambda value: str(value)[:60])
def test_a_broken_layout_fails(layout, check, message, faces):
    with pytest.raises(AssertionError, match=message):
        getattr(testing, check)(layout, faces)


# --- broken spaces ---

READ, SITES, FIT = (
    "space_file_can_be_read",
    "space_has_sites_in_its_backbones",
    "space_dilations_fit_its_embedded_images",
)
BROKEN_SPACES = [
    ('metric = "helen-f"', "", READ, r"1 fault\(s\):\n  line 1, metric: Field required"),
    ("[presets.mini]\n", "[presets.maxi]\n", READ, "fault|has no preset 'mini'"),
    ('backbone = "wei-small"', 'backbone = "wei-smal"', READ, "names a task and a backbone. unknown backbone"),
    ('title = "Toy', 'task = "segmentatoin"\ntitle = "Toy', READ, "unknown task 'segmentatoin'"),
    ('sites = ["conv6"]', 'sites = ["conv9"]', SITES, "names sites of its backbone.*'conv9'"),
    ("dilations = [1, 2, 4]", "dilations = [1, 2, 400]", FIT, "dilation 400.*Asked for by .*preset mini"),
]


@pytest.mark.parametrize("check", testing.SPACE_CHECKS, ids=by_name)
def test_a_sound_space_passes(check, tmp_path):
    check(toy_file(tmp_path))


@pytest.mark.parametrize(("old", "new", "check", "message"), BROKEN_SPACES, ids=lambda value: str(value)[:40])
def test_a_broken_space_fails(old, new, check, message, tmp_path):
    file = toy_file(tmp_path)
    text = file.read_text()
    assert old in text
    file.write_text(text.replace(old, new))
    with pytest.raises(AssertionError, match=message):
        getattr(testing, check)(file)


def test_the_suites_hold_every_check():
    """A check that no suite holds would never run."""
    for kind in ("strategy", "backbone", "task", "layout", "space"):
        suite = getattr(testing, f"{kind.upper()}_CHECKS")
        defined = [name for name in vars(testing) if name.startswith(f"{kind}_")]
        assert [check.__name__ for check in suite] == defined
        assert all(check.__doc__ for check in suite)


def test_a_copy_of_a_shipped_backbone_is_sound():
    assert failures(testing.BACKBONE_CHECKS, lambda *a: copy.deepcopy(wei_small(*a))) == {}
