"""Images that are there twice: equal pixels, or nearly the same picture (saved again, resized, brightened)."""

import numpy as np
from scipy.fft import dctn
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

ALIKE = 0.98  # least correlation of two small copies: a perceptual hash alone takes one round cell for another
FLAT = 1.0  # gray levels of contrast below which an image has nothing to be known by
BLOCK = 20_000  # pairs whose small copies are compared at a time
MOST = 20_000_000  # pairs of hashes that are compared: where nearly all images are alike, there is no end of pairs


def same(digests) -> list[list[int]]:
    """Sets of indices with one and the same digest; empty digests are none."""
    where = {}
    for i, digest in enumerate(digests):
        if digest:
            where.setdefault(digest, []).append(i)
    return [found for found in where.values() if len(found) > 1]


def near(small, contrast, bits: int) -> tuple[list[list[int]], bool]:
    """Sets of images that are nearly the same.

    Two are, if their perceptual hashes differ in at most `bits` bits and their small copies correlate with at least 0.98.

    Args:
        small: `(n, 32, 32)`, mean 0 and standard deviation 1 each.
        contrast: `(n,)` standard deviations of the images; flat images are left out.
        bits: 0..16.

    Returns:
        Sets of indices, and whether all pairs were compared.
    """
    kept = np.flatnonzero(np.asarray(contrast) >= FLAT)
    if len(kept) < 2:
        return [], True
    flat = small[kept].reshape(len(kept), -1)
    hashes = np.concatenate([phash(part) for part in np.array_split(small[kept], -(-len(kept) // 4096))])
    pairs, left = [], MOST
    for one, other in close(hashes, bits):
        left -= len(one)
        for start in range(0, len(one), BLOCK):
            a, b = one[start : start + BLOCK], other[start : start + BLOCK]
            alike = np.einsum("ij,ij->i", flat[a], flat[b], dtype="float32") >= ALIKE * flat.shape[1]
            pairs.append(np.stack([a[alike], b[alike]]))
        if left < 0:
            break
    if not pairs:
        return [], True
    one, other = np.concatenate(pairs, axis=1)
    graph = coo_array((np.ones(len(one), bool), (one, other)), (len(kept), len(kept)))
    labels = connected_components(graph, directed=False)[1]
    order = np.argsort(labels, kind="stable")
    sets = np.split(kept[order], np.flatnonzero(np.diff(labels[order])) + 1)
    return sorted(found.tolist() for found in sets if len(found) > 1), left >= 0


def phash(small) -> np.ndarray:
    """The perceptual hash of each image: which of its 8 x 8 lowest frequencies are above their median.

    The first of them, the mean, says nothing of the picture: its bit is 0. Source: Zauner 2010, "Implementation and benchmarking of perceptual
    image hash functions", section 3.1.1.

    Args:
        small: `(n, 32, 32)`.

    Returns:
        `(n,)` uint64.
    """
    low = dctn(np.asarray(small, "float32"), axes=(1, 2), norm="ortho")[:, :8, :8].reshape(len(small), 64)
    above = low > np.median(low[:, 1:], axis=1, keepdims=True)
    above[:, 0] = False
    return np.packbits(above, axis=1, bitorder="little").view("<u8")[:, 0].astype("uint64")


def close(hashes, bits: int):
    """Yield `(indices, indices)` of pairs whose hashes differ in at most `bits` bits; a pair may come several times.

    Cut into `bits` + 1 pieces, two such hashes agree in at least one of them: so only hashes with an equal piece are compared. Of those, sorted by
    the piece, each is compared with its next, then with the next but one, and so on, until no two so far apart have an equal piece.
    """
    edges = np.linspace(0, 64, bits + 2).round().astype("uint64")
    for low, high in zip(edges[:-1], edges[1:]):
        piece = hashes >> low & np.uint64(2 ** int(high - low) - 1)
        order = np.argsort(piece, kind="stable")
        piece, ordered = piece[order], hashes[order]
        first = np.arange(len(hashes) - 1)
        step = 1
        while len(first := first[first + step < len(hashes)]):
            first = first[piece[first] == piece[first + step]]  # who differs from this one differs from all that follow
            match = count_bits(ordered[first] ^ ordered[first + step]) <= bits
            if match.any():
                yield order[first[match]], order[first[match] + step]
            step += 1


_ONES = np.array([bin(i).count("1") for i in range(1 << 16)], "uint8")


def count_bits(numbers) -> np.ndarray:
    """How many bits are set in each of `(n,)` uint64."""
    return _ONES[np.ascontiguousarray(numbers).view("uint16").reshape(-1, 4)].sum(1)
