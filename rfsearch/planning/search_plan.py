"""What is known of a run before anything is trained, whoever trains: in the built-in training or in a user's own."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Protocol

from torch import nn

from rfsearch.choices import Candidate
from rfsearch.data.object_sizes import ObjectSizes
from rfsearch.ledger import Budget, Cost, Request
from rfsearch.ledger.manifest import DataFacts, Network, SpaceFacts
from rfsearch.planning.entrants import Entrant, known_candidates
from rfsearch.planning.forecast import Forecast
from rfsearch.space import OwnSpace, Space
from rfsearch.strategies import Description
from rfsearch.surgery import Settings, Site
from rfsearch.training import Trainings

PLANNED_MOST = 100


class Forecasts(Protocol):
    """Forecast full trainings."""

    @property
    def flop_per_s(self) -> float:
        """FLOP per second of one worker in training."""

    def __call__(self, candidate: Candidate) -> Forecast:
        """Return the forecast of a candidate's full training.

        Raises:
            ModelError: The network fails with this candidate.
        """


@dataclass(frozen=True)
class SearchPlan(ABC):
    """Hold a request, resolved and checked: everything known before anything is trained.

    Reading it builds no strategy. A forecast is counted when it is first asked for.

    Attributes:
        request: What was asked for.
        space: The space that it means, fitted to its network.
        sites: The sites of the space, measured.
        entrants: The strategies that compete.
        descriptions: What each of them says of itself, by label.
        budget: Of each arm.
        reference_flop: Training FLOP of one full training of the reference candidate: what 1x means.
        forecaster: Gives the forecast of a candidate.
        notices: What a reader must know, one sentence each.
    """

    request: Request
    space: Space | OwnSpace
    sites: tuple[Site, ...]
    entrants: tuple[Entrant, ...]
    descriptions: Mapping[str, Description]
    budget: Budget
    reference_flop: float
    forecaster: Forecasts
    notices: tuple[str, ...]

    @property
    def candidates(self) -> tuple[Candidate, ...]:
        """What the strategies may try, as far as they know it beforehand."""
        return known_candidates(self.descriptions, self.space)

    @property
    def arms(self) -> tuple[tuple[Entrant, int], ...]:
        """Strategy and seed of every arm."""
        return tuple((entrant, seed) for seed in range(self.request.seeds) for entrant in self.entrants)

    @cached_property
    def full_training(self) -> Cost:
        """Cost of one full training of the hand default with its evaluations, which 1x is without."""
        return self.forecaster(self.space.reference_candidate).cost

    @property
    def full_trainings(self) -> float:
        """Number of these that an arm's budget pays for."""
        return self.budget.limit / self.budget.spent(self.full_training)

    def forecasts(self) -> list[tuple[Candidate, Forecast]]:
        """Return the first PLANNED_MOST candidates with their forecasts."""
        return [(candidate, self.forecaster(candidate)) for candidate in self.candidates[:PLANNED_MOST]]

    @property
    def image_px(self) -> int:
        """Longer side of an image, which a receptive field is compared with."""
        return max(self.input_shape[2:])

    @property
    @abstractmethod
    def primary(self) -> str:
        """Name of the score that the search goes by."""

    @property
    def title(self) -> str:
        """What is searched, and on what, in a line."""
        return f"{self.space.title} ({self.space.name}, preset {self.space.preset}): {self.summary}"

    @property
    @abstractmethod
    def summary(self) -> str:
        """What it is searched on, in a line."""

    @property
    @abstractmethod
    def classes(self) -> tuple[str, ...]:
        """Names of the classes in order of id; none where there are none, or they are not known."""

    @property
    @abstractmethod
    def input_shape(self) -> tuple[int, ...]:
        """1 x C x its axes: what the network is shown of one image."""

    @property
    @abstractmethod
    def sizes(self) -> ObjectSizes | None:
        """Sizes of the objects of the training images, None where they have none or these are not known."""

    @property
    def noun(self) -> str:
        """What is called an object in the data, in the singular."""
        return self.sizes.noun if self.sizes else "object"

    @property
    @abstractmethod
    def settings(self) -> Settings:
        """What surgery needs to install a candidate."""

    @property
    @abstractmethod
    def trainings(self) -> Trainings:
        """What makes the training of every trial."""

    @abstractmethod
    def make_network(self) -> nn.Module:
        """Build the network, with no trained weights and no site changed."""

    @abstractmethod
    def facts(self) -> tuple[SpaceFacts, DataFacts, Network]:
        """Return what the manifest says of the space, the data, and the network with its user's code."""
