"""A Wasserstein distance beyond the exact size: time, memory, and how far above the exact value.

    python benchmarks/distances.py N M [--spread 0.7] [--embeddings FILE] [--exact]

Made-up embeddings lie around 40 centres of one task and 40 of another, 20 of them common; FILE is an .npz with arrays
`a` and `b`. `--exact` solves the same problem from one matrix of all costs, too, which takes 60 to 100 bytes an entry.
"""

import argparse
from pathlib import Path

import numpy as np

from inscl.core import distance
from measuring import cpu, peak


def clustered(rng: np.random.Generator, n: int, chosen: range, spread: float, d: int = 384) -> np.ndarray:
    centres = np.random.default_rng(1).normal(size=(200, d))
    centres /= np.linalg.norm(centres, axis=1, keepdims=True)
    labels = rng.choice(chosen, size=n, p=rng.dirichlet(np.ones(len(chosen))))
    rows = centres[labels] + spread * rng.normal(size=(n, d)) / d**0.5
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float16)


def measured(a: np.ndarray, b: np.ndarray, exact_size: int) -> tuple[float, float, int]:
    """The distance, its CPU seconds, and the process's peak memory in MiB."""
    distance._EXACT_SIZE = exact_size
    seconds, value = cpu(lambda: distance.wasserstein(a, b))
    return value, seconds, peak()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("n", type=int)
    parser.add_argument("m", type=int)
    parser.add_argument("--spread", type=float, default=0.7)
    parser.add_argument("--embeddings", type=Path)
    parser.add_argument("--exact", action="store_true")
    options = parser.parse_args()
    if options.embeddings:
        with np.load(options.embeddings, allow_pickle=False) as given:
            a, b = given["a"][: options.n], given["b"][: options.m]
    else:
        rng = np.random.default_rng(0)
        a, b = (clustered(rng, n, of, options.spread) for n, of in ((options.n, range(40)), (options.m, range(20, 60))))
    value, seconds, most = measured(a, b, 0)
    print(f"bounded  {value:.6f}  {seconds:6.2f} CPU s  {most:5d} MiB")
    if options.exact:
        exact, seconds, most = measured(a, b, 10**12)
        print(f"exact    {exact:.6f}  {seconds:6.2f} CPU s  {most:5d} MiB; {100 * (value / exact - 1):.2f} % above")


if __name__ == "__main__":
    main()
