"""The commands behind the make targets: one toolkit for one machine and for a cluster."""
