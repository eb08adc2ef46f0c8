"""The command line: parse, call, print. One file a command; what is done is in the other packages.

Exit codes: 0 done; 1 the run finished but no trial succeeded; 2 the request was wrong; 130 interrupted.
"""

from rfsearch.cli.app import main

__all__ = ["main"]
