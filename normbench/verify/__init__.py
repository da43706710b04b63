"""Does every scheme do what it is defined to do, on this machine and with this torch?

`definitions.py` says what is expected, in closed forms that know nothing of `normbench.norms`; `checks.py` compares, in
the setting of `trial.py`. `folding.py` and `calculations.py` supply the numbers of `normbench fold` and of claims.
"""

from normbench.verify.checks import Result, verify

__all__ = ["Result", "verify"]
