# SPDX-License-Identifier: MIT
"""What peers.py races: cases (networks), jobs (who does what), reports."""
