"""Client library: lease an exporter, open a session through the tunnel, call its drivers.

Start with ``lablease.client.lease.lease`` (async) or ``lablease.client.sync.lease`` (blocking).
Nothing is imported here, so that the command line pays only for what it uses.
"""
