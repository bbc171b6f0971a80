"""Names of the files in the folder of a run."""

CONFIG = "config.toml"  # its settings
LOG = "log.jsonl"  # a record a line
MODEL = "model.safetensors"  # the trained network
REPORT = "report.html"  # how good it is, and why
STATES = "checkpoints"  # the folder of the states from which the run can go on
