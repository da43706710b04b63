"""What a study's runs say: frames in, tables and sentences out. Never imports torch, never draws.

The one model is the frame of `normbench.runs`: `Study.runs` (a row per run, twelve columns), `Study.all_columns` (every
configured value and every number of the summary), `Study.steps`, `Study.epochs` and `Study.measured(name)` (the runs'
tables, each row with run, what was varied, and seed). `Run` is one folder: `values` (by option name), `summary`,
`seed`, `status`, `reason`, and its tables.

    groups = read(load("results/demo"))                 # analysis.groups
    groups.runs                                         # all_columns, with the column `scheme`
    for setting, by_scheme in groups.settings.items():  # setting: (("batch_size", 4),); what varies besides the seed
        group = by_scheme["batch"]                      # runs that differ in the seed alone
        group.runs                                      # their rows of the frame
        group.numbers("test_accuracy")                  # seed -> number, of complete runs
        group.values["lr"]                              # what all of them are configured with
        for run in group.having("complete"):            # as folders: `Run`
            rows(run, "gradients", "step", "gradient")  # analysis.measured: a table with clean numbers, read once
    groups.schemes, groups.varying, groups.constant, groups.scheme_of(run), groups.unreadable
"""
