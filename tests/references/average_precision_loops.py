"""VOC's average precision written out slowly, from Everingham et al. (IJCV 2010, sec. 4.2) and VOCevaldet.m.

Detections are (image, score, box), objects (image, box, difficult), boxes (x1, y1, x2, y2); of one class.
"""


def overlap(a, b):
    width = min(a[2], b[2]) - max(a[0], b[0])
    height = min(a[3], b[3]) - max(a[1], b[1])
    if width <= 0 or height <= 0:
        return 0.0
    area = (a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - width * height
    return width * height / area


def curve(detections, objects, least=0.5):
    """Precision and recall after each detection that counts, as two lists; None without an object to be found."""
    to_find = [index for index, (_, _, difficult) in enumerate(objects) if not difficult]
    if not to_find:
        return None
    remaining = list(detections)
    found, wrong = set(), 0
    precisions, recalls = [], []
    while remaining:
        surest = remaining[0]
        for one in remaining:  # strictly surer, so that the first of equals goes first
            if one[1] > surest[1]:
                surest = one
        remaining.remove(surest)
        image, _, box = surest
        best, best_overlap = None, -1.0
        for index, (where, other, _) in enumerate(objects):
            if where == image and overlap(box, other) > best_overlap:
                best, best_overlap = index, overlap(box, other)
        if best is not None and best_overlap >= least:
            if objects[best][2]:
                continue
            if best in found:
                wrong += 1
            else:
                found.add(best)
        else:
            wrong += 1
        precisions.append(len(found) / (len(found) + wrong))
        recalls.append(len(found) / len(to_find))
    return precisions, recalls


def area(precisions, recalls):
    total, before = 0.0, 0.0
    for index, recall in enumerate(recalls):
        if recall > before:
            total += (recall - before) * max(precisions[index:])
            before = recall
    return total


def eleven(precisions, recalls):
    total = 0.0
    for point in range(11):
        total += max([p for p, r in zip(precisions, recalls, strict=True) if r * 10 >= point - 1e-9], default=0.0)
    return total / 11
