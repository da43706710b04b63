"""From words on the command line to the values of a run, a `RunConfig`. Hydra and OmegaConf stop here."""
