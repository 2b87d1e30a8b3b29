"""Maps of vision transformers from the attention between their tokens."""

from efface.methods.attention.gradient import attention_grad_cam, generic_attention
from efface.methods.attention.legrad import legrad
from efface.methods.attention.rollout import attention_rollout
from efface.methods.attention.tis import tis
from efface.methods.attention.transition import bi_attn, tam
from efface.methods.attention.vit_cx import vit_cx

__all__ = [
    "attention_grad_cam",
    "attention_rollout",
    "bi_attn",
    "generic_attention",
    "legrad",
    "tam",
    "tis",
    "vit_cx",
]
