"""Result files as typed values: `comparison` for riyaz compare, `pretraining` for riyaz pretrain."""

from riyaz.results.comparison import (
    COMPARE,
    FIT,
    PREDICTIONS,
    RESULT,
    Answer,
    ArmResult,
    Comparison,
    CurvePoint,
    CurveScore,
    Data,
    Decision,
    Documents,
    Evaluation,
    FileFacts,
    Fit,
    Flips,
    Floor,
    Leakage,
    Model,
    Pair,
    Retrieval,
    SeedScore,
    SliceScore,
    TargetScores,
)
from riyaz.results.documents import ELSEWHERE
from riyaz.results.pretraining import (
    METRICS,
    RUN,
    SAMPLES,
    Derived,
    PretrainRun,
    RunCost,
    RunModel,
    RunResult,
    RunText,
    RunTokenizer,
    Samples,
    StepMetrics,
    Text,
    Word,
)

__all__ = [
    "COMPARE", "ELSEWHERE", "FIT", "METRICS", "PREDICTIONS", "RESULT", "RUN", "SAMPLES", "Answer", "ArmResult",
    "Comparison", "CurvePoint", "CurveScore", "Data", "Decision", "Derived", "Documents", "Evaluation", "FileFacts",
    "Fit", "Flips", "Floor", "Leakage", "Model", "Pair", "PretrainRun", "Retrieval", "RunCost", "RunModel", "RunResult",
    "RunText", "RunTokenizer", "Samples", "SeedScore", "SliceScore", "StepMetrics", "TargetScores", "Text", "Word",
]  # fmt: skip
