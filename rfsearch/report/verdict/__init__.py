"""The verdict of a run in plain sentences: what won, at which price, how sure that is, and how to use it.

`verdict` puts the sentences in order. The sentences of one kind are written in one module each: `headline`,
`comparison_sentences`, `certainty_sentences`, `warning_sentences` and `learned_sentences`. `recommendation` says how to
put the winner into a model.
"""

from rfsearch.report.verdict.recommendation import Setting
from rfsearch.report.verdict.verdict import Verdict, summarise, verdict_of

__all__ = ["Setting", "Verdict", "summarise", "verdict_of"]
