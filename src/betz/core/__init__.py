"""Time grid, session and prediction types, metrics, errors, configurations and seeds; numpy only."""
