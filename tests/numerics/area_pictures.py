"""Golden outputs of pictures: how images and maps are painted."""

import numpy as np

from efface.report.gallery import paint, rgb
from efface.report.grid import PictureLine, grid, read_made_from
from numerics import inputs
from numerics.table import golden


@golden("pictures")
def _pictures():
    maps, images = inputs.maps(4).numpy(), inputs.stored(2, 3).numpy()
    found = {f"{name}_{row}": np.asarray(rgb(each)) for name in ("image",) for row, each in enumerate(images)}
    for row, each in enumerate(maps):
        for signed in (True, False):
            found[f"map_{row}_{signed}"] = np.asarray(paint(each, percentile=99.0, signed=signed))
    drawn = grid([PictureLine("one", "a line", [rgb(each) for each in images])], ["a", "b"], "made from")
    return found | {"files": str(sorted(drawn)), "told": read_made_from(drawn["grid.png"])}
