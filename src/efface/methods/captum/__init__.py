"""Attribution methods of Captum for images, by the name of the class."""

from efface.methods.captum.explain import attribute, check_attribute

__all__ = ["attribute", "check_attribute"]
