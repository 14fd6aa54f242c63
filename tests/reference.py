"""Token grouping and position tables by plain loops in float64.

Written from the description of the methods, on merged features, and without
anything of mmdtm: what the package computes faster must come out the same.
"""

import math

import numpy as np
from scipy.interpolate import RectBivariateSpline


def cosine(a: np.ndarray, b: np.ndarray) -> float:
    lengths = math.sqrt(float(a @ a)) * math.sqrt(float(b @ b))
    return float(a @ b) / lengths if lengths > 0 else 0.0


def alternate(count):
    return list(range(0, count, 2)), list(range(1, count, 2))


def match(tokens, schedule, split=alternate, class_token=False, carry=True):
    """Bipartite matching of one image's tokens (N, C).

    Returns a list of groups in their final order, each a list of positions.
    """
    current = [([i], np.asarray(t, dtype=np.float64)) for i, t in enumerate(tokens)]
    carried = 0
    for asked in schedule:
        asked += carried if carry else 0
        merges = min(asked, (len(current) - class_token) // 2)
        carried = asked - merges
        if merges == 0:
            continue
        first, second = split(len(current))
        best = []  # (similarity, position in the first set, its partner)
        for i in first[1:] if class_token else first:
            similarities = [cosine(current[i][1], current[j][1]) for j in second]
            top = max(similarities)
            best.append((top, i, second[similarities.index(top)]))
        best.sort(key=lambda pair: -pair[0])  # stable: ties stay in order
        for _, i, j in best[:merges]:
            (members_i, mean_i), (members_j, mean_j) = current[i], current[j]
            members = members_j + members_i
            mean = len(members_i) * mean_i + len(members_j) * mean_j
            current[j] = (members, mean / len(members))
        alone = [i for _, i, _ in best[merges:]]
        if class_token:
            alone = [0, *sorted(alone)]
        current = [current[i] for i in alone + second]
    return [members for members, _ in current]


def density_peaks(tokens, num_clusters, num_neighbors):
    """DPC-kNN on one image's tokens (N, C); the groups by their centres' rank."""
    count = len(tokens)

    def squared(i, j):
        return 2 - 2 * cosine(tokens[i], tokens[j])

    density = []
    for i in range(count):
        near = sorted(squared(i, j) for j in range(count) if j != i)[:num_neighbors]
        density.append(math.exp(-sum(near) / len(near)))
    score = []
    for i in range(count):
        denser = [j for j in range(count) if (density[j], -j) > (density[i], -i)]
        if denser:
            separation = min(squared(i, j) for j in denser)
        else:
            separation = max(squared(i, j) for j in range(count))
        score.append(density[i] * math.sqrt(max(separation, 0)))
    centres = sorted(range(count), key=lambda i: -score[i])[:num_clusters]
    groups = [[c] for c in centres]
    for i in range(count):
        if i not in centres:
            distances = [squared(i, c) for c in centres]
            groups[distances.index(min(distances))].append(i)
    return groups


def labels_of(groups, count):
    """Turn groups of positions into one label per position, each used once."""
    labels = [None] * count
    for label, members in enumerate(groups):
        for position in members:
            assert labels[position] is None
            labels[position] = label
    assert None not in labels
    return labels


def stretched_offsets(source: int, target: int) -> list[float]:
    """BEiT's source coordinates, one offset after the other."""
    left, right = 1.01, 1.5
    while right - left > 1e-6:
        q = (left + right) / 2
        reach = sum(q**i for i in range(source // 2))
        left, right = (left, q) if reach > target // 2 else (q, right)
    positive, at = [], 0.0
    for i in range(source // 2):
        at += q**i
        positive.append(at)
    return [-x for x in reversed(positive)] + [0.0] + positive


def resize_by_splines(table: np.ndarray, source: tuple, target: tuple) -> np.ndarray:
    """BEiT's resize of a position table: one head after the other, by SciPy."""
    rows, cols = 2 * source[0] - 1, 2 * source[1] - 1
    new_rows, new_cols = 2 * target[0] - 1, 2 * target[1] - 1
    heads = []
    for head in range(table.shape[1]):
        patches = table[:-3, head].reshape(rows, cols)
        spline = RectBivariateSpline(
            stretched_offsets(rows, new_rows),
            stretched_offsets(cols, new_cols),
            patches,
            kx=3,
            ky=3,
            s=0,
        )
        new = spline(
            np.arange(new_rows) - new_rows // 2, np.arange(new_cols) - new_cols // 2
        )
        heads.append(np.concatenate([new.ravel(), table[-3:, head]]))
    return np.stack(heads, axis=1)
