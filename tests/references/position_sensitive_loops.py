"""Position-sensitive pooling written out slowly (Dai et al., R-FCN, eq. 1): each bin of a region averages its own map.

Bilinear variant: a bin is sampled at two by two places, spread evenly over it; half a unit is taken off coordinates,
since the centre of unit (0, 0) lies at 0.5. A place more than a unit outside the map counts 0, nearer ones read
the edge.
"""

import math


def read(plane, y, x):
    height, width = len(plane), len(plane[0])
    if y < -1 or y > height or x < -1 or x > width:
        return 0.0
    y, x = max(y, 0.0), max(x, 0.0)
    low_y, low_x = min(int(y), height - 1), min(int(x), width - 1)
    high_y, high_x = min(low_y + 1, height - 1), min(low_x + 1, width - 1)
    y, x = (float(low_y) if low_y == height - 1 else y), (float(low_x) if low_x == width - 1 else x)
    dy, dx = y - low_y, x - low_x
    return (
        (1 - dy) * (1 - dx) * plane[low_y][low_x]
        + (1 - dy) * dx * plane[low_y][high_x]
        + dy * (1 - dx) * plane[high_y][low_x]
        + dy * dx * plane[high_y][high_x]
    )


def sampled(maps, box, bins, scale):
    """maps: (outputs x bins x bins) planes of one image, nested lists. Gives outputs values: the vote over all bins."""
    left, upper, right, lower = (edge * scale - 0.5 for edge in box)
    high, wide = (lower - upper) / bins, (right - left) / bins
    outputs = len(maps) // bins**2
    votes = []
    for output in range(outputs):
        total = 0.0
        for i in range(bins):
            for j in range(bins):
                plane = maps[(output * bins + i) * bins + j]
                for a in (0.25, 0.75):
                    for b in (0.25, 0.75):
                        total += read(plane, upper + (i + a) * high, left + (j + b) * wide) / 4
        votes.append(total / bins**2)
    return votes


def averaged(maps, box, bins, scale):
    """Whole units, as the paper prints it; a region's edges are rounded to units first, and it is one unit at least."""
    left, upper, right, lower = (math.floor(edge * scale + 0.5) for edge in box)
    high, wide = max(lower - upper, 1) / bins, max(right - left, 1) / bins
    votes = []
    for output in range(len(maps) // bins**2):
        total = 0.0
        for i in range(bins):
            for j in range(bins):
                plane = maps[(output * bins + i) * bins + j]
                rows = range(upper + math.floor(i * high), upper + math.ceil((i + 1) * high))
                columns = range(left + math.floor(j * wide), left + math.ceil((j + 1) * wide))
                inside = [(y, x) for y in rows for x in columns if 0 <= y < len(plane) and 0 <= x < len(plane[0])]
                values = [plane[y][x] for y, x in inside]
                total += sum(values) / len(values) if values else 0.0
        votes.append(total / bins**2)
    return votes
