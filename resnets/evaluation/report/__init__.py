"""The report on a network: an HTML page with verdict, figures, charts and pictures."""

from typing import TYPE_CHECKING

from resnets.doors import loader

if TYPE_CHECKING:
    from resnets.evaluation.report.charts import reliability_diagram
    from resnets.evaluation.report.page import Report, Subject, make_report, write_report
    from resnets.evaluation.report.verdict import Verdict

__all__ = [
    "Report",
    "Subject",
    "Verdict",
    "make_report",
    "reliability_diagram",
    "write_report",
]

__getattr__, __dir__ = loader(
    __name__,
    charts="reliability_diagram",
    page="Report Subject make_report write_report",
    verdict="Verdict",
)
