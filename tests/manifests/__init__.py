"""The manifests and the commands that deploy them."""
