"""What the rungs of one stock's ladder gave: adapters trained otherwise, each with a search."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

from retrain_assets.errors import BadInput
from retrain_assets.evaluation.params import ParamsRecord
from retrain_assets.training.adapter_store import AdapterRecord
from retrain_assets.training.ladder import POLICY, RungResult


@dataclass(frozen=True)
class TriedRung:
    """One rung that was run: its adapter and the search with it, or why there are none.

    error: why it could not be trained or searched; it then counts as a try without gain.
    """

    name: str
    reason: str
    adapter: AdapterRecord | None = None
    search: ParamsRecord | None = None
    error: str | None = None

    @property
    def selection_loss(self) -> float | None:
        """Error of its chosen settings on the selection origins, in price units."""
        return None if self.search is None else float(self.search.summary["selection_mae"])

    def to_json(self) -> dict[str, Any]:
        """The rung as JSON values."""
        return {
            "name": self.name,
            "reason": self.reason,
            "selection_loss": self.selection_loss,
            "adapter": None if self.adapter is None else self.adapter.to_json(),
            "search": None if self.search is None else self.search.to_json(),
            "error": self.error,
        }

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> TriedRung:
        """The rung that `to_json` wrote."""
        adapter, search = value["adapter"], value["search"]
        return cls(
            value["name"],
            value["reason"],
            None if adapter is None else AdapterRecord.from_json(adapter),
            None if search is None else ParamsRecord.from_json(search),
            value["error"],
        )


@dataclass(frozen=True)
class Refinement:
    """The ladder of one family, month and stock as far as it was climbed.

    policy: digest of the adapter it began with. policy_loss: that adapter's error on the selection
    origins with its chosen settings, in price units. rungs: in the order they were run.
    stopped: why the ladder is over, None while another rung is left.
    """

    policy: str
    policy_loss: float
    rungs: tuple[TriedRung, ...] = ()
    stopped: str | None = None

    @property
    def best(self) -> TriedRung | None:
        """The rung that errs least on the selection origins, None before one succeeded."""
        known = [rung for rung in self.rungs if rung.selection_loss is not None]
        return min(known, key=lambda rung: rung.selection_loss or 0.0, default=None)

    @property
    def done(self) -> Sequence[RungResult]:
        """What the ladder's rule looks at: the policy's adapter, then every rung."""
        policy = RungResult(POLICY, self.policy_loss)
        return [policy, *(RungResult(rung.name, rung.selection_loss) for rung in self.rungs)]

    def climbed(self, rung: TriedRung) -> Refinement:
        """The same with one rung more."""
        return replace(self, rungs=(*self.rungs, rung))

    def to_json(self) -> dict[str, Any]:
        """The ladder as JSON values."""
        rungs = [rung.to_json() for rung in self.rungs]
        return asdict(replace(self, rungs=())) | {"rungs": rungs}

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Refinement:
        """The ladder that `to_json` wrote; raises BadInput naming a field that is missing."""
        try:
            rungs = tuple(TriedRung.from_json(rung) for rung in value["rungs"])
            return cls(value["policy"], value["policy_loss"], rungs, value["stopped"])
        except KeyError as error:
            raise BadInput(f"the stored ladder lacks {error}: refine the stock again") from error
