"""Result files as typed values, in the file of the command that writes them."""

from riyaz.results.arm_names import arm_name, parted
from riyaz.results.beside import EarlierTask, Teacher
from riyaz.results.calibration import Calibration
from riyaz.results.comparison import (
    ADAPTED,
    COMPARE,
    FAR,
    FIT,
    FLOORS,
    PREDICTIONS,
    REFITTED,
    RESULT,
    About,
    Answer,
    ArmResult,
    Comparison,
    CurvePoint,
    CurveScore,
    Decision,
    Evaluation,
    Fit,
    Flips,
    Floor,
    FloorKind,
    Pair,
    Remeasured,
    Retrieval,
    SeedScore,
    SliceLead,
    SliceScore,
    Status,
    TargetScores,
    WorstSlice,
    Worth,
)
from riyaz.results.documents import ELSEWHERE
from riyaz.results.inputs import AnswerInPrompt, Data, Documents, FileFacts, Leakage, Model
from riyaz.results.limits import LIMITS, SUITES, Abstention, Curve, Figure, Limits, Part, Suite
from riyaz.results.metric_names import metric_name
from riyaz.results.precisions import PrecisionScore, in_words, smallest_merged, smallest_precision
from riyaz.results.pretraining import (
    LEARNED,
    METRICS,
    RUN,
    SAMPLES,
    Derived,
    Learned,
    PretrainRun,
    RunCost,
    RunModel,
    RunResult,
    RunText,
    RunTokenizer,
    Samples,
    StepMetrics,
    Text,
    TokenLoss,
    Word,
)
from riyaz.results.questions import DecidedAnswer, QuestionScore
from riyaz.results.schedule import Turn
from riyaz.results.ternarizing import TERNARIZE, TernarizeRun

__all__ = [
    "ADAPTED", "COMPARE", "ELSEWHERE", "FAR", "FIT", "FLOORS", "LEARNED", "LIMITS", "METRICS", "PREDICTIONS",
    "REFITTED", "RESULT", "RUN", "SAMPLES", "SUITES", "TERNARIZE", "About", "Abstention", "Answer", "AnswerInPrompt",
    "ArmResult", "Calibration", "Comparison", "Curve", "CurvePoint", "CurveScore", "Data", "DecidedAnswer",
    "Decision", "Derived", "Documents", "EarlierTask", "Evaluation", "Figure", "FileFacts", "Fit", "Flips", "Floor",
    "FloorKind", "Leakage", "Learned", "Limits", "Model", "Pair", "Part", "PrecisionScore", "PretrainRun",
    "QuestionScore", "Remeasured", "Retrieval", "RunCost", "RunModel", "RunResult", "RunText", "RunTokenizer",
    "Samples", "SeedScore", "SliceLead", "SliceScore", "Status", "StepMetrics", "Suite", "TargetScores", "Teacher",
    "TernarizeRun", "Text", "TokenLoss", "Turn", "Word", "WorstSlice", "Worth", "arm_name", "in_words",
    "metric_name", "parted", "smallest_merged", "smallest_precision",
]  # fmt: skip
