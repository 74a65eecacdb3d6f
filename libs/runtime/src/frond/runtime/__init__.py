"""What every service shares: settings, JSON logs, metrics, health, lifecycle, trace context."""
