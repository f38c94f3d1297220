"""The forecaster and the naive forecasts that it is measured against."""
