"""The report on a network: one HTML page with verdict, figures, charts and pictures."""
