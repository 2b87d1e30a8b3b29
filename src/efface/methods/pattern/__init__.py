"""Explanations that use patterns, which are estimated from training images, in the backward pass."""

from efface.methods.pattern.attribution import PatternAttribution, PatternGuided, PatternGuidedIG, PatternNet, Patterns

__all__ = ["PatternAttribution", "PatternGuided", "PatternGuidedIG", "PatternNet", "Patterns"]
