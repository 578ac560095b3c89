"""The rehearsal cloud: doubles of the clouds on loopback, and the machines that they rent out.

Machines and the metadata service know no cloud; what one cloud does lies in a package of its own (`aws`).
"""
