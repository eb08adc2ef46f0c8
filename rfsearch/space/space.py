"""A space: what may vary in a search (its model, sites and choices), and what must not (task, data and recipe)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, Self

from pydantic import Field, field_validator, model_validator

from rfsearch.choices import Candidate, Choice, Dilated, Given, Sampled
from rfsearch.direction import Direction
from rfsearch.errors import SpaceError, nearest
from rfsearch.space.choices import SpaceChoice
from rfsearch.space.data_spec import DataSpec
from rfsearch.space.forms import LSDFN, PATHS, SINGLE, PathSet, SamplingSpec
from rfsearch.space.objectives import SCORE, check_objectives
from rfsearch.space.recipe import Recipe
from rfsearch.space.table import Dilation, Side, Table
from rfsearch.space.task_spec import TaskSpec, with_task_table


class SearchSpace(Table):
    """Say what may vary in a search, whoever trains: all that a strategy sees.

    Args:
        name: Of the space.
        title: What it is about.
        cite: Papers that it follows.
        source: Its file.
        preset: Which preset of the file this is.
        backbone: SPEC of the network.
        sites: Modules whose receptive field is searched; none: those that are proposed for the network.
        dilations: What a site may get, and where learned factors start.
        choices: What a site with one path may get besides, each as a ledger writes it, such as
            {kind = "kernel", size = 5}.
        reference: The hand default, whose one full training is the budget unit 1x.
        f_bounds: Of a learned f.
        f_search: Of a fixed real f in Bayesian and random search.
        f_starts: Dilations that a learned f starts from, by form; where a form is not named, all.
        strategies: Which compete where none are asked for; none: those that suit the form.
        budget: Of each arm.
        form: What a site gets: "single", one path; a name of `paths`, several in parallel; "lsdfn", an LS-DFN block.
        paths: Parallel paths by the name of their form.
        sampling: What an LS-DFN block may be.
        direction: Whether a higher or a lower score is the better one; the task says so once the data is known.
        objectives: What a search goes by: "val", and costs that are to be low; see `rfsearch.space.objectives`.
        kinds: JSON of candidates of a site called "site": what each site may get where a cost is an objective and the
            network is known. Empty: everything that the space knows.
    """

    reopener: ClassVar[str]
    """SPEC of what makes the plan of an earlier run of such a space."""

    name: str
    title: str
    cite: str
    source: str
    preset: str
    backbone: str
    sites: tuple[str, ...]
    dilations: tuple[Dilation, ...] = Field(min_length=1)
    reference: Dilation
    choices: tuple[SpaceChoice, ...] = ()
    f_bounds: tuple[float, float]
    f_search: tuple[float, float]
    f_starts: dict[str, tuple[Dilation, ...]] = Field(default={})
    strategies: tuple[str, ...] = ()
    budget: str
    form: str = SINGLE
    paths: dict[str, PathSet] = PATHS
    sampling: SamplingSpec = SamplingSpec()
    direction: Direction = "maximize"
    objectives: tuple[str, ...] = (SCORE,)
    kinds: tuple[str, ...] = ()

    @field_validator("objectives")
    @classmethod
    def _are_objectives(cls, names: tuple[str, ...]) -> tuple[str, ...]:
        try:
            return check_objectives(names)
        except SpaceError as error:
            raise ValueError(str(error).rstrip(".")) from error

    @property
    def costs(self) -> tuple[str, ...]:
        """The objectives beside the score: fields of a record, each to be low."""
        return tuple(name for name in self.objectives if name != SCORE)

    def uniform(self, given: Given) -> Candidate:
        """Return the candidate that gives every site the same choice, or the same parallel paths."""
        return Candidate(dict.fromkeys(self.sites, given))

    @property
    def options(self) -> tuple[Choice, ...]:
        """What a site with one path may get: the dilations, then the choices that the space lists besides."""
        return tuple(dict.fromkeys([*map(Dilated, self.dilations), *self.choices]))

    @property
    def starts(self) -> tuple[int, ...]:
        """Return the dilations that a learned f starts from in this form."""
        named = self.f_starts.get(self.form, self.dilations)
        return tuple(d for d in self.dilations if d in named) or self.dilations

    @property
    def reference_candidate(self) -> Candidate:
        """Return the hand default of a single path: one full training of it is the budget unit 1x in every form."""
        return self.uniform(Dilated(self.reference))

    @property
    def default_candidate(self) -> Candidate:
        """Return the hand default of this form."""
        if self.path_set:
            return self.uniform([Dilated(d) for d in sorted(self.path_set.manual)])
        if self.form == LSDFN:
            return self.uniform(self.sampled(self.sampling.gammas[0], max(self.sampling.regions)))
        return self.reference_candidate

    @property
    def path_set(self) -> PathSet | None:
        """Return the parallel paths of this form, None where a site has one path."""
        return self.paths.get(self.form)

    def sampled(self, gamma: float, s: int, learned: bool = False) -> Sampled:
        """Return an LS-DFN block behind a site at the hand default's dilation.

        Args:
            gamma: Sample stride, px; of no effect where s is 1, which samples no neighbour.
            s: Regions an axis.
            learned: Whether training moves gamma.
        """
        return Sampled(self.reference, gamma if s > 1 else 1.0, s, learned and s > 1)

    @property
    def layer_options(self) -> Mapping[str, Any]:
        """What else surgery needs, besides what stands here; see `rfsearch.surgery.Settings`."""
        return {}

    @property
    def looks(self) -> bool:
        """Whether trainings can look at how good their network is with each dilation, and so find one."""
        return True

    @property
    def forms(self) -> tuple[str, ...]:
        """Return what a site can get."""
        return (SINGLE, *self.paths, LSDFN)

    def with_form(self, form: str) -> Self:
        """Return this space with another form, and without the strategies that were named for the one it had."""
        if form not in self.forms:
            raise SpaceError(f"a site gets one of {', '.join(self.forms)}. Got {form!r}.{nearest(form, self.forms)}")
        return self.with_(form=form, strategies=self.strategies if form == self.form else ())

    def with_path_count(self, count: int) -> Self:
        """Return this space with that many parallel paths."""
        forms = {1: SINGLE} | {len(paths.manual): name for name, paths in self.paths.items()}
        if count not in forms:
            known = sorted(forms)
            closest = min(known, key=lambda n: abs(n - count))
            raise SpaceError(
                f"--paths is one of {', '.join(map(str, known))} in space {self.name!r}. Got {count}. "
                f"Nearest: {closest}. More are added to its file as a table [paths.NAME]."
            )
        return self.with_form(forms[count])

    def with_(self, **changes: Any) -> Self:
        """Return this space with some fields replaced."""
        return self.model_copy(update={key: value for key, value in changes.items() if value is not None})


class Space(SearchSpace):
    """Add to what may vary what must not: one preset of a space file, resolved.

    Args:
        task: What its networks are trained and scored for.
        data: Where its images come from.
        weights: "none", "hub" (ImageNet's, for VGG-16's features), "zoo:NAME" (a zoo's of its network), or the
            file of a state dict for any backbone.
        image_size: H x W px. None: as the data has it.
        recipe: How every candidate is trained.
    """

    reopener: ClassVar[str] = "rfsearch.planning.directory:reopen_images"

    task: TaskSpec
    data: DataSpec
    weights: str
    image_size: tuple[Side, Side] | None
    recipe: Recipe

    @model_validator(mode="before")
    @classmethod
    def _has_a_task_table(cls, body: Any) -> Any:
        return with_task_table(body, recorded=True)

    @property
    def layer_options(self) -> Mapping[str, Any]:
        recipe = self.recipe
        return {
            "normalisation": recipe.normalisation,
            "border": recipe.border,
            "guidance_weight": recipe.guidance_weight,
            "f_background": recipe.f_background,
        }
