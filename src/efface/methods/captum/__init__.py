"""Any attribution method of Captum that fits images, by its name."""

from efface.methods.captum.explain import attribute, check_attribute

__all__ = ["attribute", "check_attribute"]
