"""The outside world behind the ports: one module per system, none knows another."""
