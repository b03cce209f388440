"""What was measured: evaluation, tables, figures."""
