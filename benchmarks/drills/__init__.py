"""Fault drills: sweeps on real Ray clusters, with something killed, filled, cut or taken away in the middle."""
