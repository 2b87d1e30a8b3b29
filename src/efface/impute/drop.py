"""No fill: the tokens of removed patches are dropped inside the network."""

from efface.base.types import Images, Mask
from efface.plug.facts import states


@states(drops_tokens=True)
def drop_tokens(images: Images, removed: Mask) -> Images:
    """Fewer tokens in place of painted pixels: the tokens of removed patches are dropped after the position embedding.

    The network cannot react to a fill, since there is none. Prefix tokens (class token, distillation token, registers)
    stay. Without any patch token, the score is that of the prefix tokens alone, the same for all images.

    It takes `unit: token` and a metric that scores the given network on erased images, such as `morf`, `lerf`, `srg`,
    `insertion` and `deletion`. It works for ViT, DeiT and DINOv2 of torchvision, timm and transformers. `check`
    refuses other networks, metrics that train or read the filled images, and the fraction 1 for a network whose head
    reads the mean of the patch tokens.

    Source: Jain et al. 2022 (Missingness bias in model debugging, arXiv:2204.08945); the internal imputer of Blücher,
        Vielhaben & Strodthoff 2024 (arXiv:2401.06654).
    """
    raise ValueError(
        f"drop_tokens removes tokens inside the network and makes no pixels, but {int(removed.sum())} pixels of "
        f"{len(images)} images are to be filled; take it with unit: token and a metric of the given network such as "
        "morf, or take another imputer"
    )
