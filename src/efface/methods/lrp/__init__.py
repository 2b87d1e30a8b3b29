"""Layer-wise relevance propagation of efface's own, for convolutional networks and for transformers."""

from efface.methods.lrp.attribution import (
    attention_relevance,
    check_transformer_attribution,
    transformer_attribution,
)
from efface.methods.lrp.explain import check_lrp, lrp
from efface.methods.lrp.transformers import attn_lrp, check_attn_lrp, cp_lrp, gim

__all__ = [
    "attention_relevance",
    "attn_lrp",
    "check_attn_lrp",
    "check_lrp",
    "check_transformer_attribution",
    "cp_lrp",
    "gim",
    "lrp",
    "transformer_attribution",
]
