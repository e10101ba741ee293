"""What a model cannot do, measured: one module per suite, each of which takes a predictor and returns plain data."""
