"""`normbench explain`: what a norm computes, step by step, on real images. Read place.py, then engine.py."""
