"""Active learning: explore, select, label, train and validate until the certificate is passed.

From Python::

    from phicalc.improvement import config_of, improve
    result = improve(config_of(["ethanol.xyz"], ["budget.max_labels=120", "output=ethanol"]))
    print(result.line)

From the shell: ``phicalc improve ethanol.xyz budget.max_labels=120 output=ethanol``, or with all
settings in a file, ``phicalc improve improve.yaml``.
"""

from phicalc.improvement.config import BudgetConfig as BudgetConfig
from phicalc.improvement.config import ImprovementConfig as ImprovementConfig
from phicalc.improvement.config import config_of as config_of
from phicalc.improvement.record import RoundRecord as RoundRecord
from phicalc.improvement.run import ImprovementResult as ImprovementResult
from phicalc.improvement.run import improve as improve

__all__ = [
    "BudgetConfig",
    "ImprovementConfig",
    "ImprovementResult",
    "RoundRecord",
    "config_of",
    "improve",
]
