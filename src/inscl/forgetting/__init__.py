"""What a run's models forgot, and what kind of forgetting it is: `analyse`."""

from inscl.forgetting.analysis import Analysis, analyse
from inscl.forgetting.offline import OfflineJudge
from inscl.forgetting.rates import ForgettingRule
from inscl.forgetting.server import ServerJudge
from inscl.forgetting.verdict import Case, Judge, Verdict

__all__ = ["Analysis", "Case", "ForgettingRule", "Judge", "OfflineJudge", "ServerJudge", "Verdict", "analyse"]
