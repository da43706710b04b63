"""The figures of a report, from the tables of its runs. Never imports torch."""
