"""Pictures of architectures, drawn from built models."""

from docs.diagram.svg import draw_architecture

__all__ = ["draw_architecture"]
