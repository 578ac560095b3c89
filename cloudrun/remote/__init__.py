"""The way to a machine: shells, transfer, processes, tunnels."""
