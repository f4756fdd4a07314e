"""A client and a command line for the gateway, or for an endpoint without one."""
