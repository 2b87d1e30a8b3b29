"""Gradients along paths from a reference to the image, times the way travelled."""

from efface.methods.path.adversarial import adversarial_gradient_integration
from efface.methods.path.background import ExpectedGradients, LocalPathIntegration
from efface.methods.path.blurred import blur_ig
from efface.methods.path.guided import guided_ig
from efface.methods.path.references import ig_smooth, ig_squared, ig_uniform
from efface.methods.path.straight import integrated_gradients, smooth_integrated_gradients

expected_gradients = ExpectedGradients  # a study names every method by its paper's word, also a class that learns
local_path_integration = LocalPathIntegration

__all__ = [
    "adversarial_gradient_integration",
    "blur_ig",
    "expected_gradients",
    "guided_ig",
    "ig_smooth",
    "ig_squared",
    "ig_uniform",
    "integrated_gradients",
    "local_path_integration",
    "smooth_integrated_gradients",
]
