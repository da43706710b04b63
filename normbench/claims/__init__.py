"""What textbooks and papers claim, as data, and what our own runs answer. Only calculations import torch."""
