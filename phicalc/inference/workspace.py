"""What a calculator keeps from structure to structure."""

import numpy as np
from ase import Atoms
from jaxtyping import Int64

from phicalc.derivatives import Prediction
from phicalc.domain import environments_of
from phicalc.electrostatics import ChargeHistory, CoulombSettings
from phicalc.graph import AtomicGraph, connected_parts
from phicalc.inference.closeness import PLAUSIBLE, PairWatch
from phicalc.inference.domain import ModelDomain, StrangeAtom
from phicalc.inference.plausibility import LargestResults
from phicalc.inference.predictors import Predictor, predictor_for
from phicalc.inference.uncertainty import ErrorBars, Uncertainty
from phicalc.potential import Potential
from phicalc.skin import NeighborSearch


class Workspace:
    """Neighbors, plans and charges of the last structures, from which the next ones start.

    Results depend on them by less than the accuracy asked for.

    Parameters
    ----------
    potential
        In evaluation mode, on the device where the work is done.
    neighbors
        Neighbor engine.
    settings
        Of the electrostatic sums; by default those of the potential.
    predictor
        By default one that never compiles.
    domain
        What the training data covered; None if nobody knows.
    uncertainty
        Whether to compute the uncertainty of results, if the potential has one.
    """

    def __init__(
        self,
        potential: Potential,
        *,
        neighbors: str = "auto",
        settings: CoulombSettings | None = None,
        predictor: Predictor | None = None,
        domain: ModelDomain | None = None,
        uncertainty: bool = True,
    ):
        self.search = NeighborSearch(potential.cutoff, engine=neighbors)
        self.history = ChargeHistory()
        self.predictor = predictor or predictor_for(potential)
        self.planner = potential.coulomb_planner(settings, self.predictor.mesh_above)
        self.potential = potential
        self.domain = domain
        self.error_bars = (
            ErrorBars(potential) if uncertainty and potential.uncertainty is not None else None
        )
        self.watch = PairWatch(PLAUSIBLE if domain is None else domain.limits())
        self.largest = (
            LargestResults("", None, None) if domain is None else domain.largest_results()
        )
        self._strange: tuple[int, StrangeAtom | None] | None = None
        self._parts: tuple[int, Int64[np.ndarray, " n_atoms"]] | None = None

    def error_bars_of(self, prediction: Prediction, atoms: Atoms) -> Uncertainty | None:
        """Return the uncertainty of results for one structure, if there is one and it is wanted."""
        if self.error_bars is None or prediction.last_features is None:
            return None
        return self.error_bars(prediction.last_features, atoms.numbers)

    def strange_atom(self, graph: AtomicGraph) -> StrangeAtom | None:
        """Return the first atom that is bonded as no atom of the training data is, if there is one.

        `graph` is that of the structure that `search` found last. Bonds are looked at whenever
        neighbors are searched anew, as for `parts`.
        """
        if self.domain is None or self.domain.environments is None:
            return None
        if self._strange is None or self._strange[0] != self.search.searches:
            found = environments_of(graph)
            atom = found.first_outside(self.domain.environments)
            strange = None if atom is None else StrangeAtom(atom, found.names[found.member[atom]])
            self._strange = self.search.searches, strange
        return self._strange[1]

    def parts(self, graph: AtomicGraph) -> Int64[np.ndarray, " n_atoms"]:
        """Return `connected_parts` of the structure that `search` found last.

        They are found again whenever neighbors are searched anew, every few dozen steps of a
        dynamics, because that is when fragments may have parted.
        """
        if self._parts is None or self._parts[0] != self.search.searches:
            self._parts = self.search.searches, connected_parts(graph).cpu().numpy()
        return self._parts[1]
