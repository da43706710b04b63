"""The loop over updates, and what it needs: optimizers, evaluation, memory."""
