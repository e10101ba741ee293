"""Whether what lies in a file or folder is as it was written: hashes, headers, shapes, finite numbers, links, counts.

No model is loaded into an engine and nothing is written.
"""

from riyaz.verifying.checks import Problem, Verified
from riyaz.verifying.kinds import verify

__all__ = ["Problem", "Verified", "verify"]
