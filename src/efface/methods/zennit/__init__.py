"""Layer-wise relevance propagation and related methods, by zennit's rules."""

from efface.methods.zennit.explain import attribute, check_attribute

__all__ = ["attribute", "check_attribute"]
