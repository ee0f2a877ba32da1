"""lablease: a control plane that leases lab hardware."""

__version__ = "0.1.0"
