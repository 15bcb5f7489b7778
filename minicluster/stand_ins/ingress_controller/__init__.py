"""A stand-in for F5 NGINX Ingress Controller. Needs only the standard library. ../README.md lists its behaviours."""
