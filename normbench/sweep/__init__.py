"""Many runs: what is to be done (plan), and running it side by side: what happens to one leaves the others alone."""
