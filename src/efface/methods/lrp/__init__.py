"""Layer-wise relevance propagation of efface's own, for convolutional networks and for transformers."""

from efface.methods.lrp.explain import check_lrp, lrp
from efface.methods.lrp.transformers import attn_lrp, check_attn_lrp, cp_lrp, gim

__all__ = ["attn_lrp", "check_attn_lrp", "check_lrp", "cp_lrp", "gim", "lrp"]
