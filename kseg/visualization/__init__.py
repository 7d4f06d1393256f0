"""Label maps and confusion matrices as pictures."""

from kseg.visualization.confusion_picture import draw_confusion_matrix, write_confusion_csv
from kseg.visualization.label_maps import colorize, prediction_gallery

__all__ = ["colorize", "draw_confusion_matrix", "prediction_gallery", "write_confusion_csv"]
