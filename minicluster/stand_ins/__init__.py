"""Stand-ins for artifacts that a cluster without a network cannot download: charts, images, the NGINX controller."""
