"""From the runs of a study to the numbers and tables of its report. Never imports torch."""
