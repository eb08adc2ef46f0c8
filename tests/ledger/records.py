"""A record with something in most of its fields, for tests."""

from rfsearch.ledger import Cost, Record, Rung

RECORD = Record(
    trial="exhaustive-0-000",
    strategy="exhaustive",
    seed=0,
    status="completed",
    candidate='{"conv6": {"dilation": 4, "f": 1.0, "learned": true}}',
    outcome='{"conv6": {"dilation": 4, "f": 0.9}}',
    rf_px=91,
    rf_init_px=91,
    cost=Cost(1e9, 2.5, 3.0),
    val=0.5,
    test=0.4,
    rungs=(Rung(5, 0.3, {"conv6": 0.95}, Cost(5e8, 1.0, 1.5)),),
    trace=((0, "conv6", 1.0), (5, "conv6", 0.95)),
    scores={"f_eye_pooled": 0.3},
    forecast=Cost(1.1e9, 2.0, 3.0),
)
