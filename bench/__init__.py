"""What reproduces the measured tables: models to measure with, loads to measure under, plots of the results."""
