"""Methods and metrics to run first, by the kind of network. The tables of docs/choosing.md have the same words."""

from typing import Any, Literal, get_args

from efface.study.recommended_metrics import ERASING, RETRAINED, SANITY

Kind = Literal["cnn", "cnn_without_relu", "vit", "swin", "mlp"]
KINDS: tuple[Kind, ...] = get_args(Kind)
CONTROLS = {"random": "What every method has to beat", "sobel": "What edges alone are worth"}
"""Methods that ask no network, with what they show."""
METHODS: dict[Kind, tuple[str, ...]] = {
    "cnn": ("grad_cam", "integrated_gradients", "smooth_grad", "guided_backprop", "lrp", "occlusion"),
    "cnn_without_relu": ("grad_cam", "integrated_gradients", "smooth_grad", "occlusion", "rise"),
    "vit": ("generic_attention", "grad_cam", "cp_lrp", "attn_lrp", "integrated_gradients", "occlusion", "rise"),
    "swin": ("grad_cam", "cp_lrp", "integrated_gradients", "occlusion", "rise"),
    "mlp": ("gradient", "input_x_gradient", "integrated_gradients", "smooth_grad", "lrp"),
}
"""Methods for each kind of network, in the order of the table. A network without layers of space has no CAM."""
GAMMAS = {"linear_gamma": 0.05, "conv_gamma": 0.25}
"""The settings of `attn_lrp` on a transformer."""
METRICS = {**ERASING, "random_logit": SANITY["random_logit"]}
"""Metrics for every network, each with the reason."""
COSTLY_METRICS = {"randomisation": SANITY["randomisation"], **RETRAINED}
"""Metrics that cost more, each with the reason: they run the methods again, or train networks."""


def entries(kind: Kind, window: tuple[int, int] | None = None) -> list[dict[str, Any]]:
    """Return the entries of a study for the methods of this kind of network, the controls first.

    window: side and stride of the window of `occlusion`, in pixels; None: its defaults.
    """
    found: list[dict[str, Any]] = []
    for name in (*CONTROLS, *METHODS[kind]):
        kwargs: dict[str, Any] = dict(GAMMAS) if name == "attn_lrp" else {}
        if name == "occlusion" and window is not None:
            kwargs = {"patch": window[0], "stride": window[1]}
        found.append({"name": name, "method": name} | ({"kwargs": kwargs} if kwargs else {}))
    return found
