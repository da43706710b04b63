"""One module per command of `normbench`, and what they print with."""
