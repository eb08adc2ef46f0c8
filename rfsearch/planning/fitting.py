"""Which sites and dilations of a space fit its network and data, and whether candidates can be trained on them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TypeVar

from torch import nn

from rfsearch import plugins
from rfsearch.backbones.weights import load_weights
from rfsearch.choices import Candidate
from rfsearch.data import ImageSet
from rfsearch.errors import ModelError, SpaceError
from rfsearch.lazy import give_sizes
from rfsearch.planning.proposals import with_proposed_sites
from rfsearch.receptive import trace_model
from rfsearch.space import SearchSpace, Space
from rfsearch.surgery import Site, check_fits, check_labels, match_sites, measure_sites, neutral
from rfsearch.surgery.places import convolutions
from rfsearch.surgery.refused import refused_dilations
from rfsearch.tasks.base import Task
from rfsearch.training import settings_of
from rfsearch.training.batches import training_size
from rfsearch.training.network import build_network

AnySpace = TypeVar("AnySpace", bound=SearchSpace)


@dataclass(frozen=True)
class Fitted:
    """Hold a space that fits its network and data.

    Attributes:
        space: The space, with names of sites for their patterns.
        model: Its network, with no site changed.
        sites: Its sites, measured.
        task: Its task.
        data: Its data.
        notices: What a reader must know, one sentence each.
    """

    space: Space
    model: nn.Module
    sites: tuple[Site, ...]
    task: Task[object]
    data: ImageSet
    notices: tuple[str, ...]

    def check(self, candidates: Sequence[Candidate]) -> None:
        """Check that candidates can be trained on the network and the data.

        Raises:
            SpaceError: A site has no room for a candidate, or the data lacks its labels.
            ModelError: A layer is not available or does not fit in its convolution's place.
        """
        space, data = self.space, self.data
        check_candidates(space, self.sites, self.model, data.input_shape, candidates)
        settings = settings_of(space, data.classes)
        # An ignored id is no class that a path could be guided by, or a background.
        labelled = tuple(name for i, name in enumerate(data.classes) if i != data.ignore_index)
        for candidate in candidates:
            check_labels(candidate, replace(settings, classes=labelled))
        # An installer sees only its own site, so a choice is tried once per site, in however many candidates.
        at_a_site = {Candidate({site: paths}): None for candidate in candidates for site, paths in candidate.sites}
        for alone in at_a_site:
            if any(path.choice.tells_when_installed for _, path in alone):
                build_network(space.with_(weights="none"), self.task, data, alone)


def check_candidates(
    space: SearchSpace,
    sites: Sequence[Site],
    model: nn.Module,
    input_shape: Sequence[int],
    candidates: Sequence[Candidate],
) -> None:
    """Check that a network has room for the dilations of candidates.

    Args:
        space: Asks for them.
        sites: Its sites, measured.
        model: The network, with no site changed.
        input_shape: 1 x C x its axes, of an image.
        candidates: The candidates.

    Raises:
        SpaceError: A site has no room for one.
    """
    check_fits(sites, candidates, f"{space.source}, preset {space.preset}", space.sampling.kernel)
    dilations_at: dict[str, set[int]] = {}
    for candidate in candidates:
        for site, paths in candidate.sites:
            dilations_at.setdefault(site, set()).update(d for path in paths for d in path.choice.dilations)
    wanted = {site: sorted(dilations) for site, dilations in dilations_at.items()}
    for site, reasons in refused_dilations(model, input_shape, wanted).items():
        dilation, reason = next(iter(reasons.items()))
        taken = ", ".join(str(d) for d in wanted[site] if d not in reasons) or "none of those asked for"
        raise SpaceError(
            f"{site}: dilation {dilation} does not fit into the network: {reason}. Dilations that it takes: "
            f"{taken}. Asked for by {space.source}, preset {space.preset}."
        )


def fit_space(space: Space, task: Task[object], data: ImageSet, adapt: bool, propose: bool = False) -> Fitted:
    """Build the network of a space, and find the sites and dilations of the space that fit it.

    Args:
        space: The space.
        task: Its task.
        data: Its data.
        adapt: Leave out sites and dilations that do not fit, because they were chosen for another network or other
            sites. Otherwise the space is taken as it is.
        propose: Propose sites where the network has none of the space's.

    Raises:
        ModelError: The network cannot be built.
        SpaceError: No site fits.
    """
    model, weights, notices = _network(space, task, data)
    shown = training_size(space.recipe, data)
    if any(part > whole for part, whole in zip(shown, data.image_size, strict=True)):
        raise SpaceError(
            f"{space.source}, preset {space.preset}: crop = {list(shown)} (H x W) is larger than the images. Largest: "
            f"{list(data.image_size)}."
        )
    smallest = (*data.input_shape[:2], *shown)
    space, sites, said = fit_sites(space.with_(weights=weights), model, data.input_shape, adapt, propose, smallest)
    return Fitted(space, model, sites, task, data, (*notices, *said))


def fit_sites(
    space: AnySpace,
    model: nn.Module,
    input_shape: Sequence[int],
    adapt: bool,
    propose: bool,
    smallest: Sequence[int] = (),
    others: str = "",
) -> tuple[AnySpace, tuple[Site, ...], list[str]]:
    """Find the sites and dilations of a space that fit a network; for `adapt` and `propose` see `fit_space`.

    Args:
        space: The space.
        model: The network.
        input_shape: 1 x C x its axes, of an image.
        adapt: Whether to leave out what does not fit.
        propose: Whether to propose sites.
        smallest: The shape that decides what fits, where a training sees parts of images.
        others: How to list sites other than proposed ones; see `with_proposed_sites`.

    Returns:
        The space, with names of sites for their patterns; its sites, measured; and what a reader must know, one
        sentence each.
    """
    notices = []
    if propose and not _has_sites(model, space.sites):
        space, proposed = with_proposed_sites(space, model, input_shape, others)
        notices.append(proposed)
    space = space.with_(sites=match_sites(model, space.sites))
    if adapt:
        space, left_out = _with_reached_sites(space, model, input_shape)
        notices += left_out
    sites = tuple(measure_sites(model, space.sites, (smallest or input_shape)[2:], input_shape[1]))
    if adapt:
        space, changed = _with_fitting_dilations(space, model, sites, input_shape)
        notices += changed
    return space, sites, notices


def _network(space: Space, task: Task[object], data: ImageSet) -> tuple[nn.Module, str, list[str]]:
    """Build the network of a space.

    Returns:
        The network; the weights that were available, "none" if it trains from scratch; and what a reader must know, one
        sentence each.
    """
    model = plugins.make_backbone(space.backbone, task.out_channels, task.in_channels)
    give_sizes(model, data.input_shape)
    notices = [data.notice] if data.notice else []
    if space.weights == "none":
        return model, "none", [*notices, f"Backbone {space.backbone}: trains from scratch."]
    trained = load_weights(model, space.weights, space.backbone)
    weights = space.weights if trained.names else "none"
    return model, weights, [*notices, f"Backbone {space.backbone}: {trained.said}"]


def _has_sites(model: nn.Module, patterns: Sequence[str]) -> bool:
    """Check whether a network has the sites that a space names, if it names any."""
    try:
        return bool(match_sites(model, patterns))
    except (ModelError, SpaceError):
        return False


def _with_reached_sites(space: AnySpace, model: nn.Module, input_shape: Sequence[int]) -> tuple[AnySpace, list[str]]:
    """Leave out the sites that a network's output does not depend on, such as those of an auxiliary output.

    Returns:
        The space, and what was left out, one sentence each.
    """
    needed = trace_model(model, input_shape).needed
    names = {module: path for path, module in model.named_modules()}
    reaching = [site for site in space.sites if any(names[conv] in needed for conv in convolutions(model, site))]
    if not reaching:
        raise SpaceError(f"{', '.join(space.sites)}: the network's output depends on none of these. Name other sites.")
    left_out = [site for site in space.sites if site not in reaching]
    notices = [f"Left out, since the output does not depend on them: {', '.join(left_out)}."] if left_out else []
    return space.with_(sites=tuple(reaching)), notices


def _with_fitting_dilations(
    space: AnySpace, model: nn.Module, sites: Sequence[Site], input_shape: Sequence[int]
) -> tuple[AnySpace, list[str]]:
    """Fit dilations that were chosen for another network or other sites to this one.

    Those that do not fit are left out, and the hand default becomes the network as it is.

    Returns:
        The space, and what was changed, one sentence each.
    """
    largest = min(site.largest_dilation for site in sites)
    try:
        own = {path.choice.dilations[0] for _, path in neutral(model, space.sites)}
    except SpaceError:  # a dilation that differs between axes is no choice
        own = set()
    reference = own.pop() if len(own) == 1 and max(own) <= largest else 1
    fitting, notices = {d for d in space.dilations if d <= largest} | {reference}, []
    if left_out := [str(d) for d in space.dilations if d > largest]:
        added = f"the largest that fits, {largest}, is tried instead"
        already = f"the largest that fits is {largest}"
        instead, fitting = (already if largest in fitting else added), fitting | {largest}
        tightest = min(sites, key=lambda site: site.largest_dilation)
        size = " x ".join(map(str, tightest.map_size))
        notices.append(
            f"Left out, since their kernels are longer than the map of {tightest.path} ({size} px): dilations "
            f"{', '.join(left_out)}; {instead}."
        )
    refused = refused_dilations(model, input_shape, {site: sorted(fitting - {reference}) for site in space.sites})
    for site, reasons in refused.items():
        first = next(iter(reasons))
        notices.append(f"Left out for {site}: dilations {', '.join(map(str, reasons))}. At {first} {reasons[first]}.")
        fitting -= reasons.keys()
    if reference != space.reference:
        notices.append(f"Hand default: dilation {reference}, the network as it stands.")
    return space.with_(dilations=tuple(sorted(fitting)), reference=reference), notices
