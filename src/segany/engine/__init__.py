"""The data engine: people annotate with a project's model, and the model is trained on what they made.

start(store, "mobile_sam")  # the model that the project begins with
submit_retrain(store)  # a JobQueue with RETRAIN does it: a snapshot, a candidate, a decision
store.models.current()
"""

from __future__ import annotations

from segany.engine.compare import Comparison, compare
from segany.engine.retrain import RETRAIN, retrain_handler, submit_retrain
from segany.engine.rules import RECIPES, STAGES, EngineRules, Stage
from segany.engine.state import EngineStatus, current_model, roll_back, start, status

__all__ = [
    "RECIPES",
    "RETRAIN",
    "STAGES",
    "Comparison",
    "EngineRules",
    "EngineStatus",
    "Stage",
    "compare",
    "current_model",
    "retrain_handler",
    "roll_back",
    "start",
    "status",
    "submit_retrain",
]
