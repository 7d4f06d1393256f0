"""Is one model better, or was it the seed, the drive, the budget? docs/explanation/statistics.md explains the numbers.

counts of a model: int64 (S, n, 3, C), the layout of `kseg.metrics.bootstrap.ImageCounts` for one model. Of S training
runs, n images and C classes the pixels of the truth, those predicted rightly and those predicted.
"""

from kseg.studies.statistics.verdict import Comparison, compare

__all__ = ["Comparison", "compare"]
