"""One module per command of `normbench`, and what they print with."""

import os

# Commands open no window, and the window system that a notebook names for its own processes need not exist here.
os.environ.pop("MPLBACKEND", None)
