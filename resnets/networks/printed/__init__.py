"""Networks from their printed form: what `print(network)` of torch shows, read back."""

from resnets.networks.printed.reading import from_printed

__all__ = ["from_printed"]
