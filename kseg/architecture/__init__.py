"""Pictures of architectures, drawn from built models."""

from kseg.architecture.svg import draw_architecture

__all__ = ["draw_architecture"]
