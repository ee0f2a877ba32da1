"""The exporter agent: registers, holds Status, joins tunnels, runs hooks, supervises driver hosts. No driver runs in it."""
