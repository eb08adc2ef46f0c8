"""From a request to a finished run: what is asked for, whether it fits, what it should cost, and the contest."""
