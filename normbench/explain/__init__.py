"""`normbench explain`: what a scheme computes, step by step, on real images. Start with `steps.py`, then `batch.py`."""
