"""Explanations along patterns, which methods estimate from training images."""

from efface.methods.pattern.attribution import PatternAttribution, PatternGuided, PatternGuidedIG, PatternNet, Patterns

__all__ = ["PatternAttribution", "PatternGuided", "PatternGuidedIG", "PatternNet", "Patterns"]
