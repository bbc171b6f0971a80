"""What is wrong with a data set: unreadable and odd images, duplicates, unbalanced classes."""

from typing import TYPE_CHECKING

from resnets.doors import loader

if TYPE_CHECKING:
    from resnets.evaluation.doctor.diagnosis import Diagnosis, Finding, diagnose
    from resnets.evaluation.doctor.duplicates import (
        Duplicates,
        NearDuplicates,
        find_duplicates,
        near_duplicates,
    )

__all__ = [
    "Diagnosis",
    "Duplicates",
    "Finding",
    "NearDuplicates",
    "diagnose",
    "find_duplicates",
    "near_duplicates",
]

__getattr__, __dir__ = loader(
    __name__,
    diagnosis="Diagnosis Finding diagnose",
    duplicates="Duplicates NearDuplicates find_duplicates near_duplicates",
)
