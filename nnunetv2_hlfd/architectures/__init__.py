"""Networks that dynamic_network_architectures lacks."""
