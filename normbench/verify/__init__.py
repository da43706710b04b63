"""Does every scheme do what it is defined to do, on this machine and with this torch?

`definitions.py` says what is expected, in closed forms that know nothing of `normbench.norms`; `checks.py` and
`statistics.py` compare; `faults.py` names what is wrong where a known mistake explains it.
"""

from normbench.verify.checks import verify
from normbench.verify.trial import Result

__all__ = ["Result", "verify"]
