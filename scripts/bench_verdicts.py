"""Do the verdicts of a page hold what they promise? Simulations on data whose truth is known.

    python scripts/bench_verdicts.py [--runs 1000] [--seed 1] [--parts means retrained ...] [--pool FOLDER] [--quick]

Each line is a promise of the page, tried `--runs` times on made-up scores: how often an interval covers the true value
(promised: 95 %), or how often a verdict is false (promised: at most 5 %). Next to each share stands its standard error.

| part | what is simulated |
|---|---|
| `means` | scores of images: normal, skewed, between 0 and 1, right or wrong |
| `pairs` | paired differences of such scores |
| `retrained` | ten methods that are equal, retrained 2 to 8 times; spreads that are equal or not |
| `pool` | the same, resampled from the real trainings of the study in `--pool` |
| `headline` | a page of methods that are all random: does its headline name one? |
| `agreement` | tau of two metrics over methods, alpha over images |
| `claims` | claims about variants that differ in the seed alone |
| `decide` | studies in rounds: how often is a decision wrong, and what part of the whole study do they need? |
| `digits` | the digits study in rounds and whole, for 20 seeds, run for real in `--folder` |
| `digits_roar` | the same with ROAR, up to ten trainings for each method and fraction: half an hour on two cores |
| `power` | a true difference of one standard deviation: found how often, beside an oracle that knows the variance |

The pool is a study with ten draws of `random` and at least 40 repeats of `roar`. `--make-pool` runs this study on the
digits first, which takes an hour on one core.

`--quick` takes the smallest size of each part. About 30 minutes on one core with 1,000 runs, without the pool.
"""

import argparse
import sys
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).parent))
from verdicts import agreement, images, pages, retrained, rounds

PARTS = {
    "means": images.means,
    "pairs": images.pairs,
    "retrained": retrained.simulated,
    "headline": pages.headline,
    "agreement": agreement.agreement,
    "claims": pages.claims,
    "power": retrained.power,
    "decide": rounds.decide,
}
REAL = {"digits": rounds.digits, "digits_roar": rounds.digits_roar}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--parts", nargs="+", default=[*PARTS], choices=[*PARTS, "pool", *REAL])
    parser.add_argument("--pool", type=Path, help="folder of a study with many trainings of random controls")
    parser.add_argument("--make-pool", action="store_true", help="run this study first")
    parser.add_argument(
        "--folder", type=Path, help="where the parts `digits` and `digits_roar` run their studies; a second run goes on"
    )
    parser.add_argument("--seeds", type=int, default=20, help="of the parts `digits` and `digits_roar`")
    parser.add_argument("--quick", action="store_true", help="20 runs of the smallest size of each part")
    options = parser.parse_args()
    runs = 20 if options.quick else options.runs
    for part in options.parts:
        print(f"\n## {part}\n", flush=True)
        generator = np.random.default_rng([options.seed, *map(ord, part)])
        if part in REAL:
            if options.folder is None:
                parser.error(f"the part '{part}' needs --folder FOLDER")
            REAL[part](options.folder / part, options.seeds, quick=options.quick)
        elif part == "pool":
            if options.pool is None:
                parser.error("the part 'pool' needs --pool FOLDER; --make-pool makes one")
            if options.make_pool:
                retrained.make_pool(options.pool, quick=options.quick)
            retrained.pool(options.pool, runs, generator)
        else:
            PARTS[part](runs, generator, quick=options.quick)


if __name__ == "__main__":
    main()
