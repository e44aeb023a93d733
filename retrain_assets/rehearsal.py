"""What costs a run most the first time, done once in the process that runs are forked from.

Importing this module does it: the calendar of US stocks is built, bars are validated and stored,
pictures drawn, and a model laid out as MLflow wants it, which looks through all that is installed.
Forks find it done. What lives by then is hidden from the garbage collector, which would otherwise
look through it in every fork and so copy all the memory that they share; this module is therefore
the last to be imported. Nothing is written but to a temporary folder, and no database or card is
opened; see `warm`.
"""

from __future__ import annotations

import gc
import io
import tempfile
from pathlib import Path

import pandas as pd
from matplotlib.figure import Figure
from mlflow.models import Model

from retrain_assets.evaluation.monthly.facts import MonthFacts
from retrain_assets.evaluation.monthly.figures import learning
from retrain_assets.market.bars import BAR_COLUMNS, VALUE_COLUMNS, BarStore
from retrain_assets.market.calendar import US_STOCKS, last_closed
from retrain_assets.market.schema import validate
from retrain_assets.served import CONTENT
from retrain_assets.serving import save_model

_LOSSES = [{"loss": 1.0}, {"loss": 0.5}]
_METRICS = {
    **{"step_losses": _LOSSES, "validations": _LOSSES, "epochs": 1, "best_epoch": 1},
    **{"validation_loss": 0.5, "base_validation_loss": 1.0},
}


def rehearse() -> None:
    """Do everything once; raises whatever would go wrong in a run as well."""
    session = last_closed(US_STOCKS, pd.Timestamp.now("UTC"))
    values = {name: [1.0] for name in VALUE_COLUMNS}
    bars = pd.DataFrame({"session": [session]} | values)[list(BAR_COLUMNS)]
    bars = validate(bars, symbol="NONE", calendar=US_STOCKS, where="rehearsal")
    learning(MonthFacts("2023-08", adapters={"none": {"NONE": {"metrics": _METRICS}}}), "NONE")
    Figure().savefig(io.BytesIO(), format="png")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        BarStore(folder).write("NONE", bars, source="rehearsal")
        BarStore(folder).read("NONE")
        (folder / CONTENT).mkdir()
        save_model(folder, Model(), bars.assign(session=["2023-08-31"]))


rehearse()
gc.collect()
gc.freeze()
